import { existsSync } from "node:fs";
import { readdir, readFile, rm, rmdir } from "node:fs/promises";
import { join } from "node:path";
import { type ClusterInput, type ClusterOptions, parseClusterOptions } from "../../components/config/local-cluster.ts";
import { Refusal } from "../../runtime/refusal.ts";
import { withLock } from "../files/mutex.ts";
import { packageRoot } from "../files/project.ts";
import { type Progress, seconds } from "../process/progress.ts";
import { check, type RunResult } from "../process/run.ts";
import { containerdTree, kubernetesPrograms, nodeTree, registryProgram } from "../programs/pinned.ts";
import { ensureCertificates, kubeconfigFile } from "./certificates.ts";
import { killGroup, removeGroup } from "./cgroups.ts";
import {
  type ControlPlanePrograms,
  controllerUnits,
  serverUnits,
  writeRegistryConfiguration,
} from "./control-plane.ts";
import { atLeast, restoreSettings } from "./host-settings.ts";
import { imageReference, pushSeedImages, type SeedImage, seedImages } from "./images.ts";
import { kubectl, nodeReports } from "./kubectl.ts";
import { type ClusterLayout, clusterLayout, clustersDirectory, nodeLayout } from "./layout.ts";
import { ensureNetwork, networkExists, removeNetwork } from "./network.ts";
import { removeMachineRemains, runInNode } from "./node-machine.ts";
import { type ClusterNode, ensureNodes, type NodeContext, removeNode } from "./node-set.ts";
import { type ClusterRecord, forcedRemoval, type NodeRecord, readRecord, writeRecord } from "./record.ts";
import { mayLowerOomScores, requireMachine, requireRoot } from "./requirements.ts";
import { isCurrent, isRunning, startUnit, type Unit, waitFor } from "./units.ts";

export interface ClusterInfo {
  /** Content of the administrator's kubeconfig; its server is only reachable from the cluster's network. */
  kubeconfig: string;
  /** host:port of the image registry that the nodes pull from, over plain HTTP. */
  registry: string;
  /** The file that `nsenter --net=` takes. */
  networkNamespace: string;
  nodes: { name: string; address: string; containerd: string }[];
  /** Images that the registry has from the start: references with digests, by name. */
  images: Record<SeedImage["name"], string>;
}

/**
 * Makes the cluster match the options, whatever is there: nothing, a complete cluster, or what a reboot, a kill or an
 * interrupted run left. Quick if nothing is wrong.
 * @throws Refusal with one sentence about what is in the way
 */
export async function ensureCluster(input: ClusterInput, progress: Progress): Promise<ClusterInfo> {
  const options = parseClusterOptions(input);
  // The nodes' root directories are made here, and not only root uses them. Secret files set their own mode.
  process.umask(0o022);
  await requireMachine(progress);
  return await whileLocked(options.name, "ensure", progress, () => ensure(options, progress));
}

async function ensure(options: ClusterOptions, progress: Progress): Promise<ClusterInfo> {
  const begin = Date.now();
  const cluster = clusterLayout(options.name);
  const before = await requireOwnCluster(options.name);

  const [kubernetes, tree, registry, images, ...trees] = await Promise.all([
    kubernetesPrograms(progress),
    nodeTree(progress),
    registryProgram(progress),
    seedImages(progress),
    ...options.nodes.map(async ({ containerd }) => [containerd, await containerdTree(containerd, progress)] as const),
  ]);

  // Without a record, anything with the cluster's name is left over from an interrupted removal.
  if (!before) await removeAll(cluster);
  const nodes = numberNodes(options, before?.nodes ?? []);
  const leaving = (before?.nodes ?? []).filter((old) => !nodes.some((node) => isSameMachine(node, old)));
  const record: ClusterRecord = { schemaVersion: 1, owner: packageRoot, nodes: [...nodes, ...leaving] };
  await writeRecord(cluster, record);

  // Each node's systemd and kubelet watch files by some thirty instances, of which a machine allows its root 128.
  await atLeast(cluster.name, "/proc/sys/fs/inotify/max_user_instances", 1024);
  if (!(await networkExists(cluster))) await killGroup(cluster.cgroup);
  await ensureCertificates(cluster);
  const layouts = nodes.map((node): ClusterNode => ({ ...nodeLayout(cluster, node), record: node }));
  await ensureNetwork(cluster, layouts);

  const started = await ensureControlPlane(cluster, { kubernetes, tree, registry }, progress);
  const context: NodeContext = {
    cluster,
    kubernetes,
    tree,
    containerd: Object.fromEntries(trees),
    pauseImage: image(cluster, images, "pause"),
    restrictOomScores: !(await mayLowerOomScores()),
    formerLabels: Object.fromEntries((before?.nodes ?? []).map(({ name, labels }) => [name, labels])),
    repairControlPlane: repairing(() => ensureControlPlane(cluster, { kubernetes, tree, registry }, progress)),
  };
  await pushSeedImages(cluster, images);
  for (const node of leaving) await removeNode(context, nodeLayout(cluster, node), progress);
  if (leaving.length) await writeRecord(cluster, { ...record, nodes });
  const booted = await ensureNodes(context, layouts, progress);
  if (started) await untilPodsAreAdmitted(cluster, kubernetes);
  if (started || booted) progress(`The cluster ${cluster.name} is up (${seconds(begin)}).`);
  return {
    kubeconfig: await readFile(kubeconfigFile(cluster, "admin"), "utf8"),
    registry: cluster.registry,
    networkNamespace: cluster.networkNamespace,
    nodes: layouts.map(({ name, address, record }) => ({ name, address, containerd: record.containerd })),
    images: { busybox: image(cluster, images, "busybox"), pause: image(cluster, images, "pause") },
  };
}

