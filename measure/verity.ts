import { hash } from "node:crypto";
import type { VerityAlgorithm } from "../runtime/measurement-inputs.ts";
import { Refusal } from "../runtime/refusal.ts";
import { type ByteSource, chunksOf } from "./bytes.ts";

/** dm-verity, hash type 1 (kernel Documentation/admin-guide/device-mapper/verity.rst; cryptsetup's on-disk format). */
export interface VerityParameters {
  algorithm: VerityAlgorithm;
  /** Bytes; powers of two from 512 to 64 KiB. */
  dataBlockSize: number;
  hashBlockSize: number;
  dataBlocks: number;
  /** At most 256 bytes, hashed before every block. */
  salt: Uint8Array;
}

/** Bytes that each digest takes in a hash block, a power of two; the end of the block is zero. */
const digestSlot = (algorithm: VerityAlgorithm) => (algorithm === "sha256" ? 32 : 64);
const hashSize = { sha256: 32, sha384: 48, sha512: 64 } as const;

export const blockSizes = "a power of two from 512 to 65536";
export const isBlockSize = (size: number): boolean =>
  Number.isInteger(size) && size >= 512 && size <= 65536 && (size & (size - 1)) === 0;

function checkParameters(parameters: VerityParameters): void {
  const { dataBlockSize, hashBlockSize, dataBlocks, salt } = parameters;
  for (const [name, size] of [
    ["data", dataBlockSize],
    ["hash", hashBlockSize],
  ] as const) {
    if (!isBlockSize(size)) {
      throw new Refusal(
        "verity-parameters",
        `A dm-verity ${name} block of ${size} bytes is not possible: expected ${blockSizes}.`,
      );
    }
  }
  if (!Number.isSafeInteger(dataBlocks) || dataBlocks < 1) {
    throw new Refusal(
      "verity-parameters",
      `dm-verity over ${dataBlocks} data blocks is not possible: expected 1 or more.`,
    );
  }
  if (salt.length > 256)
    throw new Refusal(
      "verity-parameters",
      `A dm-verity salt of ${salt.length} bytes is not possible: expected at most 256.`,
    );
}

/** Levels of the tree, lowest first: blocks of each, and where it starts in the tree (the top level is stored first). */
function hashTreeLevels(parameters: VerityParameters): { blocks: number; offset: number }[] {
  checkParameters(parameters);
  const perBlock = parameters.hashBlockSize / digestSlot(parameters.algorithm);
  const counts: number[] = [];
  for (let blocks = parameters.dataBlocks; blocks > 1; counts.push(blocks)) blocks = Math.ceil(blocks / perBlock);
  let offset = 0;
  const levels: { blocks: number; offset: number }[] = [];
  for (const blocks of counts.toReversed()) {
    levels.unshift({ blocks, offset });
    offset += blocks * parameters.hashBlockSize;
  }
  return levels;
}

/** Bytes of the hash tree without superblock; 0 for a single data block, whose digest is the root hash. */
export const hashTreeSize = (parameters: VerityParameters): number =>
  hashTreeLevels(parameters).reduce((sum, level) => sum + level.blocks * parameters.hashBlockSize, 0);

/** Takes a block's position in the tree and its bytes, which are only valid during the call. */
export type WriteBlock = (offset: number, block: Uint8Array) => void;

/**
 * Reads the data once and writes the hash tree, keeping one hash block per level. Chunks may have any size; together they
 * are exactly the data blocks. Returns the root hash.
 */
export function buildHashTree(
  chunks: Iterable<Uint8Array>,
  parameters: VerityParameters,
  write: WriteBlock = () => {},
): Buffer {
  const offsets = hashTreeLevels(parameters).map(({ offset }) => offset);
  const tree = new HashTree(parameters, { dataBlocks: parameters.dataBlocks, offsets, write });
  for (const chunk of chunks) tree.update(chunk);
  return tree.finish();
}

