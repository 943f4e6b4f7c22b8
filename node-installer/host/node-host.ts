import * as sync from "node:fs";
import * as fs from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { sha256 } from "../../runtime/canonical.ts";
import { Refusal } from "../../runtime/refusal.ts";
import { copyVerified, fileDigest, ignoreNotPermitted } from "./copy.ts";
import type { FileStat, Host, ReplaceResult } from "./host.ts";
import { resolvePath } from "./paths.ts";
import { holdLock, runProgram } from "./programs.ts";
import { described, runningBelow } from "./running.ts";

const absent = (error: unknown): boolean => {
  const { code } = error as NodeJS.ErrnoException;
  return code === "ENOENT" || code === "ENOTDIR";
};

function ifThere<T>(look: () => T): T | undefined {
  try {
    return look();
  } catch (error) {
    if (absent(error)) return undefined;
    throw error;
  }
}

/**
 * The machine itself, seen through `root`: `/` on the node, `/host` in the pod, any folder tree for `plan`.
 *
 * Links are resolved by hand below the root (the kernel would resolve an absolute link against the pod's own root), and
 * the result is opened without following any. Programs of the host run in a `chroot`, which needs neither the host's
 * process namespace nor its mount namespace: systemctl reaches systemd through the socket in the host root.
 */
export function createNodeHost(options: { root: string }): Host {
  const root = sync.realpathSync(options.root);
  const local = (path: string) => (root === "/" ? path : join(root, path));
  // Paths are resolved and entries are looked at without a turn of the event loop: that takes microseconds, while each turn
  // through Node's threads takes a hundred, and a run that has nothing to do looks at more than a thousand entries.
  /** What is at this process's path; `undefined` if nothing is. */
  const look = (path: string): sync.BigIntStats | undefined =>
    ifThere(() => sync.lstatSync(path, { bigint: true, throwIfNoEntry: false }));
  const readLink = (path: string): string | undefined => {
    // Without the nanoseconds, which cost a third more.
    const stat = ifThere(() => sync.lstatSync(local(path), { throwIfNoEntry: false }));
    if (!stat?.isSymbolicLink()) return undefined;
    try {
      return sync.readlinkSync(local(path));
    } catch (error) {
      // It was replaced meanwhile.
      if ((error as NodeJS.ErrnoException).code === "EINVAL" || absent(error)) return undefined;
      throw error;
    }
  };
  /** This process's path for the node's `path`. */
  const at = (path: string, followLast = true): string => local(resolvePath(path, readLink, followLast));
  /** The same, for reading: only files, because a pipe would block and a device may have no end. */
  const fileAt = (path: string): string => {
    const target = at(path);
    const stat = sync.lstatSync(target);
    if (stat.isFile()) return target;
    throw new Refusal(
      "not-a-file",
      `${path} is a ${stat.isDirectory() ? "directory" : "device, pipe or socket"}, where a file is expected. Remove it, or put a file in its place.`,
    );
  };

  return {
    async readFile(path) {
      try {
        return await fs.readFile(fileAt(path));
      } catch (error) {
        throw naming(path, error);
      }
    },

    digest: async (path) => fileDigest(fileAt(path)),
    localPath: async (path) => at(path),
    runningBelow: async (directory) => (await runningBelow(root, at(directory))).map(described),
    realpath: async (path) => resolvePath(path, readLink),

    async stat(path) {
      const stat = look(at(path));
      return stat && fileStat(stat);
    },

    async linkedAt(path) {
      const stat = look(at(path, false));
      return stat?.isSymbolicLink() ? stat.ctimeNs : undefined;
    },

    async readDirectory(path) {
      try {
        return (await fs.readdir(at(path))).sort();
      } catch (error) {
        if (absent(error)) return [];
        throw error;
      }
    },

    async makeDirectory(path, mode) {
      const target = at(path);
      const first = await fs.mkdir(target, { recursive: true, mode });
      if (first !== undefined) await fs.chmod(target, mode);
    },

    async createFile(path, content, attributes) {
      const target = at(path, false);
      const file = await fs.open(target, "wx", 0o600);
      try {
        await file.writeFile(content);
        // In this order, because changing the mode of somebody else's file takes another capability.
        await file.chmod(attributes.mode & 0o7777);
        await file.chown(attributes.uid, attributes.gid).catch(ignoreNotPermitted);
        await file.sync();
      } catch (error) {
        await fs.rm(target, { force: true });
        throw naming(path, error);
      } finally {
        await file.close();
      }
    },

    async appendFile(path, content) {
      await fs.appendFile(at(path), content, { mode: 0o640 });
    },

    async rename(from, to) {
      await fs.rename(at(from, false), at(to, false));
    },

    async replaceFile(path, staged, expected) {
      return replaceNow(at(path, false), at(staged, false), expected);
    },

    async syncDirectory(path) {
      const directory = await fs.open(at(path), "r");
      try {
        await directory.sync();
      } finally {
        await directory.close();
      }
    },

    async remove(path) {
      const target = at(path, false);
      try {
        await fs.unlink(target);
      } catch (error) {
        if (absent(error)) return;
        const { code } = error as NodeJS.ErrnoException;
        if (code !== "EISDIR" && code !== "EPERM") throw error;
        await fs.rmdir(target);
      }
    },

    async removeTree(path) {
      await fs.rm(at(path, false), { recursive: true, force: true });
    },

    async freeSpace(path) {
      for (let current = resolvePath(path, readLink); ; current = join(current, "..")) {
        try {
          const { bavail, bsize, ffree, files } = await fs.statfs(local(current));
          // btrfs and some others do not count inodes: they report 0 of 0.
          return { bytes: bavail * bsize, inodes: files === 0 ? Number.POSITIVE_INFINITY : ffree };
        } catch (error) {
          if (!absent(error) || current === "/") throw error;
        }
      }
    },

    async payloadFileSize(source) {
      try {
        return (await fs.stat(source)).size;
      } catch (error) {
        if (absent(error)) return undefined;
        throw error;
      }
    },

    async copyPayloadFile(source, target, expected) {
      try {
        await copyVerified(source, at(target, false), expected);
      } catch (error) {
        throw naming(target, error);
      }
    },

    run: (command, args, runOptions) => runProgram(root, command, args, runOptions?.timeoutMs ?? 60_000),
    lock: (path, timeoutMs) => holdLock(root, path, timeoutMs),
    now: () => new Date(),
    // Since the machine's start, not this process's: CLOCK_MONOTONIC.
    uptime: () => Number(process.hrtime.bigint()) / 1e6,
    delay: (ms) => delay(ms),
  };
}

