import { createHash } from "node:crypto";
import { constants, copyFile, type FileHandle, open, rm } from "node:fs/promises";
import { DigestMismatch } from "./host.ts";

/** Large enough to keep a disk busy, small enough that a few of them do not matter to a node. */
const chunkBytes = 512 << 10;
/** After so many bytes the disk begins to write, so that it is not idle until the last one is there. */
const flushBytes = 64 << 20;

export interface Expected {
  size: number;
  sha256: string;
  mode: number;
}

/**
 * Copies `source` to the new file `target`, verifies it with one read per byte, and fsyncs it. If both are on one file
 * system that shares extents, the target is a clone, which is then read; else each chunk is hashed while it is written and
 * the next one is read. A target that is not as expected is removed.
 */
export async function copyVerified(source: string, target: string, expected: Expected): Promise<void> {
  // A file of one chunk is copied in less time than it takes to find out that it cannot be cloned.
  const isClone = expected.size > chunkBytes && (await cloneFile(source, target));
  const file = await open(target, isClone ? "r+" : "wx", 0o600);
  try {
    const found = isClone ? await digestOf(file) : await copyAndDigest(source, file);
    if (found.size !== expected.size || found.sha256 !== expected.sha256) {
      throw new DigestMismatch(
        `${source} has ${found.size} bytes with SHA-256 ${found.sha256}, but its manifest says ` +
          `${expected.size} bytes with SHA-256 ${expected.sha256}`,
      );
    }
    await file.chmod(expected.mode);
    await file.chown(0, 0).catch(ignoreNotPermitted);
    await file.sync();
  } catch (error) {
    await rm(target, { force: true });
    throw error;
  } finally {
    await file.close();
  }
}

/** Only root can change a file's owner; an unprivileged plan or test owns what it writes. */
export function ignoreNotPermitted(error: NodeJS.ErrnoException): void {
  if (error.code !== "EPERM" || process.getuid?.() === 0) throw error;
}

async function cloneFile(source: string, target: string): Promise<boolean> {
  try {
    await copyFile(source, target, constants.COPYFILE_FICLONE_FORCE | constants.COPYFILE_EXCL);
    return true;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "ENOENT" || code === "EEXIST" || code === "EACCES" || code === "ENOSPC") throw error;
    return false;
  }
}

async function copyAndDigest(source: string, to: FileHandle): Promise<Digest> {
  const from = await open(source, "r");
  try {
    return await digestOf(from, to);
  } finally {
    await from.close();
  }
}

/** SHA-256 of a file in constant memory. */
export async function fileDigest(path: string): Promise<Digest> {
  const file = await open(path, "r");
  try {
    return await digestOf(file);
  } finally {
    await file.close();
  }
}

interface Digest {
  size: number;
  sha256: string;
}

/** While this thread hashes a chunk, others read the next one, write this one to the copy, and flush those before it. */
async function digestOf(from: FileHandle, to?: FileHandle): Promise<Digest> {
  const hash = createHash("sha256");
  let [buffer, other] = [Buffer.allocUnsafeSlow(chunkBytes), Buffer.allocUnsafeSlow(chunkBytes)];
  let [written, flushed] = [Promise.resolve(), Promise.resolve()];
  let [size, flushedSize] = [0, 0];
  let reading = settledLater(from.read(buffer, 0, chunkBytes, 0));
  for (;;) {
    const { bytesRead } = await reading;
    await written;
    if (bytesRead === 0) break;
    const [chunk, position] = [buffer.subarray(0, bytesRead), size];
    [buffer, other] = [other, buffer];
    size += bytesRead;
    reading = settledLater(from.read(buffer, 0, chunkBytes, size));
    if (to !== undefined) written = settledLater(writeAll(to, chunk, position));
    hash.update(chunk);
    if (to === undefined || size - flushedSize < flushBytes) continue;
    await flushed;
    flushedSize = size;
    flushed = settledLater(to.datasync());
  }
  await flushed;
  return { size, sha256: hash.digest("hex") };
}

/** Awaited later; until then a failure must not count as unhandled. */
function settledLater<T>(promise: Promise<T>): Promise<T> {
  promise.catch(() => undefined);
  return promise;
}

async function writeAll(file: FileHandle, chunk: Buffer, position: number): Promise<void> {
  for (let offset = 0; offset < chunk.length; ) {
    const { bytesWritten } = await file.write(chunk, offset, chunk.length - offset, position + offset);
    offset += bytesWritten;
  }
}