/** How often a control plane that ends while its nodes start is started again: one that always ends is no accident. */
const mostRepairs = 5;

/** For many who wait at the same time: one of them repairs, and all learn whether there was anything to do. */
function repairing(ensureAgain: () => Promise<boolean>): () => Promise<boolean> {
  let running: Promise<boolean> | undefined;
  let repairs = 0;
  return () => {
    running ??= ensureAgain()
      .then((repaired) => {
        if (repaired) repairs += 1;
        if (repairs <= mostRepairs) return repaired;
        throw new Refusal(
          "control-plane-ends",
          `The control plane was started again ${mostRepairs} times while its nodes started, and ended each time.`,
        );
      })
      .finally(() => {
        running = undefined;
      });
    return running;
  };
}

const image = (cluster: ClusterLayout, images: SeedImage[], name: SeedImage["name"]): string => {
  const found = images.find((one) => one.name === name);
  if (!found) throw new Error(`no seed image ${name}`);
  return imageReference(cluster, found);
};

/** Another containerd means another machine: the containerd below an existing disk is never changed. */
const isSameMachine = (one: NodeRecord, other: NodeRecord) =>
  one.name === other.name && one.containerd === other.containerd && one.number === other.number;

/** Nodes keep their numbers; new ones get the lowest number that no node has, or had before this run. */
function numberNodes(options: ClusterOptions, before: NodeRecord[]): NodeRecord[] {
  const taken = new Set(before.map(({ number }) => number));
  return options.nodes.map((node) => {
    const old = before.find(({ name, containerd }) => name === node.name && containerd === node.containerd);
    if (old) return { ...node, number: old.number };
    let number = 2;
    while (taken.has(number)) number++;
    taken.add(number);
    return { ...node, number };
  });
}

/** Returns whether there was anything to do. */
async function ensureControlPlane(
  cluster: ClusterLayout,
  programs: ControlPlanePrograms,
  progress: Progress,
): Promise<boolean> {
  const begin = Date.now();
  await writeRegistryConfiguration(cluster);
  const servers = await notCurrent(cluster, serverUnits(cluster, programs));
  const controllers = await notCurrent(cluster, controllerUnits(cluster, programs));
  if (servers.length + controllers.length === 0) return false;
  progress(`Control plane: ${[...servers, ...controllers].map(({ name }) => name).join(", ")} …`);
  for (const unit of servers) await startUnit(cluster, unit);
  await untilServing(cluster, programs, progress);
  for (const unit of controllers) await startUnit(cluster, unit);
  progress(`  the control plane is ready (${seconds(begin)}).`);
  return true;
}

/** The API server gives up if its first steps take long, for example on a busy machine; each restart gets further. */
async function untilServing(cluster: ClusterLayout, programs: ControlPlanePrograms, progress: Progress): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    try {
      await waitFor(cluster, "apiserver", "The API server does not answer", 300_000, async () => {
        const ready = ["get", "--raw=/readyz", "--request-timeout=5s"];
        return (await kubectl(cluster, programs.kubernetes, ready)).code === 0 || undefined;
      });
      return;
    } catch (error) {
      const ended = await notCurrent(cluster, serverUnits(cluster, programs));
      if (!(error instanceof Refusal) || ended.length === 0 || attempt === 3) throw error;
      progress(`  ${ended.map(({ name }) => name).join(", ")} ended; starting again …`);
      for (const unit of ended) await startUnit(cluster, unit);
    }
  }
}

/** No pod is admitted before the controllers create the default service account, a few seconds after they start. */
async function untilPodsAreAdmitted(cluster: ClusterLayout, kubernetes: string): Promise<void> {
  await waitFor(cluster, "controller-manager", "There is no default service account", 300_000, async () => {
    const { code } = await kubectl(cluster, kubernetes, ["get", "serviceaccount", "default"]);
    return code === 0 || undefined;
  });
}

/** The units that must be started or restarted. */
async function notCurrent(cluster: ClusterLayout, units: Unit[]): Promise<Unit[]> {
  const current = await Promise.all(units.map((unit) => isCurrent(cluster, unit)));
  return units.filter((_, i) => !current[i]);
}

/**
 * Removes everything of the cluster except programs in the cache; does nothing if there is no cluster.
 * @param force also remove a cluster that another installation owns, or whose record is damaged
 */
