import { mkdir, readdir, readFile, rmdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { Refusal } from "../../runtime/refusal.ts";

/**
 * Control groups track the cluster's processes: a process enters its unit's group before it becomes the unit's program, and
 * everything that it starts is in the group, too. So a unit runs exactly when its group has processes, and ending all of
 * them needs no list of process IDs that could be lost, or could name a stranger's process.
 */
interface Hierarchy {
  directory: string;
  /** cgroup v2 with all controllers, where only leaves may contain processes; otherwise one of several v1 hierarchies. */
  unified: boolean;
}

/** One on today's machines; on older ones several v1 hierarchies, and perhaps a v2 one without controllers beside them. */
export async function hierarchies(): Promise<Hierarchy[]> {
  const mounts = (await readFile("/proc/self/mountinfo", "utf8")).split("\n");
  return mounts.flatMap((line): Hierarchy[] => {
    const [before = "", after = ""] = line.split(" - ");
    const [directory] = before.split(" ").slice(4);
    const isGroups = directory !== undefined && /^\/sys\/fs\/cgroup(\/|$)/.test(directory) && /^cgroup2? /.test(after);
    return isGroups ? [{ directory, unified: directory === "/sys/fs/cgroup" }] : [];
  });
}

/** The controllers that a node's kubelet and systemd manage, if this machine's kernel has them. */
const neededControllers = ["cpuset", "cpu", "io", "memory", "pids", "hugetlb"];

/** In a unified hierarchy, the leaf that contains a unit's processes. */
const leaf = "processes";

/**
 * Makes the group in every hierarchy.
 * @param enable called for each v2 controller that the machine's root group does not delegate yet
 */
export async function makeGroup(
  cluster: string,
  unit: string,
  enable: (setting: { file: string; value: string; restore: string }) => Promise<void>,
): Promise<void> {
  for (const { directory, unified } of await hierarchies()) {
    const groups = [join(directory, cluster), join(directory, cluster, unit)];
    for (const group of groups) await mkdir(group, { recursive: true });
    if (unified) {
      await handDown(directory, groups, enable);
      await mkdir(join(directory, cluster, unit, leaf), { recursive: true });
      continue;
    }
    // A new cpuset is empty and accepts no processes.
    for (const file of ["cpuset.cpus", "cpuset.mems"]) {
      const all = await readFile(join(directory, file), "utf8").catch(() => undefined);
      if (all !== undefined) for (const group of groups) await writeFile(join(group, file), all.trim());
    }
  }
}

/** Lets the groups delegate the needed controllers to the groups below them. */
async function handDown(root: string, groups: string[], enable: Parameters<typeof makeGroup>[2]): Promise<void> {
  const file = join(root, "cgroup.subtree_control");
  for (const controller of await words(join(root, "cgroup.controllers"))) {
    if (!neededControllers.includes(controller)) continue;
    if (!(await words(file)).includes(controller))
      await enable({ file, value: `+${controller}`, restore: `-${controller}` });
    for (const group of groups) await writeFile(join(group, "cgroup.subtree_control"), `+${controller}`);
  }
}

const words = async (file: string) => (await readFile(file, "utf8").catch(() => "")).split(/\s+/).filter(Boolean);

/** An sh script that moves the shell into the group in every hierarchy, or exits. */
export async function enterGroupScript(group: string): Promise<string> {
  const files = (await hierarchies()).map(({ directory, unified }) =>
    join(directory, group, unified ? leaf : ".", "cgroup.procs"),
  );
  return files.map((file) => `echo $$ >${file} || exit 1`).join("\n");
}

/**
 * In a unified hierarchy, the directory of a group that a unit may create and manage as its own, beside the group that
 * contains its processes. `undefined` if there is no unified hierarchy.
 */
export async function ownGroup(group: string): Promise<string | undefined> {
  const unified = (await hierarchies()).find((hierarchy) => hierarchy.unified);
  return unified && join(unified.directory, group, "own");
}

/** The IDs of all processes in the group and the groups below it. */
export async function processesOf(group: string): Promise<number[]> {
  const found = new Set<number>();
  for (const { directory } of await hierarchies())
    for (const below of await groupsBelow(join(directory, group)))
      for (const pid of await words(join(below, "cgroup.procs"))) found.add(Number(pid));
  // 0 stands for a process in another namespace.
  found.delete(0);
  return [...found];
}

/** The group and those below it, deepest first. */
async function groupsBelow(directory: string): Promise<string[]> {
  const entries = await readdir(directory, { withFileTypes: true }).catch(() => undefined);
  if (!entries) return [];
  const below = await Promise.all(
    entries.filter((entry) => entry.isDirectory()).map((entry) => groupsBelow(join(directory, entry.name))),
  );
  return [...below.flat(), directory];
}

/** Ends every process of the group and waits until they are gone. */
export async function killGroup(group: string): Promise<void> {
  for (let round = 0; ; round++) {
    const pids = await processesOf(group);
    if (pids.length === 0) return;
    if (round === 200)
      throw new Refusal(
        "processes-stay",
        `The processes ${pids.join(", ")} of ${group} have not ended after 20 s of SIGKILL: the kernel is waiting for their input or output. Restart the machine to end them.`,
      );
    for (const pid of pids) {
      try {
        process.kill(pid, "SIGKILL");
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
      }
    }
    await delay(round < 10 ? 20 : 100);
  }
}

/** Removes the group, which has no processes any more, from every hierarchy. */
export async function removeGroup(group: string): Promise<void> {
  for (const { directory } of await hierarchies())
    for (const below of await groupsBelow(join(directory, group)))
      for (let round = 0; ; round++) {
        const error = await rmdir(below).then(
          () => undefined,
          (reason: NodeJS.ErrnoException) => reason,
        );
        if (!error || error.code === "ENOENT") break;
        // A group stays busy for a moment after its last process ended.
        if (round === 50) throw error;
        await delay(50);
      }
}
