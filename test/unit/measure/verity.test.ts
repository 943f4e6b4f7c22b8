import { expect, test } from "vitest";
import { rawSha256, sourceOf, toHex } from "../../../measure/bytes.ts";
import { buildHashTree, compareHashTree, hashTreeSize, type VerityParameters } from "../../../measure/verity.ts";
import {
  kernelVerityParams,
  parseKernelVerityParams,
  readVeritySuperblock,
  veritySuperblock,
} from "../../../measure/verity-superblock.ts";
import { expected } from "./vectors.ts";

/** 300 blocks; block i is sha256("blk<i>") 128 times. */
const image = Buffer.concat(
  Array.from({ length: 300 }, (_, i) => Buffer.concat(Array<Buffer>(128).fill(rawSha256(Buffer.from(`blk${i}`))))),
);
const salt = Uint8Array.from({ length: 32 }, (_, i) => i);

function treeOf(data: Uint8Array, parameters: VerityParameters, chunkSize = 1 << 20): { root: string; tree: Buffer } {
  const tree = Buffer.alloc(hashTreeSize(parameters));
  function* chunks() {
    for (let at = 0; at < data.length; at += chunkSize) yield data.subarray(at, at + chunkSize);
  }
  return { root: toHex(buildHashTree(chunks(), parameters, (offset, block) => tree.set(block, offset))), tree };
}

const rows = [
  ...expected.verity.roots.map((row) => ({ ...row, data: row.data === undefined ? image : Buffer.alloc(4096, 1) })),
  {
    data: image,
    dataBs: 512,
    hashBs: 4096,
    salt: toHex(salt),
    root: "4fcd33613abd5701ac4b5012c41d0d366e693c725be4276904baf6b91eb23eb3",
  },
  {
    data: image,
    dataBs: 512,
    hashBs: 512,
    salt: "",
    root: "20c00b489c897923e7a140b15badf0ce4c990cd65360c84e697e9b26eeb4887d",
  },
];

test.each(rows)("root hash with $dataBs/$hashBs blocks, salt '$salt'", ({ data, dataBs, hashBs, salt, root }) => {
  const parameters: VerityParameters = {
    algorithm: "sha256",
    dataBlockSize: dataBs,
    hashBlockSize: hashBs,
    dataBlocks: data.length / dataBs,
    salt: Buffer.from(salt, "hex"),
  };
  const whole = treeOf(data, parameters);
  expect(whole.root).toBe(root);
  // Chunks of any size make the same tree.
  expect(treeOf(data, parameters, 4099)).toEqual(whole);
});

const parameters: VerityParameters = {
  algorithm: "sha256",
  dataBlockSize: 4096,
  hashBlockSize: 4096,
  dataBlocks: 300,
  salt,
};

test("a flipped byte of data or tree is found", () => {
  const { tree } = treeOf(image, parameters);
  expect(compareHashTree(sourceOf(image), sourceOf(tree), parameters).wrong).toEqual([]);
  const data = Buffer.from(image);
  data[200 * 4096] = (data[200 * 4096] ?? 0) ^ 1;
  // Its leaf block is the second of three after the top block.
  expect(compareHashTree(sourceOf(data), sourceOf(tree), parameters).wrong).toEqual([8192, 0]);
});

test("data whose length differs from the parameters is refused", () => {
  expect(() => treeOf(image.subarray(4096), parameters)).toThrow(/fewer than the 300 blocks of 4096 bytes/);
  expect(() => treeOf(Buffer.concat([image, image.subarray(0, 4096)]), parameters)).toThrow(/more than the 300 blocks/);
  expect(() => treeOf(image, { ...parameters, dataBlockSize: 1000 })).toThrow(/power of two/);
});

test("superblock and Kata's parameters round-trip, and lies in them are named", () => {
  const superblock = { ...parameters, salt: Buffer.from(salt), uuid: "01234567-89ab-cdef-0123-456789abcdef" };
  const bytes = veritySuperblock(superblock);
  const read = readVeritySuperblock(bytes);
  expect({ ...read, salt: Buffer.from(read.salt) }).toEqual(superblock);
  bytes.writeUInt32LE(1000, 0x44);
  expect(() => readVeritySuperblock(bytes)).toThrow(
    "has hash blocks of 1000 bytes, expected a power of two from 512 to 65536 (at offset 0x44)",
  );
  const root = Buffer.alloc(32, 7);
  expect(parseKernelVerityParams(kernelVerityParams(superblock, root))).toEqual({
    rootHash: toHex(root),
    parameters: { ...parameters, salt: Buffer.from(salt) },
  });
  expect(() => parseKernelVerityParams("root_hash=00,salt=1")).toThrow(/root_hash=00, expected 64 hex digits/);
});
