import { existsSync, type StatsFs } from "node:fs";
import { mkdir, readdir, rename, rm, statfs } from "node:fs/promises";
import { homedir } from "node:os";
import { basename, dirname, join } from "node:path";
import { sha256 } from "../../runtime/canonical.ts";
import { Refusal } from "../../runtime/refusal.ts";
import { withLock } from "../files/mutex.ts";
import type { Progress } from "../process/progress.ts";

/** Holds only what can be made again. Deleting it makes things slower, never wrong. */
export function cacheDirectory(): string {
  return join(process.env.XDG_CACHE_HOME || join(homedir(), ".cache"), "contrast-runtime");
}

export interface CacheEntry {
  /** What it is, as a file name: `kubernetes-1.36.3`. */
  name: string;
  /** Everything that decides the content. Another value makes another entry. */
  inputs: unknown;
  /** Fills the empty directory. If it throws or is killed, there is no entry. */
  make: (directory: string) => Promise<void>;
  /** Free space needed to make it, in bytes. */
  space?: number;
}

const keyOf = ({ inputs }: Pick<CacheEntry, "inputs">) => sha256(JSON.stringify(inputs)).slice(0, 16);

/** Where the entry is, or would be. */
const directoryOf = (entry: Pick<CacheEntry, "name" | "inputs">) =>
  join(cacheDirectory(), "programs", `${entry.name}-${keyOf(entry)}`);

export const isCached = (entry: Pick<CacheEntry, "name" | "inputs">): boolean => existsSync(directoryOf(entry));

/** The entry's directory, made now if the cache does not have it. Two processes never make the same entry twice. */
export async function cached(entry: CacheEntry, progress: Progress): Promise<string> {
  const directory = directoryOf(entry);
  const parent = dirname(directory);
  if (existsSync(directory)) return directory;
  await mkdir(parent, { recursive: true });
  await withLock(
    `cache ${directory}`,
    `process ${process.pid}`,
    (other) => progress(`Waiting for ${other}, which is preparing ${entry.name}.`),
    async () => {
      if (existsSync(directory)) return;
      if (entry.space) await requireSpace(parent, entry.space, entry.name);
      await removeLeftovers(parent, `${basename(directory)}.new-`);
      // Some entries are nodes' trees, which users other than root must be able to read.
      process.umask(0o022);
      const fresh = `${directory}.new-${process.pid}`;
      await mkdir(fresh);
      try {
        await entry.make(fresh);
        await rename(fresh, directory);
      } catch (error) {
        await rm(fresh, { recursive: true, force: true });
        throw error;
      }
    },
  );
  return directory;
}

/** Removes the unfinished directories of processes that were killed while making an entry. The caller holds its lock. */
async function removeLeftovers(parent: string, prefix: string): Promise<void> {
  for (const name of await readdir(parent))
    if (name.startsWith(prefix)) await rm(join(parent, name), { recursive: true, force: true });
}

/** Refuses, before anything is begun, what the disk has no room for. The path need not exist yet. */
export async function requireSpace(path: string, bytes: number, purpose: string): Promise<void> {
  const { bavail, bsize } = await fileSystemOf(path);
  const free = bavail * bsize;
  if (free >= bytes) return;
  const elsewhere = path.startsWith(cacheDirectory()) ? ", or set XDG_CACHE_HOME to a directory on a larger disk" : "";
  const gigabytes = (value: number) => `${(value / 1e9).toFixed(1)} GB`;
  throw new Refusal(
    "disk-full",
    `${purpose} needs ${gigabytes(bytes)} of free disk space at ${path}, where only ${gigabytes(free)} are free. Make room there${elsewhere}.`,
  );
}

/** The file system that the path is on, or will be on once it is made. */
async function fileSystemOf(path: string): Promise<StatsFs> {
  try {
    return await statfs(path);
  } catch (error) {
    const missing = (error as NodeJS.ErrnoException).code === "ENOENT";
    if (!missing || dirname(path) === path) throw error;
    return await fileSystemOf(dirname(path));
  }
}
