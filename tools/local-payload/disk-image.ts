import { closeSync, fstatSync, ftruncateSync, openSync, readSync, writeSync } from "node:fs";
import { partitionTypes, writePartitionTable } from "../../measure/partitions.ts";
import { buildHashTree, hashTreeSize, type VerityParameters } from "../../measure/verity.ts";
import { kernelVerityParams } from "../../measure/verity-superblock.ts";

const sector = 512;
const block = 4096;
/** Partitions start at whole mebibytes, as with every partitioning tool. */
const alignment = 1 << 20;
const aligned = (bytes: number) => Math.ceil(bytes / alignment) * alignment;
const asUuid = (hex: string) => hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");

/**
 * Writes a disk image with two partitions: the file system, and its dm-verity tree without a superblock, as in Kata's own
 * images. The partition UUIDs are the two halves of the root hash (Discoverable Partitions Specification).
 *
 * @param filesystem file whose size is a multiple of 4096 bytes
 * @returns Kata's `kernel_verity_params`
 */
export function writeVerityDisk(
  filesystem: string,
  target: string,
  options: { salt: Buffer; diskUuid: string },
): string {
  const source = openSync(filesystem, "r");
  const disk = openSync(target, "w");
  try {
    const dataSize = fstatSync(source).size;
    const parameters: VerityParameters = {
      algorithm: "sha256",
      dataBlockSize: block,
      hashBlockSize: block,
      dataBlocks: dataSize / block,
      salt: options.salt,
    };
    const dataStart = alignment;
    const hashStart = aligned(dataStart + dataSize);
    const end = aligned(hashStart + hashTreeSize(parameters)) + alignment;
    ftruncateSync(disk, end);
    const copied = (function* () {
      const chunk = Buffer.alloc(1 << 20);
      for (let at = 0; at < dataSize; ) {
        const read = readSync(source, chunk, 0, chunk.length, at);
        const part = chunk.subarray(0, read);
        writeSync(disk, part, 0, read, dataStart + at);
        at += read;
        yield part;
      }
    })();
    const root = buildHashTree(copied, parameters, (offset, bytes) => {
      writeSync(disk, bytes, 0, bytes.length, hashStart + offset);
    });
    const hex = root.toString("hex");
    const partition = (type: string, name: string, uuid: string, start: number, stop: number) => ({
      type,
      name,
      uuid: asUuid(uuid),
      firstSector: start / sector,
      sectors: (stop - start) / sector,
    });
    const { primary, backup } = writePartitionTable({
      diskUuid: options.diskUuid,
      sectors: end / sector,
      partitions: [
        partition(partitionTypes.rootX64, "root", hex.slice(0, 32), dataStart, dataStart + dataSize),
        partition(
          partitionTypes.rootVerityX64,
          "root-verity",
          hex.slice(32),
          hashStart,
          hashStart + aligned(hashTreeSize(parameters)),
        ),
      ],
    });
    writeSync(disk, primary, 0, primary.length, 0);
    writeSync(disk, backup, 0, backup.length, end - backup.length);
    return kernelVerityParams(parameters, root);
  } finally {
    closeSync(source);
    closeSync(disk);
  }
}
