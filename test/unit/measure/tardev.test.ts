import { gunzipSync } from "node:zlib";
import { expect, test } from "vitest";
import { TardevLayer, tardevRootHash } from "../../../measure/tardev.ts";
import { sum, vector } from "./vectors.ts";

const layer = gunzipSync(vector("layer.tar.gz"));

/** A header of the layer with some fields changed, and a right checksum. */
function header(name: string, changes: [offset: number, bytes: string][] = []): Buffer {
  const at = layer.indexOf(`${name}\0`);
  const copy = Buffer.from(layer.subarray(at, at + 512));
  for (const [offset, bytes] of [...changes, [148, "        "]] as const) copy.write(bytes, offset, "latin1");
  const total = copy.reduce((sum, byte) => sum + byte, 0);
  copy.write(`${total.toString(8).padStart(6, "0")}\0`, 148, "latin1");
  return copy;
}

test("a layer without files has the root that Microsoft's genpolicy has stored for it", () => {
  // src/tools/genpolicy/layers-cache.json of microsoft/kata-containers, by this diff ID.
  const empty = Buffer.alloc(1024);
  expect(sum(empty)).toBe("5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef");
  expect(tardevRootHash([empty]).toString("hex")).toBe(
    "67450082ab56da1aecc5eae2f18d980cd9e7306e79334a1a826a91cfd90114a8",
  );
});

test.each([1, 511, 4096, 1 << 20])(
  "a layer has the root that the snapshotter's own code gives, read %i bytes at a time",
  (size) => {
    const reader = new TardevLayer();
    for (let at = 0; at < layer.length; at += size) reader.update(layer.subarray(at, at + size));
    // By tarindex of microsoft/kata-containers, and veritysetup with a salt of 32 zero bytes over what it wrote.
    expect(reader.finish().toString("hex")).toBe("776b292abf6a716208f7116617e17724312f6a96483bcd252ed40bcf8542ac23");
  },
);

test("every byte of the archive and every name counts", () => {
  const changed = Buffer.from(layer);
  changed[layer.indexOf("#!/bin/sh")] = 0x22;
  expect(tardevRootHash([changed])).not.toEqual(tardevRootHash([layer]));
  const mode = (digit: string) => tardevRootHash([header("dev/", [[105, digit]])]);
  expect(mode("5")).not.toEqual(mode("4"));
});

test.each([
  ["a damaged header", [Buffer.from(header("dev/")).fill("x", 0, 3)], /checksum is wrong \(at offset 0x0\)/],
  ["an archive that was cut", [layer.subarray(0, 2600)], /ends in the middle of an entry/],
  ["a sparse file", [header("dev/pipe", [[156, "S"]])], /GNU's sparse files are not supported/],
  [
    "a path below a file",
    [header("dev/pipe", [[156, "0"]]), header("dev/pipe", [[0, "dev/pipe/x"]])],
    /"dev\/pipe\/x" is a path below a file/,
  ],
  [
    "a file of two names that is replaced",
    [
      header("dev/pipe", [[156, "0"]]),
      header("dev/pipe", [
        [0, "dev/same"],
        [156, "1dev/pipe"],
      ]),
      header("dev/pipe"),
    ],
    /another member for a file that has several names/,
  ],
] as const)("%s is refused", (_, blocks, message) => {
  expect(() => tardevRootHash(blocks)).toThrow(message);
});
