import { createHash, type Hash } from "node:crypto";
import { constants, copyFile, type FileHandle, open, rm } from "node:fs/promises";
import { DigestMismatch } from "./host.ts";

/** Large enough to keep a disk busy, small enough that two of them do not matter to a node. */
const chunkBytes = 1 << 20;

export interface Expected {
  size: number;
  sha256: string;
  mode: number;
}

/**
 * Copies `source` to the new file `target`, verifies it with one read per byte, and fsyncs it. If both are on one file
 * system that shares extents, the target is a clone, which is then read; else each chunk is hashed while the one before it
 * is written. A target that is not as expected is removed.
 */
export async function copyVerified(source: string, target: string, expected: Expected): Promise<void> {
  try {
    const found = (await cloneFile(source, target)) ? await digest(target) : await copyAndDigest(source, target);
    if (found.size !== expected.size || found.sha256 !== expected.sha256) {
      throw new DigestMismatch(
        `${source} has ${found.size} bytes with SHA-256 ${found.sha256}, but its manifest says ` +
          `${expected.size} bytes with SHA-256 ${expected.sha256}`,
      );
    }
    const file = await open(target, "r+");
    try {
      await file.chmod(expected.mode);
      await file.chown(0, 0).catch(ignoreNotPermitted);
      await file.sync();
    } finally {
      await file.close();
    }
  } catch (error) {
    await rm(target, { force: true });
    throw error;
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

async function copyAndDigest(source: string, target: string): Promise<{ size: number; sha256: string }> {
  const from = await open(source, "r");
  try {
    const to = await open(target, "wx", 0o600);
    try {
      let written = Promise.resolve();
      const result = await eachChunk(from, async (chunk, position, hash) => {
        hash.update(chunk);
        await written;
        written = writeAll(to, chunk, position);
        // Awaited with the next chunk; until then a failure must not count as unhandled.
        written.catch(() => undefined);
      });
      await written;
      return result;
    } finally {
      await to.close();
    }
  } finally {
    await from.close();
  }
}

async function digest(path: string): Promise<{ size: number; sha256: string }> {
  const file = await open(path, "r");
  try {
    return await eachChunk(file, async (chunk, _position, hash) => {
      hash.update(chunk);
    });
  } finally {
    await file.close();
  }
}

/** SHA-256 of a file in constant memory. */
export const fileDigest = digest;

/** Alternates between two buffers: a chunk stays untouched until the visit after the next begins. */
async function eachChunk(
  file: FileHandle,
  visit: (chunk: Buffer, position: number, hash: Hash) => Promise<void>,
): Promise<{ size: number; sha256: string }> {
  const hash = createHash("sha256");
  const buffers = [Buffer.allocUnsafeSlow(chunkBytes), Buffer.allocUnsafeSlow(chunkBytes)] as const;
  let size = 0;
  for (let turn = 0; ; turn = 1 - turn) {
    const buffer = buffers[turn as 0 | 1];
    const { bytesRead } = await file.read(buffer, 0, chunkBytes, size);
    if (bytesRead === 0) return { size, sha256: hash.digest("hex") };
    await visit(buffer.subarray(0, bytesRead), size, hash);
    size += bytesRead;
  }
}

async function writeAll(file: FileHandle, chunk: Buffer, position: number): Promise<void> {
  for (let offset = 0; offset < chunk.length; ) {
    const { bytesWritten } = await file.write(chunk, offset, chunk.length - offset, position + offset);
    offset += bytesWritten;
  }
}
