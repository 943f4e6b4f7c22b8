import { readdir, readFile, rm } from "node:fs/promises";
import { hostname } from "node:os";
import { join } from "node:path";
import { z } from "zod";
import type { Progress } from "../programs/progress.ts";

/** What the engine's file backend writes of who holds a stack. */
const lockFile = z.object({ pid: z.int(), hostname: z.string(), timestamp: z.string() });

/**
 * Releases what an engine that was killed still holds, as `pulumi cancel` would: the lock of a process of this machine
 * that is gone. A living engine's lock stays, and so does another machine's.
 */
export async function releaseStaleLocks(
  stateDirectory: string,
  project: string,
  stack: string,
  progress: Progress,
): Promise<void> {
  const directory = join(stateDirectory, ".pulumi", "locks", "organization", project, stack);
  const files = await readdir(directory).catch(() => []);
  for (const file of files.filter((name) => name.endsWith(".json"))) {
    const lock = lockFile.safeParse(JSON.parse(await readFile(join(directory, file), "utf8"))).data;
    if (lock === undefined || lock.hostname !== hostname() || isAlive(lock.pid)) continue;
    progress(
      `Releasing stack ${stack}: the engine that updated it (process ${lock.pid}, ${lock.timestamp}) was killed.`,
    );
    await rm(join(directory, file), { force: true });
    await rm(join(directory, `${file}.attrs`), { force: true });
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}
