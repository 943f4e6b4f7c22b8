import { crc32 } from "node:zlib";
import { Refusal } from "../runtime/refusal.ts";
import { type ByteSource, guidBytes, toHex, View } from "./bytes.ts";

/** A partition of a disk image. Offset and size in bytes. */
export interface Partition {
  /** From 1, as in /dev/vda1. */
  index: number;
  /** GPT type GUID, or "0x83" in an MBR. */
  type: string;
  uuid?: string;
  name?: string;
  offset: number;
  size: number;
}

/** Discoverable partitions of x86-64 images (UAPI group, Discoverable Partitions Specification). */
export const partitionTypes = {
  rootX64: "4f68bce3-e8cd-4db1-96e7-fbcaf984b709",
  rootVerityX64: "2c7357ed-ebd2-46d9-aec1-23d437ec2bf5",
  linux: "0fc63daf-8483-4772-8e79-3d69d8477de4",
} as const;

const sector = 512;
const file = "disk image";

/** GPT (UEFI specification, chapter 5) or MBR; an image without either is an error. Little-endian, 512-byte sectors. */
export function readPartitions(source: ByteSource): Partition[] {
  const head = new View(source.read(0, Math.min(source.size, 2 * sector)), file);
  if (head.u16(510, "boot signature") !== 0xaa55)
    head.fail(510, "has no partition table: the boot signature 0xAA55 is missing");
  const mbr = readMbr(head, source.size);
  if (!mbr.some((partition) => partition.type === "0xee")) return mbr;
  return readGpt(head, source);
}

function readMbr(view: View, size: number): Partition[] {
  const partitions: Partition[] = [];
  for (let index = 1; index <= 4; index += 1) {
    const at = 446 + (index - 1) * 16;
    const type = view.u8(at + 4, "partition type");
    if (type === 0) continue;
    const partition = {
      index,
      type: `0x${type.toString(16).padStart(2, "0")}`,
      offset: view.u32(at + 8, "first sector") * sector,
      size: view.u32(at + 12, "sectors") * sector,
    };
    // A protective entry may claim the whole of 2 TiB.
    if (type !== 0xee && partition.offset + partition.size > size) beyond(view, at, partition, size);
    partitions.push(partition);
  }
  return partitions;
}

function beyond(
  view: View,
  at: number,
  partition: { index: number; offset: number; size: number },
  size: number,
): never {
  return view.fail(
    at,
    `partition ${partition.index} ends at byte ${partition.offset + partition.size}, but the image has ${size} bytes`,
  );
}

function readGpt(head: View, source: ByteSource): Partition[] {
  const at = sector;
  if (head.text(at, 8, "GPT header") !== "EFI PART")
    head.fail(at, 'has a protective MBR, but no GPT header ("EFI PART")');
  const headerSize = head.u32(at + 12, "GPT header size");
  if (headerSize < 92 || headerSize > sector)
    head.fail(at + 12, `has a GPT header of ${headerSize} bytes, expected 92 to ${sector}`);
  const header = Buffer.from(head.slice(at, headerSize, "GPT header"));
  const expected = header.readUInt32LE(16);
  header.writeUInt32LE(0, 16);
  if (crc32(header) !== expected) head.fail(at + 16, "has a GPT header whose checksum is wrong");
  const first = head.size64(at + 72, "first sector of the partition entries") * sector;
  const count = head.u32(at + 80, "number of partition entries");
  const entrySize = head.u32(at + 84, "size of a partition entry");
  if (entrySize < 128 || entrySize > 4096 || entrySize % 8 !== 0)
    head.fail(at + 84, `has partition entries of ${entrySize} bytes, expected 128`);
  if (count > 1024 || first + count * entrySize > source.size)
    head.fail(at + 80, `has ${count} partition entries, which the image cannot hold`);
  // The header's bytes are no longer needed: a source may reuse its buffer.
  const checksum = head.u32(at + 88, "checksum of the partition entries");
  const entries = new View(source.read(first, count * entrySize), file, first);
  if (crc32(entries.bytes) !== checksum) entries.fail(0, "has partition entries whose checksum is wrong");
  const partitions: Partition[] = [];
  for (let index = 1; index <= count; index += 1) {
    const entry = (index - 1) * entrySize;
    const type = entries.guid(entry, "partition type");
    if (type === "00000000-0000-0000-0000-000000000000") continue;
    const offset = entries.size64(entry + 32, "first sector") * sector;
    const size = (entries.size64(entry + 40, "last sector") + 1) * sector - offset;
    if (size < 0) entries.fail(entry + 32, `partition ${index} ends before it starts`);
    if (offset + size > source.size) beyond(entries, entry + 32, { index, offset, size }, source.size);
    const name = Buffer.from(entries.slice(entry + 56, 72, "partition name"))
      .toString("utf16le")
      .replace(/\0.*$/s, "");
    partitions.push({ index, type, uuid: entries.guid(entry + 16, "partition UUID"), name, offset, size });
  }
  return partitions;
}

/** What a new GPT should contain; sizes and positions in 512-byte sectors. */
export interface PartitionTable {
  diskUuid: string;
  /** Of the whole disk; partitions may use 34 to `sectors - 34`. */
  sectors: number;
  partitions: { type: string; uuid: string; name: string; firstSector: number; sectors: number }[];
}

