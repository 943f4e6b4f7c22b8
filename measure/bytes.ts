import { hash } from "node:crypto";
import { sha256 } from "../runtime/canonical.ts";
import { Refusal } from "../runtime/refusal.ts";

/** A file's bytes, read on demand. Commands back it with a file descriptor; at most `length` bytes are held. */
export interface ByteSource {
  readonly size: number;
  /** Exactly `length` bytes from `offset`; both lie within the file. The result is valid until the next call. */
  read(offset: number, length: number): Uint8Array;
}

export const sourceOf = (bytes: Uint8Array): ByteSource => ({
  size: bytes.length,
  read: (offset, length) => bytes.subarray(offset, offset + length),
});

/** Bytes that outlive the next read of their source. A Buffer's own slice() would be the same memory. */
export const copyOf = (bytes: Uint8Array): Uint8Array => Uint8Array.from(bytes);

/** Part of a source as a source of its own: a partition of a disk image. */
export const sliceSource = (source: ByteSource, offset: number, size: number): ByteSource => ({
  size,
  read: (at, length) => source.read(offset + at, length),
});

/** The bytes in order, a megabyte at a time. */
export function* chunksOf(source: ByteSource, chunkSize = 1 << 20): Generator<Uint8Array> {
  for (let offset = 0; offset < source.size; offset += chunkSize) {
    yield source.read(offset, Math.min(chunkSize, source.size - offset));
  }
}

/** Firmware, IGVM files and documents are read whole; real ones have a few hundred MiB at most. */
export const largestWhole = 1 << 30;

/** A file that is not what it claims to be. The message names the kind of file, what is wrong and at which byte offset. */
export class FormatError extends Refusal {
  readonly offset: number;

  constructor(file: string, offset: number, problem: string) {
    super("malformed-file", `${file}: ${problem} (at offset ${hex(offset)}).`);
    this.offset = offset;
  }
}

export const hex = (value: number | bigint): string => `0x${value.toString(16)}`;

/** Little-endian fields of a file, each read checked against the file's end. */
export class View {
  readonly bytes: Uint8Array;
  readonly file: string;
  /** Where `bytes` starts in the file; error offsets count from the file's start. */
  readonly base: number;
  readonly #data: DataView;

  constructor(bytes: Uint8Array, file: string, base = 0) {
    this.bytes = bytes;
    this.file = file;
    this.base = base;
    this.#data = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  get size(): number {
    return this.bytes.length;
  }

  fail(offset: number, problem: string): never {
    throw new FormatError(this.file, this.base + offset, problem);
  }

  /** Catches whatever a lying header may say: `offset` and `length` that are negative, fractional or huge. */
  need(offset: number, length: number, what: string): void {
    if (!(offset >= 0 && length >= 0 && offset + length <= this.size)) {
      this.fail(
        offset,
        `${what} needs ${length} bytes from offset ${hex(this.base + offset)}, but the data ends at ${hex(this.base + this.size)}`,
      );
    }
  }

  u8(offset: number, what: string): number {
    this.need(offset, 1, what);
    return this.#data.getUint8(offset);
  }

  u16(offset: number, what: string): number {
    this.need(offset, 2, what);
    return this.#data.getUint16(offset, true);
  }

  u32(offset: number, what: string): number {
    this.need(offset, 4, what);
    return this.#data.getUint32(offset, true);
  }

  u64(offset: number, what: string): bigint {
    this.need(offset, 8, what);
    return this.#data.getBigUint64(offset, true);
  }

  /** A 64-bit field that counts something which must fit the file, and therefore a safe integer. */
  size64(offset: number, what: string): number {
    const value = this.u64(offset, what);
    if (value > BigInt(Number.MAX_SAFE_INTEGER))
      this.fail(offset, `${what} is ${hex(value)}, more than any file holds`);
    return Number(value);
  }

  guid(offset: number, what: string): string {
    this.need(offset, 16, what);
    return guidText(this.bytes.subarray(offset, offset + 16));
  }

  slice(offset: number, length: number, what: string): Uint8Array {
    this.need(offset, length, what);
    return this.bytes.subarray(offset, offset + length);
  }

  /** NUL-terminated or field-filling ASCII. */
  text(offset: number, length: number, what: string): string {
    const field = this.slice(offset, length, what);
    const end = field.indexOf(0);
    return Buffer.from(end < 0 ? field : field.subarray(0, end)).toString("latin1");
  }
}

/** EFI GUID: the first three groups little-endian, the rest as written. */
export function guidText(bytes: Uint8Array): string {
  const part = (from: number, to: number) => toHex(bytes.subarray(from, to));
  const swapped = (from: number, to: number) => toHex(bytes.subarray(from, to).toReversed());
  return `${swapped(0, 4)}-${swapped(4, 6)}-${swapped(6, 8)}-${part(8, 10)}-${part(10, 16)}`;
}

/** The 16 bytes of a GUID, in the order that `guidText` reads. */
export function guidBytes(text: string): Uint8Array {
  const h = text.replaceAll("-", "");
  const bytes = Buffer.from(h, "hex");
  if (!/^[0-9a-fA-F]{32}$/.test(h)) throw new Refusal("malformed-guid", `"${text}" is not a GUID of 32 hex digits.`);
  bytes.subarray(0, 4).reverse();
  bytes.subarray(4, 6).reverse();
  bytes.subarray(6, 8).reverse();
  return bytes;
}

/** The digest itself, where runtime/canonical.ts has it in hex. */
export const rawSha256 = (bytes: Uint8Array): Buffer => Buffer.from(sha256(bytes), "hex");
export const sha384 = (bytes: Uint8Array): Buffer => hash("sha384", bytes, "buffer");
export const toHex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex");
