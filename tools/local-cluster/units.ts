import { spawn } from "node:child_process";
import { mkdir, open, readFile, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { sha256 } from "../../runtime/canonical.ts";
import { Refusal } from "../../runtime/refusal.ts";
import { enterGroupScript, killGroup, makeGroup, processesOf, removeGroup } from "./cgroups.ts";
import { changeSetting } from "./host-settings.ts";
import { type ClusterLayout, enterNetwork } from "./layout.ts";

/** A program that the cluster keeps running: one of the control plane, the registry, or a node. */
export interface Unit {
  name: string;
  argv: string[];
  env?: Record<string, string>;
}

const groupOf = (cluster: ClusterLayout, unit: string) => join(cluster.cgroup, unit);
const startedFile = (cluster: ClusterLayout, unit: string) => join(cluster.directory, "units", unit);
const logFile = (cluster: ClusterLayout, unit: string) => join(cluster.directory, "log", `${unit}.log`);

export const isRunning = async (cluster: ClusterLayout, unit: string): Promise<boolean> =>
  (await processesOf(groupOf(cluster, unit))).length > 0;

export const unitProcesses = (cluster: ClusterLayout, unit: string): Promise<number[]> =>
  processesOf(groupOf(cluster, unit));

/** Whether the unit is running and was started with exactly this definition. */
export async function isCurrent(cluster: ClusterLayout, unit: Unit): Promise<boolean> {
  const started = await readFile(startedFile(cluster, unit.name), "utf8").catch(() => "");
  return started === fingerprint(unit) && (await isRunning(cluster, unit.name));
}

const fingerprint = (unit: Unit) => sha256(JSON.stringify(unit));

/** Starts the unit in its own group and the cluster's network, after ending what is left of an earlier run. */
export async function startUnit(cluster: ClusterLayout, unit: Unit): Promise<void> {
  const group = groupOf(cluster, unit.name);
  await killGroup(group);
  await makeGroup(cluster.cgroup, unit.name, (setting) => changeSetting(cluster.name, setting)).catch((error) => {
    throw new Refusal(
      "cgroup-unusable",
      `The control group ${group} cannot be created (${(error as Error).message}). Local clusters need the machine's own cgroup hierarchy to be writable; inside a container, one that its manager delegates.`,
    );
  });
  for (const file of [startedFile(cluster, unit.name), logFile(cluster, unit.name)])
    await mkdir(join(file, ".."), { recursive: true });
  await writeFile(startedFile(cluster, unit.name), fingerprint(unit));
  const log = await openLog(logFile(cluster, unit.name));
  const enter = `${await enterGroupScript(group)}\nexec "$@"`;
  const child = spawn("sh", ["-c", enter, unit.name, ...enterNetwork(cluster.name), ...unit.argv], {
    // In its own session it outlives this process, and no terminal's interrupt reaches it.
    detached: true,
    cwd: "/",
    stdio: ["ignore", log.fd, log.fd],
    // Of the user's environment also how often Go's programs collect garbage.
    env: { PATH: process.env.PATH ?? "/usr/sbin:/usr/bin:/sbin:/bin", GOGC: process.env.GOGC, ...unit.env },
  });
  await new Promise<void>((resolve, reject) => child.once("spawn", resolve).once("error", reject));
  child.unref();
  await log.close();
  // The shell enters the group within milliseconds; nobody may ask before that whether the unit is running.
  for (let wait = 0; wait < 200 && child.exitCode === null && !(await isRunning(cluster, unit.name)); wait++)
    await delay(5);
}

/** Opens the log for appending, so that earlier output is kept, unless it is too large. */
async function openLog(file: string) {
  const size = (await stat(file).catch(() => undefined))?.size ?? 0;
  return await open(file, size > 20e6 ? "w" : "a");
}

/** Kills the unit's processes at once and removes its group. */
export async function stopUnit(cluster: ClusterLayout, unit: string): Promise<void> {
  const group = groupOf(cluster, unit);
  await killGroup(group);
  await removeGroup(group);
  await rm(startedFile(cluster, unit), { force: true });
}

/**
 * Waits until the probe returns something. Gives up early if the unit that it waits for ends.
 * @throws Refusal with the last lines of the unit's log
 */
export async function waitFor<T>(
  cluster: ClusterLayout,
  unit: string,
  what: string,
  timeoutMs: number,
  probe: () => Promise<T | undefined>,
): Promise<T> {
  const end = Date.now() + timeoutMs;
  for (;;) {
    const result = await probe();
    if (result !== undefined) return result;
    const running = await isRunning(cluster, unit);
    if (!running || Date.now() > end) {
      const why = running ? `not within ${timeoutMs / 1000} s` : `its process ended`;
      throw new Refusal(
        "cluster-start",
        `${what}: ${why}. The end of ${logFile(cluster, unit)}:\n  ${await lastLines(logFile(cluster, unit))}`,
      );
    }
    await delay(100);
  }
}

async function lastLines(file: string): Promise<string> {
  const text = await readFile(file, "utf8").catch(() => "");
  return text.trim().split("\n").slice(-12).join("\n  ") || "(empty)";
}
