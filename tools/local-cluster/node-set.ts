import { rm } from "node:fs/promises";
import { join } from "node:path";
import { Refusal } from "../../runtime/refusal.ts";
import { type Progress, seconds, whileWaiting } from "../process/progress.ts";
import { ownGroup } from "./cgroups.ts";
import { kubectl, type NodeReport, nodeReports } from "./kubectl.ts";
import type { ClusterLayout, NodeLayout } from "./layout.ts";
import { isWhole, nodeUnit, powerOff, prepareNode, removeMachineRemains } from "./node-machine.ts";
import type { NodeRecord } from "./record.ts";
import { isCurrent, isRunning, startUnit, stopUnit, waitFor } from "./units.ts";

export type ClusterNode = NodeLayout & { record: NodeRecord };

export interface NodeContext {
  cluster: ClusterLayout;
  /** Directory of the Kubernetes programs. */
  kubernetes: string;
  tree: string;
  /** Trees by containerd version. */
  containerd: Record<string, string>;
  pauseImage: string;
  restrictOomScores: boolean;
  /** The labels that the previous run gave the nodes. */
  formerLabels: Record<string, Record<string, string>>;
  /** Starts what has ended of the control plane; returns whether there was anything to do. */
  repairControlPlane: () => Promise<boolean>;
}

/** A boot takes seconds, longer on a loaded machine; a failure shows the log. */
const bootTimeoutMs = 180_000;
/** How long a running node may be not Ready before it is restarted. */
const patienceMs = 45_000;

interface Boot {
  begin: number;
  /** When the kubelet last reported before this boot; reports up to then do not count. */
  before: number;
}

/** Starts nodes that are not running properly and waits until all are Ready; returns whether there was anything to do. */
export async function ensureNodes(context: NodeContext, nodes: ClusterNode[], progress: Progress): Promise<boolean> {
  const boots = new Map<string, Boot>();
  for (const node of nodes) if (!(await isUp(context, node))) boots.set(node.name, await boot(context, node, progress));
  const changed = await Promise.all(nodes.map((node) => ensureReady(context, node, boots.get(node.name), progress)));
  await ensureLabels(context, nodes);
  return changed.includes(true);
}

const unitOf = async (context: NodeContext, node: ClusterNode) =>
  nodeUnit(
    node,
    {
      tree: context.tree,
      containerd: containerdFor(context, node),
      kubernetes: context.kubernetes,
    },
    await ownGroup(join(context.cluster.cgroup, node.unit)),
  );

function containerdFor({ containerd }: NodeContext, { name, record }: ClusterNode): string {
  const tree = containerd[record.containerd];
  if (tree === undefined) throw new Error(`containerd ${record.containerd} of node ${name} was not built`);
  return tree;
}

const isUp = async (context: NodeContext, node: ClusterNode): Promise<boolean> =>
  (await isCurrent(context.cluster, await unitOf(context, node))) && (await isWhole(context.cluster, node));

async function boot(context: NodeContext, node: ClusterNode, progress: Progress): Promise<Boot> {
  progress(`${node.name} (containerd ${node.record.containerd}): booting …`);
  await stopUnit(context.cluster, node.unit);
  await removeMachineRemains(node);
  const before = (await report(context, node))?.reported ?? 0;
  const begin = Date.now();
  await prepareNode({ ...context, node, containerd: node.record.containerd });
  await startUnit(context.cluster, await unitOf(context, node));
  return { begin, before };
}

const report = async (context: NodeContext, node: NodeLayout): Promise<NodeReport | undefined> =>
  (await nodeReports(context.cluster, context.kubernetes))?.find(({ name }) => name === node.name);

/** Restarts a node once if it ran before and does not become Ready in time. Returns false if it was Ready at first. */
async function ensureReady(
  context: NodeContext,
  node: ClusterNode,
  justBooted: Boot | undefined,
  progress: Progress,
): Promise<boolean> {
  if (!justBooted) {
    if ((await report(context, node))?.ready) return false;
    progress(`${node.name} is running but not Ready; waiting for it …`);
    try {
      await untilReady(context, node, 0, patienceMs);
      return true;
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      progress(`${node.name} did not become Ready; restarting it.`);
    }
  }
  const { begin, before } = justBooted ?? (await boot(context, node, progress));
  await whileWaiting(
    15,
    () => progress(`  ${node.name}: not Ready yet, ${seconds(begin)}`),
    () => untilReady(context, node, before, bootTimeoutMs),
  );
  progress(`  ${node.name} is Ready (${seconds(begin)}).`);
  return true;
}

/**
 * Whatever ends of the control plane meanwhile is started again, and the time that this took is not the node's.
 *
 * @param before the kubelet must have reported after this, in milliseconds
 */
async function untilReady(context: NodeContext, node: ClusterNode, before: number, timeoutMs: number): Promise<void> {
  for (;;) {
    let last: NodeReport | undefined;
    let repaired = false;
    try {
      await waitFor(context.cluster, node.unit, `${node.name} did not become Ready`, timeoutMs, async () => {
        if (await context.repairControlPlane()) repaired = true;
        last = await report(context, node);
        return (last?.ready && last.reported > before) || undefined;
      });
      return;
    } catch (error) {
      if (!(error instanceof Refusal) || error.code !== "cluster-start") throw error;
      if (repaired && (await isRunning(context.cluster, node.unit))) continue;
      if (last === undefined || last.ready) throw error;
      throw new Refusal(error.code, `${error.message}\nIts kubelet says: ${last.reason}`);
    }
  }
}

/** Sets the labels of the options and removes those that the options had before; labels set by others stay. */
async function ensureLabels(context: NodeContext, nodes: ClusterNode[]): Promise<void> {
  if (nodes.every(({ name, record }) => !Object.keys({ ...record.labels, ...context.formerLabels[name] }).length))
    return;
  const reports = (await nodeReports(context.cluster, context.kubernetes)) ?? [];
  for (const { name, record } of nodes) {
    const now = reports.find((report) => report.name === name)?.labels ?? {};
    const gone = Object.keys(context.formerLabels[name] ?? {}).filter((key) => !(key in record.labels) && key in now);
    const missing = Object.entries(record.labels).filter(([key, value]) => now[key] !== value);
    const changes = [...gone.map((key) => `${key}-`), ...missing.map(([key, value]) => `${key}=${value}`)];
    if (changes.length === 0) continue;
    const { code, stderr } = await kubectl(context.cluster, context.kubernetes, [
      "label",
      "--overwrite",
      "node",
      name,
      ...changes,
    ]);
    if (code !== 0) throw new Refusal("node-labels", `The labels of ${name} could not be set: ${stderr.trim()}`);
  }
}

/** Powers the node off and forgets it. */
export async function removeNode(context: NodeContext, node: NodeLayout, progress: Progress): Promise<void> {
  progress(`${node.name}: removing …`);
  await powerOff(context.cluster, node);
  await stopUnit(context.cluster, node.unit);
  await removeMachineRemains(node);
  const { code, stderr } = await kubectl(context.cluster, context.kubernetes, [
    "delete",
    "node",
    node.name,
    "--ignore-not-found",
  ]);
  if (code !== 0) throw new Refusal("node-removal", `The node ${node.name} could not be deleted: ${stderr.trim()}`);
  await rm(node.directory, { recursive: true, force: true });
}