/** Errors on a file that is already open do not name it. */
function naming(path: string, error: unknown): unknown {
  const { errno, path: named, message } = error as NodeJS.ErrnoException;
  if (errno === undefined || named !== undefined) return error;
  return Object.assign(error as Error, { message: `${message} '${path}'`, path });
}

/**
 * Who plans on a copy of a node's tree without being root owns the copy, and stands for root there, as in a user namespace.
 * On nodes the installer is root, and nobody stands for anybody.
 */
const standsForRoot = (id: bigint, own: number | undefined): number =>
  own !== undefined && own !== 0 && id === BigInt(own) ? 0 : Number(id);

function fileStat(stat: sync.BigIntStats): FileStat {
  return {
    kind: stat.isFile() ? "file" : stat.isDirectory() ? "directory" : "other",
    mode: Number(stat.mode & 0o7777n),
    uid: standsForRoot(stat.uid, process.getuid?.()),
    gid: standsForRoot(stat.gid, process.getgid?.()),
    size: Number(stat.size),
    mtimeNs: stat.mtimeNs,
    ctimeNs: stat.ctimeNs,
    ino: stat.ino,
    dev: stat.dev,
  };
}

/**
 * Node has no `renameat2(RENAME_EXCHANGE)`, so the comparison and the rename are two system calls in immediate succession,
 * without a turn of the event loop. What a writer that already had the old file open writes is seen through our descriptor.
 */
function replaceNow(path: string, staged: string, expected: string | undefined): ReplaceResult {
  if (expected === undefined) {
    try {
      // Unlike a rename, a link never replaces a file that somebody just created.
      sync.linkSync(staged, path);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "EEXIST") return { result: "changed" };
      throw error;
    }
    sync.unlinkSync(staged);
    return { result: "replaced" };
  }
  let old: number;
  try {
    old = sync.openSync(path, sync.constants.O_RDONLY | sync.constants.O_NOFOLLOW);
  } catch (error) {
    if (absent(error)) return { result: "changed" };
    throw error;
  }
  try {
    if (sha256(readAll(old)) !== expected) return { result: "changed" };
    if (sync.lstatSync(path, { bigint: true }).ino !== sync.fstatSync(old, { bigint: true }).ino) {
      return { result: "changed" };
    }
    sync.renameSync(staged, path);
    const bytes = readAll(old);
    return sha256(bytes) === expected ? { result: "replaced" } : { result: "foreign", bytes };
  } finally {
    sync.closeSync(old);
  }
}

function readAll(descriptor: number): Buffer {
  const size = sync.fstatSync(descriptor).size;
  const bytes = Buffer.alloc(size);
  let offset = 0;
  while (offset < size) {
    const count = sync.readSync(descriptor, bytes, offset, size - offset, offset);
    if (count === 0) break;
    offset += count;
  }
  return bytes.subarray(0, offset);
}
