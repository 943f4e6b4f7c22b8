import { posix } from "node:path";
import { lockPath, readIfThere, stateDirectory } from "./files.ts";
import { guardScriptPath } from "./guard.ts";
import type { Host, Lock } from "./host.ts";
import { notRoots, octal, requireRoots } from "./owners.ts";

/** Where earlier versions locked: in a directory of everybody's, so anybody could hold the lock. */
const formerLockPath = "/run/lock/contrast-runtime.lock";

/**
 * The node's lock: whoever holds it, an installer or the guard, may change containerd's file and the installer's own
 * state. It lies in a directory that only root may enter, because whoever can open a file, even for reading, can lock it.
 *
 * An earlier version's installer is never at work at the same time, because a DaemonSet starts a node's new pod when the
 * old one has ended. But the guard that it armed may be, and that one knows the former lock: so as long as its script is
 * there, both are taken.
 */
export async function lockNode(host: Host, timeoutMs: number): Promise<Lock> {
  const directory = posix.dirname(lockPath);
  await host.makeDirectory(directory, 0o700);
  await requireRoots(host, [directory], directory);
  await requireRoots(host, [stateDirectory], stateDirectory);
  await requireClosed(host, directory);
  const lock = await host.lock(lockPath, timeoutMs);
  try {
    const script = await readIfThere(host, guardScriptPath);
    if (!script?.includes(formerLockPath)) return lock;
    const former = await host.lock(formerLockPath, timeoutMs);
    return {
      async release() {
        await former.release();
        await lock.release();
      },
    };
  } catch (error) {
    await lock.release();
    throw error;
  }
}

/** A directory of root's that was there before us, made for everybody to enter, would let everybody hold the lock. */
async function requireClosed(host: Host, directory: string): Promise<void> {
  const { mode = 0 } = (await host.stat(directory)) ?? {};
  if ((mode & 0o077) === 0) return;
  throw notRoots([
    `${directory} has mode ${octal(mode)}, so others than root can hold the lock in it. Run: chmod 0700 ${directory}.`,
  ]);
}
