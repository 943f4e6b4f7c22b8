import { posix } from "node:path";
import { stagedPath, stateDirectory } from "../host/files.ts";
import type { Host } from "../host/host.ts";
import { journalPath, pristinePath } from "../host/journal.ts";
import { restartsPath } from "../host/restart-budget.ts";
import { type Attempt, record } from "./attempt.ts";
import { adoptBackups } from "./backup.ts";
import { cleanLeft } from "./left.ts";
import { removePayload, runtimesDirectory } from "./payload.ts";

/**
 * After the commit: removes the directories of retired runtimes and, with the last of them, everything that we ever placed,
 * the journal last. A directory that a process still runs from stays; the next run tries again.
 */
export async function cleanUp(attempt: Attempt): Promise<void> {
  const { environment, plan } = attempt;
  const { host, log, spec } = environment;
  await cleanLeft(attempt);
  for (const { runtime } of plan.retired) {
    if (!(await removePayload(host, runtime.handler))) {
      log.warn("payload-in-use", { handler: runtime.handler });
      continue;
    }
    // Its snapshotter ended with its pod, but most programs leave their socket behind.
    if (runtime.containerd.proxyPlugin !== undefined) await host.remove(runtime.containerd.proxyPlugin.address);
    // What comes back after a power loss must still be in the journal.
    await syncIfThere(host, runtimesDirectory);
    const runtimes = attempt.journal.runtimes.filter((owned) => owned.runtime.handler !== runtime.handler);
    await record(attempt, { runtimes });
  }
  if (spec.runtimes.length === 0 && attempt.journal.runtimes.length === 0) await removeState(attempt);
}

async function removeState(attempt: Attempt): Promise<void> {
  const { host } = attempt.environment;
  const { file, createdDirectories } = attempt.journal;
  const { located } = attempt.observation;
  const touched = new Set<string>();
  const remove = async (path: string) => {
    await host.remove(path);
    touched.add(posix.dirname(path));
  };
  // The file is now the administrator's again: no backup holds anything that it lacks.
  for (const backup of file?.backups ?? []) await remove(backup);
  for (const backup of await adoptBackups(host, located.file, [])) await remove(backup);
  await remove(stagedPath(located.file));
  for (const directory of createdDirectories.toReversed()) {
    // By now it may contain somebody else's files.
    if ((await host.readDirectory(directory)).length === 0) await remove(directory);
  }
  for (const directory of touched) await syncIfThere(host, directory);
  await host.remove(pristinePath);
  await host.remove(restartsPath);
  // As long as a power loss could bring these back, the journal says whose they are.
  await syncIfThere(host, stateDirectory);
  await host.remove(journalPath);
  if ((await host.readDirectory(stateDirectory)).length === 0) await host.remove(stateDirectory);
  await syncIfThere(host, stateDirectory);
  await syncIfThere(host, posix.dirname(stateDirectory));
}

async function syncIfThere(host: Host, directory: string): Promise<void> {
  if ((await host.stat(directory)) !== undefined) await host.syncDirectory(directory);
}
