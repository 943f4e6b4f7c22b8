import { FormatError } from "./bytes.ts";

/** One member of a tar archive: its header's fields as they are. Text is bytes as Latin-1. */
export interface TarEntry {
  /** ASCII; "\0" is read as "0". */
  type: string;
  path: string;
  /** Undefined if there is none. `targetInHeader`: as much of it as the header's 100 bytes hold. */
  target?: string;
  targetInHeader: string;
  /** Undefined if the field is not a number. */
  mode?: bigint;
  owner?: bigint;
  group?: bigint;
  /** Seconds since 1970. */
  modified?: bigint;
  deviceMajor?: bigint;
  deviceMinor?: bigint;
  /** Bytes of contents. */
  size: number;
  /** Where its header and its contents start in the archive. */
  headerOffset: number;
  contentOffset: number;
}

/** What the parser asks for next: bytes to take, or bytes to skip. */
type Want = { take: number } | { skip: number };

const block = 512;
/** Extended headers hold names and attributes; this is far more than file systems allow. */
const largestExtension = 1 << 20;

/**
 * Reads an archive that arrives in pieces, keeping one header. It treats valid and damaged fields like the Rust crate `tar`
 * 0.4.38, which tardev-snapshotter uses: names from GNU and pax extensions, sizes from pax records, and no other pax
 * record.
 */
export class TarReader {
  readonly #parser: Generator<Want, void, Buffer>;
  #want: IteratorResult<Want, void>;
  #taken = Buffer.alloc(block);
  #filled = 0;
  #offset = 0;

  constructor(entry: (entry: TarEntry) => void) {
    this.#parser = this.#parse(entry);
    this.#want = this.#parser.next();
  }

