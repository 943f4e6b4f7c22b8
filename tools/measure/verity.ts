import { closeSync, openSync, statSync, writeSync } from "node:fs";
import { chunksOf, sliceSource, toHex } from "../../measure/bytes.ts";
import { buildHashTree, hashTreeSize, type VerityParameters } from "../../measure/verity.ts";
import { kernelVerityParams, veritySuperblock } from "../../measure/verity-superblock.ts";
import type { VerityAlgorithm } from "../../runtime/measurement-inputs.ts";
import { Refusal } from "../../runtime/refusal.ts";
import { withFile } from "../files/byte-source.ts";

export interface VerityOptions {
  /** Hex digits. */
  salt: string;
  hash: VerityAlgorithm;
  dataBlockSize: number;
  hashBlockSize: number;
  superblock: boolean;
  uuid?: string | undefined;
}

/** The dm-verity root hash of a file; also writes the hash device to `tree`, if there is one. */
export function verity(data: string, tree: string | undefined, options: VerityOptions): object {
  const { salt, hash: algorithm, dataBlockSize, hashBlockSize } = options;
  return withFile(data, (source) => {
    const parameters: VerityParameters = {
      algorithm,
      dataBlockSize,
      hashBlockSize,
      dataBlocks: Math.floor(source.size / dataBlockSize),
      salt: Buffer.from(salt, "hex"),
    };
    const treeSize = hashTreeSize(parameters);
    const covered = sliceSource(source, 0, parameters.dataBlocks * dataBlockSize);
    const root =
      tree === undefined
        ? buildHashTree(chunksOf(covered), parameters)
        : writeTree(tree, data, superblockOf(parameters, options), parameters, chunksOf(covered));
    return {
      rootHash: toHex(root),
      algorithm,
      salt,
      dataBlocks: parameters.dataBlocks,
      dataBlockSize,
      hashBlockSize,
      treeSize,
      // Kata takes no other algorithm, and wants a salt.
      ...(algorithm === "sha256" && salt !== "" ? { kernelVerityParams: kernelVerityParams(parameters, root) } : {}),
    };
  });
}

function superblockOf(parameters: VerityParameters, { superblock, uuid }: VerityOptions): Uint8Array {
  if (!superblock) return new Uint8Array();
  if (uuid === undefined) throw new Refusal("usage", "--uuid (or --no-superblock) is missing.");
  return veritySuperblock({ ...parameters, uuid });
}

/** The superblock may be empty; then the tree starts where the file does. */
function writeTree(
  path: string,
  data: string,
  superblock: Uint8Array,
  parameters: VerityParameters,
  chunks: Iterable<Uint8Array>,
): Buffer {
  const [from, to] = [statSync(data), statSync(path, { throwIfNoEntry: false })];
  if (to !== undefined && from.dev === to.dev && from.ino === to.ino)
    throw new Refusal("usage", `${path} is the data file: the tree would be written over it.`);
  const file = openSync(path, "w");
  try {
    // Up to the end of its block: one data block has no tree that would follow.
    const start = superblock.length === 0 ? 0 : parameters.hashBlockSize;
    writeSync(file, Buffer.concat([superblock], start), 0, start, 0);
    return buildHashTree(chunks, parameters, (offset, block) =>
      writeSync(file, block, 0, block.length, start + offset),
    );
  } finally {
    closeSync(file);
  }
}
