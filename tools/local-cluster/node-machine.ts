import { existsSync, readFileSync } from "node:fs";
import { copyFile, mkdir, readFile, rename, rm, rmdir, symlink, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { Refusal } from "../../runtime/refusal.ts";
import { type RunResult, run } from "../process/run.ts";
import { nodeCredentials, pkiDirectory } from "./certificates.ts";
import type { ClusterLayout, NodeLayout } from "./layout.ts";
import { containerdConfiguration, containerdConfigurationFile, type NodeFacts, nodeFiles } from "./node-files.ts";
import { isRunning, type Unit, unitProcesses } from "./units.ts";
import { vmDevices } from "./vm-devices.ts";

export interface NodePrograms {
  /** The Debian tree, and containerd's files to overlay on it. */
  tree: string;
  containerd: string;
  kubernetes: string;
}

/** The node's disk: what it writes over the trees (upper), and what must not be on an overlay (the rest). */
const disk = (node: NodeLayout) => ({
  upper: join(node.directory, "upper"),
  work: join(node.directory, "work"),
  root: join(node.directory, "root"),
  containerd: join(node.directory, "containerd"),
  kubelet: join(node.directory, "kubelet"),
  log: join(node.directory, "log"),
});

/** Makes the node's disk once: completely or, if interrupted, not at all. Then updates the files that are ours. */
export async function prepareNode(facts: NodeFacts): Promise<void> {
  const { cluster, node } = facts;
  if (!existsSync(node.directory)) {
    const fresh = `${node.directory}.new`;
    await rm(fresh, { recursive: true, force: true });
    for (const directory of Object.values(disk({ ...node, directory: fresh })))
      await mkdir(directory, { recursive: true });
    const { upper } = disk({ ...node, directory: fresh });
    await writeNodeFile(upper, containerdConfigurationFile, containerdConfiguration(facts));
    const secrets = join(upper, "etc/kubernetes");
    await mkdir(secrets, { recursive: true });
    await nodeCredentials(cluster, secrets, node.name);
    await copyFile(join(pkiDirectory(cluster), "ca.crt"), join(secrets, "ca.crt"));
    await rename(fresh, node.directory);
  }
  // A running node's files may only be changed through its own root, never below its overlay.
  if (await isRunning(cluster, node.unit)) return;
  for (const [path, content] of Object.entries(nodeFiles(facts))) await writeNodeFile(disk(node).upper, path, content);
}

/** Below `root`. A content that begins with "-> " makes a link. */
export async function writeNodeFile(root: string, path: string, content: string): Promise<void> {
  const file = join(root, path);
  await mkdir(dirname(file), { recursive: true });
  await rm(file, { force: true });
  if (content.startsWith("-> ")) await symlink(content.slice(3), file);
  else await writeFile(file, content);
}

/** If a machine restarts itself, its supervisor exits with 133; this script then starts it again, in a new group. */
const keeperScript = readFileSync(new URL("keeper.sh", import.meta.url), "utf8").trimEnd();

/**
 * The node as a process: a systemd-nspawn machine on an overlay in its own mount namespace, so that the mount disappears
 * with the machine and the host never sees it.
 *
 * @param ownGroup on cgroup v2, the directory of a group for systemd-nspawn only: it delegates controllers to the machine
 *   only from a group without other processes
 */
export function nodeUnit(node: NodeLayout, programs: NodePrograms, ownGroup = ""): Unit {
  const paths = disk(node);
  const lower = [programs.containerd, programs.tree].join(":");
  const mount = `lowerdir=${lower},upperdir=${paths.upper},workdir=${paths.work}`;
  const nspawn = [
    "systemd-nspawn",
    "--quiet",
    "--boot",
    `--directory=${paths.root}`,
    `--machine=${node.machine}`,
    `--hostname=${node.name}`,
    `--uuid=${node.uuid}`,
    // Do not register with a manager: the machine may not run systemd, and the group is already the node's own.
    "--register=no",
    "--keep-unit",
    "--settings=no",
    "--link-journal=no",
    "--resolv-conf=off",
    "--timezone=off",
    "--network-bridge=br0",
    "--capability=all",
    "--system-call-filter=add_key keyctl bpf",
    `--bind=${paths.containerd}:/var/lib/containerd`,
    `--bind=${paths.kubelet}:/var/lib/kubelet`,
    `--bind=${paths.log}:/var/log`,
    `--bind-ro=${programs.kubernetes}:/opt/kubernetes`,
    ...(existsSync("/dev/kmsg") ? ["--bind=/dev/kmsg"] : []),
    ...vmDevices().map((device) => `--bind=${device}`),
  ];
  return {
    name: node.unit,
    argv: [
      ...["unshare", "--mount", "--propagation=private", "--"],
      ...["sh", "-ec", keeperScript, "node", node.machine, mount, paths.root, ownGroup, ...nspawn],
    ],
    env: {
      // The only kernel parameters of the node's own are those of the network.
      SYSTEMD_NSPAWN_API_VFS_WRITABLE: "network",
      // The cluster's lock is enough; a lock file in /run would outlive a killed machine.
      SYSTEMD_NSPAWN_LOCK: "0",
    },
  };
}

/** The ID of the node's first process, as this machine sees it; `undefined` while there is none. */
export async function leader(cluster: ClusterLayout, node: NodeLayout): Promise<number | undefined> {
  for (const pid of await unitProcesses(cluster, node.unit)) {
    const status = await readFile(`/proc/${pid}/status`, "utf8").catch(() => "");
    // It is in this PID namespace and in the node's, where it is 1; a pod's first process is in a third one, too.
    if (/^NSpid:\t\d+\t1$/m.test(status)) return pid;
  }
  return undefined;
}

/**
 * Whether the running node is intact: its supervisor, without which it can neither be restarted nor powered off, is alive,
 * and the trees below its disk still exist; they are in the cache, which may be deleted at any time.
 */
export async function isWhole(cluster: ClusterLayout, node: NodeLayout): Promise<boolean> {
  const pid = await leader(cluster, node);
  if (pid === undefined) return false;
  const files = ["usr/bin/mount", "usr/bin/containerd", "opt/kubernetes/kubelet"];
  if (!files.every((file) => existsSync(`/proc/${pid}/root/${file}`))) return false;
  const names = (await unitProcesses(cluster, node.unit)).map((one) =>
    readFile(`/proc/${one}/comm`, "utf8").catch(() => ""),
  );
  return (await Promise.all(names)).includes("systemd-nspawn\n");
}

/** systemd's own signal for powering off: SIGRTMIN+4. */
const powerOffSignal = 38;

/** Gives the node's systemd some time to end its services; what is left then is ended when the unit is removed. */
export async function powerOff(cluster: ClusterLayout, node: NodeLayout): Promise<void> {
  const pid = await leader(cluster, node);
  if (pid === undefined) return;
  process.kill(pid, powerOffSignal);
  for (let wait = 0; wait < 100 && (await isRunning(cluster, node.unit)); wait++) await delay(50);
}

/** Runs a program inside the node, as root. */
export async function runInNode(
  cluster: ClusterLayout,
  node: NodeLayout,
  argv: string[],
  input?: string,
): Promise<RunResult> {
  const pid = await leader(cluster, node);
  if (pid === undefined)
    throw new Refusal("node-down", `The node ${node.name} of the cluster ${cluster.name} is not running.`);
  const env = { PATH: "/usr/sbin:/usr/bin:/sbin:/bin", HOME: "/root", LANG: "C.UTF-8" };
  const enter = ["--target", String(pid), "--all", "--", ...argv];
  return await run("nsenter", enter, input === undefined ? { env } : { env, input });
}

/** Removes what a killed systemd-nspawn leaves in /run under the machine's name. */
export async function removeMachineRemains(node: NodeLayout): Promise<void> {
  const top = "/run/systemd/nspawn";
  const kinds = ["propagate", "unix-export"];
  for (const kind of kinds) {
    const remains = join(top, kind, node.machine);
    if (!existsSync(remains)) continue;
    while ((await run("umount", [remains])).code === 0);
    await rm(remains, { recursive: true, force: true });
  }
  // Only empty directories: what other machines have there stays.
  for (const directory of [...kinds.map((kind) => join(top, kind)), top]) await rmdir(directory).catch(() => {});
}