/** The bytes of a GPT: `primary` for the disk's start (34 sectors with the protective MBR), `backup` for its last 33. */
export function writePartitionTable(table: PartitionTable): { primary: Buffer; backup: Buffer } {
  const entries = Buffer.alloc(128 * 128);
  for (const [index, partition] of table.partitions.entries()) {
    const last = partition.firstSector + partition.sectors - 1;
    if (index >= 128 || partition.firstSector < 34 || partition.sectors < 1 || last > table.sectors - 34) {
      throw new Refusal(
        "partition-table",
        `Partition ${index + 1} (sectors ${partition.firstSector} to ${last}) does not fit a disk of ${table.sectors} sectors.`,
      );
    }
    const entry = entries.subarray(index * 128, (index + 1) * 128);
    entry.set(guidBytes(partition.type), 0);
    entry.set(guidBytes(partition.uuid), 16);
    entry.writeBigUInt64LE(BigInt(partition.firstSector), 32);
    entry.writeBigUInt64LE(BigInt(last), 40);
    entry.write(partition.name.slice(0, 35), 56, "utf16le");
  }
  const header = (own: number, other: number, entriesAt: number) => {
    const bytes = Buffer.alloc(sector);
    bytes.write("EFI PART", "latin1");
    bytes.writeUInt32LE(0x10000, 8);
    bytes.writeUInt32LE(92, 12);
    bytes.writeBigUInt64LE(BigInt(own), 24);
    bytes.writeBigUInt64LE(BigInt(other), 32);
    bytes.writeBigUInt64LE(34n, 40);
    bytes.writeBigUInt64LE(BigInt(table.sectors - 34), 48);
    bytes.set(guidBytes(table.diskUuid), 56);
    bytes.writeBigUInt64LE(BigInt(entriesAt), 72);
    bytes.writeUInt32LE(128, 80);
    bytes.writeUInt32LE(128, 84);
    bytes.writeUInt32LE(crc32(entries), 88);
    bytes.writeUInt32LE(crc32(bytes.subarray(0, 92)), 16);
    return bytes;
  };
  const mbr = Buffer.alloc(sector);
  mbr.set([0, 0, 2, 0, 0xee, 0xff, 0xff, 0xff], 446);
  mbr.writeUInt32LE(1, 454);
  mbr.writeUInt32LE(Math.min(table.sectors - 1, 0xffffffff), 458);
  mbr.writeUInt16LE(0xaa55, 510);
  const last = table.sectors - 1;
  return {
    primary: Buffer.concat([mbr, header(1, last, 2), entries]),
    backup: Buffer.concat([entries, header(last, 1, last - 32)]),
  };
}

export type FilesystemType = "ext4" | "erofs" | "squashfs";
export interface Filesystem {
  type: FilesystemType;
  /** Bytes that the file system says it has. */
  size: number;
  blockSize: number;
  uuid?: string;
}

/**
 * Type and size from the superblock of ext4 (kernel Documentation/filesystems/ext4/super.rst), erofs (fs/erofs/erofs_fs.h) or
 * squashfs (fs/squashfs/squashfs_fs.h), all little-endian; undefined for anything else.
 */
export function readFilesystem(source: ByteSource, base = 0): Filesystem | undefined {
  if (source.size < 96) return undefined;
  const view = new View(source.read(0, Math.min(source.size, 4096)), "file system", base);
  const found = view.text(0, 4, "magic") === "hsqs" ? readSquashfs(view) : readAt1024(view);
  if (found !== undefined && found.size > source.size) {
    view.fail(0, `${found.type} says it has ${found.size} bytes, but its partition has ${source.size}`);
  }
  return found;
}

function readSquashfs(view: View): Filesystem {
  const version = view.u16(28, "squashfs version");
  if (version !== 4) view.fail(28, `is squashfs ${version}, expected 4`);
  return { type: "squashfs", size: view.size64(40, "squashfs size"), blockSize: view.u32(12, "squashfs block size") };
}

function readAt1024(view: View): Filesystem | undefined {
  const at = 1024;
  if (view.size < at + 1024) return undefined;
  const uuid = (offset: number) =>
    toHex(view.slice(at + offset, 16, "UUID")).replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
  if (view.u32(at, "erofs magic") === 0xe0f5e1e2) {
    const bits = view.u8(at + 12, "erofs block size");
    if (bits < 9 || bits > 16) view.fail(at + 12, `erofs has blocks of 2^${bits} bytes, expected 2^9 to 2^16`);
    return { type: "erofs", size: view.u32(at + 36, "erofs blocks") * 2 ** bits, blockSize: 2 ** bits, uuid: uuid(48) };
  }
  if (view.u16(at + 56, "ext4 magic") === 0xef53) {
    const log = view.u32(at + 24, "ext4 block size");
    if (log > 6) view.fail(at + 24, `ext4 has blocks of 2^${10 + log} bytes, expected 2^10 to 2^16`);
    const wide = (view.u32(at + 96, "ext4 features") & 0x80) !== 0;
    const blocks = view.u32(at + 4, "ext4 blocks") + (wide ? view.u32(at + 0x150, "ext4 blocks") * 2 ** 32 : 0);
    return { type: "ext4", size: blocks * 2 ** (10 + log), blockSize: 2 ** (10 + log), uuid: uuid(104) };
  }
  return undefined;
}
