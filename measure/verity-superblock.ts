import { verityAlgorithms } from "../runtime/measurement-inputs.ts";
import { Refusal } from "../runtime/refusal.ts";
import { toHex, View } from "./bytes.ts";
import type { VerityParameters } from "./verity.ts";

const magic = "verity\0\0";

export interface VeritySuperblock extends VerityParameters {
  uuid: string;
}

export const hasVeritySuperblock = (head: Uint8Array): boolean =>
  Buffer.from(head.subarray(0, 8)).toString("latin1") === magic;

/**
 * The 512 bytes at the start of a hash device (cryptsetup lib/verity/verity.c, struct verity_sb; little-endian): magic[8],
 * u32 version 1, u32 hash type, uuid[16], algorithm[32], u32 data and hash block size, u64 data blocks, u16 salt size,
 * padding to 0x58, salt[256]. The tree starts at the next hash block.
 */
export function readVeritySuperblock(bytes: Uint8Array, base = 0): VeritySuperblock {
  const view = new View(bytes, "dm-verity superblock", base);
  view.need(0, 512, "the superblock");
  if (!hasVeritySuperblock(bytes)) view.fail(0, 'does not start with "verity"');
  const version = view.u32(8, "version");
  if (version !== 1) view.fail(8, `has version ${version}, expected 1`);
  const type = view.u32(12, "hash type");
  if (type !== 1) view.fail(12, `has hash type ${type}, expected 1 (type 0 is Chrome OS)`);
  const name = view.text(0x20, 32, "algorithm");
  const algorithm = verityAlgorithms.find((each) => each === name);
  if (algorithm === undefined)
    return view.fail(0x20, `uses the algorithm "${name}", expected ${verityAlgorithms.join(", ")}`);
  const saltSize = view.u16(0x50, "salt size");
  if (saltSize > 256) view.fail(0x50, `has a salt of ${saltSize} bytes, expected at most 256`);
  const blockSize = (offset: number, what: string) => {
    const size = view.u32(offset, what);
    if (size < 512 || size > 65536 || (size & (size - 1)) !== 0)
      view.fail(offset, `has ${what}s of ${size} bytes, expected a power of two from 512 to 65536`);
    return size;
  };
  const dataBlocks = view.size64(0x48, "number of data blocks");
  if (dataBlocks === 0) view.fail(0x48, "covers no data block");
  return {
    algorithm,
    dataBlockSize: blockSize(0x40, "data block"),
    hashBlockSize: blockSize(0x44, "hash block"),
    dataBlocks,
    salt: bytes.slice(0x58, 0x58 + saltSize),
    uuid: toHex(bytes.subarray(0x10, 0x20)).replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5"),
  };
}

/** The superblock as veritysetup writes it. `uuid` is stored in the order of its text, not as an EFI GUID. */
export function veritySuperblock(superblock: VeritySuperblock): Buffer {
  const bytes = Buffer.alloc(512);
  bytes.write(magic, 0, "latin1");
  bytes.writeUInt32LE(1, 8);
  bytes.writeUInt32LE(1, 12);
  const uuid = superblock.uuid.replaceAll("-", "");
  if (!/^[0-9a-fA-F]{32}$/.test(uuid)) throw new Refusal("malformed-guid", `"${superblock.uuid}" is not a UUID.`);
  bytes.write(uuid, 0x10, "hex");
  bytes.write(superblock.algorithm, 0x20, "latin1");
  bytes.writeUInt32LE(superblock.dataBlockSize, 0x40);
  bytes.writeUInt32LE(superblock.hashBlockSize, 0x44);
  bytes.writeBigUInt64LE(BigInt(superblock.dataBlocks), 0x48);
  bytes.writeUInt16LE(superblock.salt.length, 0x50);
  bytes.set(superblock.salt, 0x58);
  return bytes;
}

/** Kata's `kernel_verity_params`, also the content of its `root_hash_<variant>.txt`. */
export function kernelVerityParams(parameters: VerityParameters, rootHash: Uint8Array): string {
  return [
    `root_hash=${toHex(rootHash)}`,
    `salt=${toHex(parameters.salt)}`,
    `data_blocks=${parameters.dataBlocks}`,
    `data_block_size=${parameters.dataBlockSize}`,
    `hash_block_size=${parameters.hashBlockSize}`,
  ].join(",");
}

/** All five keys are required, as in Kata; others are ignored, and a field without "=" is an error. */
export function parseKernelVerityParams(text: string): { rootHash: string; parameters: VerityParameters } {
  const fields = new Map<string, string>();
  const refuse = (problem: string): never => {
    throw new Refusal("verity-parameters", `kernel_verity_params "${text}" ${problem}.`);
  };
  for (const field of text.split(",").map((each) => each.trim())) {
    const at = field.indexOf("=");
    if (at < 0) refuse(`has the field "${field}" without "="`);
    // Not trimmed: Kata takes blanks around "=" for a part of key or value.
    fields.set(field.slice(0, at), field.slice(at + 1));
  }
  const field = (key: string, pattern: RegExp, expected: string): string => {
    const value = fields.get(key);
    if (value === undefined || !pattern.test(value))
      return refuse(`has ${key}=${value ?? "(missing)"}, expected ${expected}`);
    return value;
  };
  const count = (key: string) => Number(field(key, /^[1-9]\d{0,14}$/, "a positive number"));
  const blockSize = (key: string) => {
    const size = count(key);
    if (size % 512 !== 0) refuse(`has ${key}=${size}, expected a multiple of 512`);
    return size;
  };
  return {
    rootHash: field("root_hash", /^[0-9a-f]{64}$/i, "64 hex digits").toLowerCase(),
    parameters: {
      algorithm: "sha256",
      salt: Buffer.from(field("salt", /^([0-9a-f]{2}){1,256}$/i, "hex"), "hex"),
      dataBlocks: count("data_blocks"),
      dataBlockSize: blockSize("data_block_size"),
      hashBlockSize: blockSize("hash_block_size"),
    },
  };
}