export async function destroyCluster(name: string, progress: Progress, options: { force?: boolean } = {}) {
  const cluster = clusterLayout(parseClusterOptions({ name }).name);
  requireRoot();
  await whileLocked(name, "destroy", progress, async () => {
    if (!options.force) {
      const record = await readRecord(cluster);
      if (record) requireOwner(cluster, record);
    }
    const begin = Date.now();
    if (await removeAll(cluster)) progress(`The cluster ${name} is removed (${seconds(begin)}).`);
  });
}

/** Finds everything by name, so that it removes what any interrupted run left, in an order that another run can continue. */
async function removeAll(cluster: ClusterLayout): Promise<boolean> {
  await killGroup(cluster.cgroup);
  await removeGroup(cluster.cgroup);
  const existed = existsSync(cluster.directory);
  const nodes = await readdir(join(cluster.directory, "nodes")).catch(() => []);
  for (const name of nodes) await removeMachineRemains(nodeLayout(cluster, { name, number: 0 }));
  await removeNetwork(cluster);
  await restoreSettings(cluster.name);
  await requireNoMounts(cluster.directory);
  await rm(cluster.directory, { recursive: true, force: true });
  await rmdir(clustersDirectory).catch(() => {}); // it stays if it has other clusters
  return existed;
}

/** Nothing of ours mounts anything here, but files must never be deleted through a mount. */
async function requireNoMounts(directory: string): Promise<void> {
  const mounts = (await readFile("/proc/self/mountinfo", "utf8"))
    .split("\n")
    .flatMap((line) => line.split(" ").slice(4, 5));
  for (const mount of mounts.filter((one) => one.startsWith(`${directory}/`)).reverse()) await check("umount", [mount]);
}

export interface ClusterStatus {
  name: string;
  exists: boolean;
  owner?: string;
  units: Record<string, boolean>;
  nodes: { name: string; containerd: string; running: boolean; ready: boolean; reason: string }[];
}

/** Reports what exists of the cluster, without changing anything. */
export async function clusterStatus(name: string): Promise<ClusterStatus> {
  const cluster = clusterLayout(parseClusterOptions({ name }).name);
  requireRoot();
  const record = await readRecord(cluster);
  if (!record) return { name, exists: existsSync(cluster.directory), units: {}, nodes: [] };
  const units: Record<string, boolean> = {};
  for (const unit of ["etcd", "registry", "apiserver", "controller-manager", "scheduler"])
    units[unit] = await isRunning(cluster, unit);
  const reports = units.apiserver ? await nodeReports(cluster, await kubernetesPrograms(() => {})) : undefined;
  const nodes = await Promise.all(
    record.nodes.map(async ({ name: node, number, containerd }) => {
      const report = reports?.find((one) => one.name === node);
      const running = await isRunning(cluster, nodeLayout(cluster, { name: node, number }).unit);
      const reason = running ? (report?.reason ?? "the API server does not know it") : "its machine is not running";
      return { name: node, containerd, running, ready: running && report?.ready === true, reason };
    }),
  );
  return { name, exists: true, owner: record.owner, units, nodes };
}

/** Runs a program inside a node, as root. */
export async function runOnNode(name: string, node: string, argv: string[], input?: string): Promise<RunResult> {
  const cluster = clusterLayout(parseClusterOptions({ name }).name);
  requireRoot();
  const record = await readRecord(cluster);
  const found = record?.nodes.find((one) => one.name === node);
  if (!found) {
    const known = record
      ? `its nodes are ${record.nodes.map((one) => one.name).join(", ")}`
      : "there is no such cluster";
    throw new Refusal("no-such-node", `The cluster ${name} has no node ${node}: ${known}.`);
  }
  return await runInNode(cluster, nodeLayout(cluster, found), argv, input);
}

/** kubectl as the administrator of the cluster. */
export async function runKubectl(name: string, args: string[], input?: string): Promise<RunResult> {
  return await kubectl(clusterLayout(name), await kubernetesPrograms(() => {}), args, input);
}

/** The cluster's record, if it exists. @throws Refusal if the cluster belongs to another installation */
export async function requireOwnCluster(name: string): Promise<ClusterRecord | undefined> {
  const cluster = clusterLayout(name);
  const record = await readRecord(cluster);
  if (record) requireOwner(cluster, record);
  return record;
}

function requireOwner(cluster: ClusterLayout, record: ClusterRecord): void {
  if (record.owner === packageRoot) return;
  const rest = existsSync(record.owner)
    ? `Destroy it there, or choose another (stack) name here.`
    : `That directory is gone. Remove the cluster with: ${forcedRemoval(cluster)}`;
  throw new Refusal(
    "cluster-owned",
    `The local cluster ${cluster.name} belongs to ${record.owner}, not to ${packageRoot}. ${rest}`,
  );
}

const whileLocked = <T>(name: string, what: string, progress: Progress, action: () => Promise<T>): Promise<T> =>
  withLock(
    `cluster ${name}`,
    `process ${process.pid} (${what} of the cluster ${name})`,
    (other) => progress(`Waiting for ${other}.`),
    action,
  );
