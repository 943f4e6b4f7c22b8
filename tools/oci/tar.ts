import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import { Refusal } from "../../runtime/refusal.ts";

/** One entry of a layer. `path` is relative to the image's root, without a leading slash. */
export type Entry = { path: string; mode: number } & (
  | { type: "directory" }
  | { type: "symlink"; target: string }
  | { type: "file"; content: Buffer | string }
  /** A file of this machine (links followed); with `sha256`, its bytes must have this digest. */
  | { type: "file"; source: string; sha256?: string }
);

const block = 512;
const padding = (size: number) => Buffer.alloc((block - (size % block)) % block);
const kinds = { file: "0", symlink: "2", directory: "5", pax: "x" };

/**
 * The archive (POSIX pax, as image layers have it) of the entries in their order: owned by root and dated 1970, so that
 * the same entries give the same bytes. Streams: memory does not grow with the files.
 *
 * @throws Refusal `digest-mismatch` where a file's bytes are not the announced ones, `file-changed` while it was read
 */
export async function* tar(entries: Iterable<Entry>): AsyncGenerator<Buffer> {
  for (const entry of entries) {
    if (entry.type === "directory") yield header(`${entry.path}/`, entry.mode, kinds.directory, 0);
    else if (entry.type === "symlink") yield header(entry.path, entry.mode, kinds.symlink, 0, entry.target);
    else if ("content" in entry) {
      const content = Buffer.from(entry.content);
      yield header(entry.path, entry.mode, kinds.file, content.length);
      yield Buffer.concat([content, padding(content.length)]);
    } else {
      const { size } = await stat(entry.source);
      yield header(entry.path, entry.mode, kinds.file, size);
      yield* contentOf(entry, size);
      yield padding(size);
    }
  }
  yield Buffer.alloc(2 * block);
}

async function* contentOf(entry: { source: string; sha256?: string }, size: number): AsyncGenerator<Buffer> {
  const hash = createHash("sha256");
  let bytes = 0;
  for await (const chunk of createReadStream(entry.source, { highWaterMark: 1 << 20 }) as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    hash.update(chunk);
    yield chunk;
  }
  if (bytes !== size)
    throw new Refusal("file-changed", `${entry.source} changed while it was read: run the command again.`);
  const digest = hash.digest("hex");
  if (entry.sha256 && digest !== entry.sha256)
    throw new Refusal(
      "digest-mismatch",
      `${entry.source} has the SHA-256 ${digest}, but its manifest says ${entry.sha256}. The file changed after it was locked: run npx contrast-runtime lock for it again.`,
    );
}

/** An entry's header; what its fields cannot hold goes into a pax record before it. */
function header(path: string, mode: number, kind: string, size: number, target = ""): Buffer {
  const records: [string, string][] = [];
  if (Buffer.byteLength(path) > 100) records.push(["path", path]);
  if (Buffer.byteLength(target) > 100) records.push(["linkpath", target]);
  if (size > 0o77777777777) records.push(["size", String(size)]);
  const main = ustar(path, mode, kind, size, target);
  if (records.length === 0) return main;
  const text = Buffer.from(records.map(([key, value]) => paxRecord(key, value)).join(""));
  return Buffer.concat([ustar("pax", 0o644, kinds.pax, text.length, ""), text, padding(text.length), main]);
}

/** Offsets and widths as POSIX gives them for ustar; owner, group and modification time stay 0. */
function ustar(path: string, mode: number, kind: string, size: number, target: string): Buffer {
  const bytes = Buffer.alloc(block);
  const octal = (value: number, offset: number, digits: number) =>
    bytes.write(`${(value % 8 ** digits).toString(8).padStart(digits, "0")}\0`, offset, "latin1");
  Buffer.from(path).copy(bytes, 0, 0, 100);
  octal(mode, 100, 7);
  octal(0, 108, 7);
  octal(0, 116, 7);
  octal(size, 124, 11);
  octal(0, 136, 11);
  bytes.fill(" ", 148, 156); // the checksum counts as spaces
  bytes.write(kind, 156, "latin1");
  Buffer.from(target).copy(bytes, 157, 0, 100);
  bytes.write("ustar\x0000", 257, "latin1");
  const sum = bytes.reduce((total, byte) => total + byte, 0);
  bytes.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148, "latin1");
  return bytes;
}

/** "<length> <key>=<value>\n", where the length counts itself. */
function paxRecord(key: string, value: string): string {
  const rest = Buffer.byteLength(` ${key}=${value}\n`);
  let length = rest + String(rest).length;
  length = rest + String(length).length;
  return `${length} ${key}=${value}\n`;
}
