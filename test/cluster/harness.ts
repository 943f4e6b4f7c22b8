import { createHash } from "node:crypto";
import { afterAll, beforeAll } from "vitest";
import type { ClusterInput } from "../../components/config/local-cluster.ts";
import { packageRoot } from "../../tools/files/project.ts";
import {
  type ClusterInfo,
  destroyCluster,
  ensureCluster,
  runKubectl,
  runOnNode,
} from "../../tools/local-cluster/cluster.ts";
import { enterNetwork } from "../../tools/local-cluster/layout.ts";
import { toStderr } from "../../tools/process/progress.ts";
import { check, type RunResult } from "../../tools/process/run.ts";

export { until } from "../until.ts";

/** A cluster name for this checkout and this purpose: never a stack's, and never another checkout's. */
export const clusterNameFor = (purpose: string): string =>
  `test-${createHash("sha256").update(packageRoot).digest("hex").slice(0, 6)}-${purpose}`;

export interface TestCluster extends ClusterInfo {
  name: string;
  /** Makes the cluster match these nodes, or repairs it. */
  ensure(nodes?: ClusterInput["nodes"]): Promise<void>;
  /** Standard output of a kubectl that must succeed. */
  kubectl(...args: string[]): Promise<string>;
  /** The result of kubectl, even if it fails. */
  tryKubectl(args: string[], input?: string): Promise<RunResult>;
  /** The JSON of `kubectl get … -o json`. */
  get<T>(...args: string[]): Promise<T>;
  /** Server-side apply. */
  apply(...manifests: object[]): Promise<void>;
  /** Standard output of a program that must succeed on the node. */
  onNode(node: string, ...argv: string[]): Promise<string>;
  tryOnNode(node: string, argv: string[], input?: string): Promise<RunResult>;
  /** Standard output of a program of this machine that must succeed in the cluster's network. */
  inNetwork(...argv: string[]): Promise<string>;
  destroy(): Promise<void>;
}

/** A cluster for one test. Whoever starts it must destroy it; what a killed run left is removed first. */
export async function startCluster(purpose: string, nodes?: ClusterInput["nodes"]): Promise<TestCluster> {
  const name = clusterNameFor(purpose);
  await destroyCluster(name, toStderr, { force: true });
  const ensure = (wanted: ClusterInput["nodes"]) => ensureCluster({ name, ...(wanted && { nodes: wanted }) }, toStderr);
  const tryKubectl = (args: string[], input?: string) => runKubectl(name, args, input);
  const tryOnNode = (node: string, argv: string[], input?: string) => runOnNode(name, node, argv, input);
  const kubectl = async (...args: string[]) => succeeded(`kubectl ${args.join(" ")}`, await tryKubectl(args));
  const cluster: TestCluster = {
    name,
    ...(await ensure(nodes)),
    ensure: async (wanted = nodes) => void Object.assign(cluster, await ensure(wanted)),
    kubectl,
    tryKubectl,
    get: async (...args) => JSON.parse(await kubectl("get", ...args, "-o", "json")),
    async apply(...manifests) {
      const list = JSON.stringify({ apiVersion: "v1", kind: "List", items: manifests });
      succeeded("kubectl apply", await tryKubectl(["apply", "--server-side", "--force-conflicts", "-f", "-"], list));
    },
    onNode: async (node, ...argv) => succeeded(`${argv.join(" ")} on ${node}`, await tryOnNode(node, argv)),
    tryOnNode,
    async inNetwork(...argv) {
      const [command = "", ...args] = [...enterNetwork(name), ...argv];
      return await check(command, args);
    },
    destroy: () => destroyCluster(name, toStderr),
  };
  return cluster;
}

/** For a whole test file: started before its tests, destroyed after them, unless KEEP_CLUSTER asks for a look at it. */
export function useCluster(purpose: string, nodes?: ClusterInput["nodes"]): () => TestCluster {
  let cluster: TestCluster | undefined;
  beforeAll(async () => {
    cluster = await startCluster(purpose, nodes);
  });
  afterAll(async () => {
    const name = clusterNameFor(purpose);
    if (process.env.KEEP_CLUSTER === undefined) await destroyCluster(name, toStderr, { force: true });
    else toStderr(`Kept the cluster ${name}: CONTRIBUTING.md says how to look at it and how to remove it.`);
  });
  return () => {
    if (!cluster) throw new Error("the cluster only exists in tests and hooks");
    return cluster;
  };
}

function succeeded(what: string, { code, stdout, stderr }: RunResult): string {
  if (code === 0) return stdout;
  throw new Error(`${what} failed (exit ${code}):\n${stderr}${stdout}`);
}

/** A pod of one busybox container that does nothing until it is told to end. */
export const busyboxPod = (
  cluster: TestCluster,
  name: string,
  spec: object = {},
  command = "trap exit TERM; sleep inf & wait",
) => ({
  apiVersion: "v1",
  kind: "Pod",
  metadata: { name, namespace: "default" },
  spec: {
    terminationGracePeriodSeconds: 1,
    containers: [{ name: "main", image: cluster.images.busybox, command: ["sh", "-c", command] }],
    ...spec,
  },
});

/** Starts such a pod, and waits until it is ready. */
export async function runPod(cluster: TestCluster, name: string, spec: object): Promise<void> {
  await cluster.apply(busyboxPod(cluster, name, spec));
  await cluster.kubectl("wait", "--for=condition=Ready", `pod/${name}`, "--timeout=120s");
}

/** The containers that a pod runs in: another one, or a restarted one, is not equal. */
export async function containersOf(cluster: TestCluster, pod: string): Promise<object[]> {
  type Status = { containerID: string; restartCount: number; state: object };
  return (await cluster.get<{ status: { containerStatuses: Status[] } }>("pod", pod)).status.containerStatuses;
}