  update(chunk: Uint8Array): void {
    for (let at = 0; at < chunk.length && !this.#want.done; ) {
      const want = this.#want.value;
      const goal = "take" in want ? want.take : want.skip;
      const part = chunk.subarray(at, at + goal - this.#filled);
      if ("take" in want) {
        if (this.#taken.length < goal) this.#taken = Buffer.alloc(goal);
        this.#taken.set(part, this.#filled);
      }
      at += part.length;
      this.#filled += part.length;
      this.#offset += part.length;
      if (this.#filled < goal) return;
      this.#filled = 0;
      this.#want = this.#parser.next(this.#taken.subarray(0, goal));
    }
  }

  /** @throws FormatError if the archive ends too early; the two zero blocks at its end may be missing */
  finish(): void {
    if (this.#want.done) return;
    const inside = this.#filled > 0 || "skip" in this.#want.value || this.#want.value.take !== block;
    if (inside || this.#extended) fail(this.#offset, "the archive ends in the middle of an entry");
  }

  /** An extended header was read whose entry has not come yet. */
  #extended = false;

  *#parse(entry: (entry: TarEntry) => void): Generator<Want, void, Buffer> {
    let longPath: string | undefined;
    let longTarget: string | undefined;
    let records: string | undefined;
    for (;;) {
      const headerOffset = this.#offset;
      const header = Buffer.from(yield { take: block });
      if (header.every((byte) => byte === 0)) {
        if (this.#extended) fail(headerOffset, "an extended header has no entry");
        return;
      }
      checkSum(header, headerOffset);
      const field = number(header, 124, 12);
      if (field === undefined) fail(headerOffset, "the size field is not a number");
      const size = safe(field || paxSize(records), headerOffset);
      const padded = Math.ceil(size / block) * block;
      const type = String.fromCharCode(header[156] || 0x30);
      const magic = text(header, 257, 8);
      const ustar = magic === "ustar\x0000";
      if ("LKx".includes(type) && (ustar || magic === "ustar  \0")) {
        if (size > largestExtension) fail(headerOffset, `an extended header has ${size} bytes`);
        const content = size === 0 ? "" : text(yield { take: padded }, 0, size);
        const twice = { L: longPath, K: longTarget, x: records }[type] !== undefined;
        if (twice) fail(headerOffset, "two extended headers of one kind are for the same entry");
        if (type === "L") longPath = content.replace(/\0$/, "");
        else if (type === "K") longTarget = content.replace(/\0$/, "");
        else records = content;
        this.#extended = true;
        continue;
      }
      if (type === "S") fail(headerOffset, "GNU's sparse files are not supported");
      // Newer releases of the crate apply these, older ones do not: what a node computes is not known.
      if (record(records, "uid") !== undefined || record(records, "gid") !== undefined)
        fail(headerOffset, "the owner is in a pax record, which versions of tardev-snapshotter treat differently");
      const prefix = ustar ? untilNul(text(header, 345, 155)) : "";
      const name = untilNul(text(header, 0, 100));
      const targetInHeader = untilNul(text(header, 157, 100));
      const target = longTarget ?? record(records, "linkpath") ?? (targetInHeader === "" ? undefined : targetInHeader);
      entry({
        type,
        path: longPath ?? record(records, "path") ?? (prefix === "" ? name : `${prefix}/${name}`),
        ...(target === undefined ? {} : { target }),
        targetInHeader,
        ...given("mode", octal(header, 100, 8)),
        ...given("owner", number(header, 108, 8)),
        ...given("group", number(header, 116, 8)),
        ...given("modified", number(header, 136, 12)),
        ...given("deviceMajor", octal(header, 329, 8)),
        ...given("deviceMinor", octal(header, 337, 8)),
        size,
        headerOffset,
        contentOffset: headerOffset + block,
      });
      [longPath, longTarget, records] = [undefined, undefined, undefined];
      this.#extended = false;
      if (padded > 0) yield { skip: padded };
    }
  }
}

const given = <Name extends string>(name: Name, value: bigint | undefined) =>
  (value === undefined ? {} : { [name]: value }) as { [Key in Name]?: bigint };

const text = (bytes: Buffer, offset: number, length: number) => bytes.toString("latin1", offset, offset + length);
const untilNul = (field: string) => field.replace(/\0.*$/s, "");

function octal(header: Buffer, offset: number, length: number): bigint | undefined {
  const digits = /^[\t-\r ]*\+?([0-7]+)[\t-\r ]*$/.exec(untilNul(text(header, offset, length)))?.[1];
  return digits === undefined ? undefined : BigInt(`0o${digits}`);
}

/** Octal digits, or big-endian after a first byte with its high bit set. */
function number(header: Buffer, offset: number, length: number): bigint | undefined {
  const first = header[offset] ?? 0;
  if (first < 0x80) return octal(header, offset, length);
  if (length > 8) return header.readBigUInt64BE(offset + length - 8);
  return header.readBigUInt64BE(offset) ^ (0x80n << 56n);
}

function checkSum(header: Buffer, offset: number): void {
  const sum = header.reduce((total, byte, at) => total + (at >= 148 && at < 156 ? 0x20 : byte), 0);
  if (octal(header, 148, 8) !== BigInt(sum)) fail(offset, "the header's checksum is wrong");
}

/** "<length> <key>=<value>\n", split at each newline even if the length says otherwise; an empty line ends them. */
function* recordsOf(records = ""): Generator<[key: string, value: string] | undefined> {
  for (const line of records.split("\n")) {
    if (line === "") return;
    const [, length, key = "", value = ""] = /^\+?(\d+) ([^=]*)=(.*)$/s.exec(line) ?? [];
    yield Number(length) === line.length + 1 ? [key, value] : undefined;
  }
}

function record(records: string | undefined, wanted: string): string | undefined {
  for (const found of recordsOf(records)) if (found?.[0] === wanted) return found[1];
  return undefined;
}

/** The size in pax records, used if the header's is zero; nothing after a damaged record is read. */
function paxSize(records: string | undefined): bigint {
  for (const found of recordsOf(records)) {
    if (found === undefined) return 0n;
    if (found[0] === "size") return /^\+?\d+$/.test(found[1]) ? BigInt(found[1]) : 0n;
  }
  return 0n;
}

function safe(size: bigint, offset: number): number {
  if (size > 1n << 50n) fail(offset, `an entry says that it has ${size} bytes`);
  return Number(size);
}

function fail(offset: number, problem: string): never {
  throw new FormatError("image layer", offset, problem);
}
