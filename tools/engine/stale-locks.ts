import { readdir, readFile, rm } from "node:fs/promises";
import { hostname } from "node:os";
import { join } from "node:path";
import * as z from "zod";
import type { Progress } from "../process/progress.ts";

/** What the engine's file backend records about the holder of a stack. */
const lockFile = z.object({ pid: z.int(), hostname: z.string(), timestamp: z.string() });

/**
 * Releases the lock that a killed engine still holds, as `pulumi cancel` would, if its process was on this machine and is
 * gone. A running engine's lock stays, and so does another machine's.
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
    const lock = lockFile.safeParse(await contentOf(join(directory, file))).data;
    if (lock === undefined || lock.hostname !== hostname() || (await isEngine(lock.pid))) continue;
    progress(
      `Releasing stack ${stack}: the engine that updated it (process ${lock.pid}, ${lock.timestamp}) was killed.`,
    );
    await rm(join(directory, file), { force: true });
    await rm(join(directory, `${file}.attrs`), { force: true });
  }
}

/** `undefined` if the file is not JSON, or its engine removes it at this very moment. */
async function contentOf(file: string): Promise<unknown> {
  try {
    return JSON.parse(await readFile(file, "utf8"));
  } catch {
    return undefined;
  }
}

/**
 * Whether the process is an engine: after a reboot any other process may have the number. Where /proc does not say, any
 * process that runs counts.
 */
async function isEngine(pid: number): Promise<boolean> {
  if (process.platform === "linux")
    return (await readFile(`/proc/${pid}/comm`, "utf8").catch(() => "")).includes("pulumi");
  try {
    return process.kill(pid, 0);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}