/** A tree that grows with its data; only one of known size can be written, because its top is stored first. */
export class HashTree {
  readonly #parameters: Omit<VerityParameters, "dataBlocks">;
  readonly #known: { dataBlocks: number; offsets: number[]; write: WriteBlock } | undefined;
  readonly #slot: number;
  readonly #levels: { offset: number; block: Buffer; used: number }[] = [];
  /** Salt and one data block, contiguous, so that a digest is a single call. */
  readonly #data: Buffer;
  readonly #hashed: Buffer;
  #filled = 0;
  #blocks = 0;

  constructor(
    parameters: Omit<VerityParameters, "dataBlocks">,
    known?: { dataBlocks: number; offsets: number[]; write: WriteBlock },
  ) {
    this.#parameters = parameters;
    this.#known = known;
    this.#slot = digestSlot(parameters.algorithm);
    this.#data = Buffer.concat([parameters.salt, Buffer.alloc(parameters.dataBlockSize)]);
    this.#hashed = Buffer.concat([parameters.salt, Buffer.alloc(parameters.hashBlockSize)]);
  }

  update(chunk: Uint8Array): void {
    const { dataBlockSize, salt, algorithm } = this.#parameters;
    for (let at = 0; at < chunk.length; ) {
      const part = chunk.subarray(at, at + dataBlockSize - this.#filled);
      this.#data.set(part, salt.length + this.#filled);
      this.#filled += part.length;
      at += part.length;
      if (this.#filled < dataBlockSize) return;
      this.#filled = 0;
      this.#blocks += 1;
      if (this.#known !== undefined && this.#blocks > this.#known.dataBlocks) this.#wrongLength("more");
      // As a binary string: node:crypto makes those faster than Buffers.
      this.#append(0, hash(algorithm, this.#data, "binary"));
    }
  }

  finish(): Buffer {
    if (this.#filled > 0 || this.#blocks < (this.#known?.dataBlocks ?? 1)) this.#wrongLength("fewer");
    for (let index = 0; ; index += 1) {
      const level = this.#levels[index];
      // A digest with no other beside it and no level above it is the root: of one data block, or of the top hash block.
      if (level !== undefined && level.used === this.#slot && index === this.#levels.length - 1)
        return Buffer.from(level.block.subarray(0, hashSize[this.#parameters.algorithm]));
      this.#flush(index);
    }
  }

  #append(index: number, digest: string): void {
    this.#levels[index] ??= {
      offset: this.#known?.offsets[index] ?? 0,
      block: Buffer.alloc(this.#parameters.hashBlockSize),
      used: 0,
    };
    const level = this.#levels[index];
    level.block.write(digest, level.used, "binary");
    level.used += this.#slot;
    if (level.used === level.block.length) this.#flush(index);
  }

  #flush(index: number): void {
    const level = this.#levels[index];
    if (level === undefined || level.used === 0) return;
    this.#known?.write(level.offset, level.block);
    level.offset += level.block.length;
    this.#hashed.set(level.block, this.#parameters.salt.length);
    level.block.fill(0);
    level.used = 0;
    this.#append(index + 1, hash(this.#parameters.algorithm, this.#hashed, "binary"));
  }

  #wrongLength(how: string): never {
    const { dataBlockSize } = this.#parameters;
    throw new Refusal(
      "verity-data-length",
      `The data has ${how} than the ${this.#known?.dataBlocks ?? 1} blocks of ${dataBlockSize} bytes that its dm-verity tree covers.`,
    );
  }
}

/** Offsets of hash blocks in a stored tree that differ from what the data needs; at most `limit`. */
export function compareHashTree(
  data: ByteSource,
  tree: ByteSource,
  parameters: VerityParameters,
  limit = 8,
): { rootHash: Buffer; wrong: number[] } {
  const wrong: number[] = [];
  const rootHash = buildHashTree(chunksOf(data), parameters, (offset, block) => {
    if (wrong.length >= limit) return;
    if (offset + block.length > tree.size || Buffer.compare(tree.read(offset, block.length), block) !== 0)
      wrong.push(offset);
  });
  return { rootHash, wrong };
}
