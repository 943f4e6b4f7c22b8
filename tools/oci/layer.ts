import { createHash, type Hash } from "node:crypto";
import { createWriteStream } from "node:fs";
import { lstat, mkdir, readdir, readlink, rename, rm, stat } from "node:fs/promises";
import { join, posix } from "node:path";
import { PassThrough, Readable, Transform } from "node:stream";
import { pipeline } from "node:stream/promises";
import { constants, createZstdCompress } from "node:zlib";
import { sha256 } from "../../runtime/canonical.ts";
import { Refusal } from "../../runtime/refusal.ts";
import { type Entry, tar } from "./tar.ts";

export type { Entry } from "./tar.ts";

/** "zstd-best" takes 30 times as long as "zstd", for a fifth less: it is for layers that are made once. */
export type Compression = "zstd" | "zstd-best" | "none";

/** A layer as the image's manifest and configuration name it. Digests start with "sha256:", `diffId` is the bare tar's. */
export interface Layer {
  mediaType: string;
  digest: string;
  size: number;
  diffId: string;
}

const zstdType = "application/vnd.oci.image.layer.v1.tar+zstd";
const mediaTypes: Record<Compression, string> = {
  zstd: zstdType,
  "zstd-best": zstdType,
  none: "application/vnd.oci.image.layer.v1.tar",
};

const levels = { zstd: 3, "zstd-best": 19 };

const chunkSize = 1024 * 1024;
const byPath = (a: { path: string }, b: { path: string }) => (a.path < b.path ? -1 : a.path > b.path ? 1 : 0);

/** Every entry once, its parent directories before it, in an order that does not depend on the given one. */
export function completeEntries(entries: Entry[]): Entry[] {
  const complete = new Map<string, Entry>();
  for (const entry of entries) {
    for (let parent = posix.dirname(entry.path); parent !== "."; parent = posix.dirname(parent))
      if (!complete.has(parent)) complete.set(parent, { path: parent, type: "directory", mode: 0o755 });
    complete.set(entry.path, entry);
  }
  return [...complete.values()].sort(byPath);
}

/**
 * What the layer's bytes depend on, told from the entries alone. A file of this machine counts as unchanged while its
 * size, times and inode are: reading gigabytes to learn that nothing happened would cost more than the rest of a build.
 */
export async function layerKey(entries: Entry[], compression: Compression): Promise<string> {
  const described: unknown[] = [1, compression, process.versions.zstd];
  for (const entry of completeEntries(entries)) {
    if (entry.type === "file" && "source" in entry) {
      const { size, mtimeNs, ctimeNs, ino } = await stat(entry.source, { bigint: true });
      described.push({ ...entry, identity: [size, mtimeNs, ctimeNs, ino].map(String) });
    } else if (entry.type === "file") described.push({ ...entry, content: sha256(entry.content) });
    else described.push(entry);
  }
  return sha256(JSON.stringify(described));
}

/**
 * Writes the layer into the directory of blobs, named by its digest. The same entries give the same bytes: sorted, owned
 * by root, dated 1970. Streams: memory does not grow with the files.
 *
 * @throws Refusal `digest-mismatch` where a file's bytes are not the announced ones
 */
export async function buildLayer(entries: Entry[], blobs: string, compression: Compression): Promise<Layer> {
  await mkdir(blobs, { recursive: true });
  const temporary = join(blobs, `.new-${process.pid}-${Math.random().toString(36).slice(2)}`);
  const bare = new Meter();
  const stored = new Meter();
  const compressor =
    compression === "none"
      ? new PassThrough()
      : createZstdCompress({ chunkSize, params: { [constants.ZSTD_c_compressionLevel]: levels[compression] } });
  try {
    const archive = Readable.from(tar(completeEntries(entries)), { objectMode: false });
    await pipeline(archive, bare, compressor, stored, createWriteStream(temporary));
    const digest = stored.digest();
    await rename(temporary, join(blobs, digest.slice("sha256:".length)));
    return { mediaType: mediaTypes[compression], digest, size: stored.bytes, diffId: bare.digest() };
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
}

/** The entries of a directory tree on this machine, with its permission bits; owners and times are not kept. */
export async function entriesOfTree(directory: string, prefix = ""): Promise<Entry[]> {
  const entries: Entry[] = [];
  for (const name of (await readdir(directory)).sort()) {
    const source = join(directory, name);
    const path = posix.join(prefix, name);
    const status = await lstat(source);
    const mode = status.mode & 0o7777;
    if (status.isSymbolicLink()) entries.push({ path, mode: 0o777, type: "symlink", target: await readlink(source) });
    else if (status.isDirectory())
      entries.push({ path, mode, type: "directory" }, ...(await entriesOfTree(source, path)));
    else if (status.isFile()) entries.push({ path, mode, type: "file", source });
    else throw new Refusal("file-kind", `${source} is neither a file, a directory nor a link: images hold no others.`);
  }
  return entries;
}

/** Passes bytes through, counting and hashing them. */
class Meter extends Transform {
  bytes = 0;
  readonly #hash: Hash = createHash("sha256");
  #digest: string | undefined;

  override _transform(chunk: Buffer, _encoding: BufferEncoding, done: (error: null, chunk: Buffer) => void): void {
    this.bytes += chunk.length;
    this.#hash.update(chunk);
    done(null, chunk);
  }

  /** "sha256:<hex>" of what has passed. */
  digest(): string {
    this.#digest ??= `sha256:${this.#hash.digest("hex")}`;
    return this.#digest;
  }
}
