import { watchLoop } from "../../node-installer/install/watch-loop.ts";
import { isReady } from "../../node-installer/kubernetes/status.ts";
import type { InstallSpec, RuntimeSpec } from "../../runtime/spec.ts";
import { MemoryCluster } from "../fakes/memory-cluster.ts";
import { MemoryNode } from "../fakes/memory-node.ts";
import type { NodeShape } from "../fakes/node-shapes.ts";

/** From what to what a node is changed. */
export interface Change {
  name: string;
  /** Digits of the runtimes that the node has, and of those that it shall have. */
  from: readonly string[];
  to: readonly string[];
  /** Digits of those with which containerd's CRI breaks. */
  broken?: readonly string[];
}

export const changes = [
  { name: "first installation of two handlers", from: [], to: ["00000001", "00000002"] },
  { name: "one handler takes another's place", from: ["00000001"], to: ["00000002"] },
  {
    name: "a handler that breaks the CRI",
    from: ["00000001"],
    to: ["00000001", "0000000b"],
    broken: ["0000000b"],
  },
  { name: "uninstallation", from: ["00000001"], to: [] },
] as const satisfies readonly Change[];

/** A node right before a change, with its cluster. */
export interface Prepared {
  change: Change;
  node: MemoryNode;
  cluster: MemoryCluster;
  spec: InstallSpec;
}

/** Half an hour of the node's time. */
const longestMs = 1_800_000;

/** Runs an installer on the node until it is ready, or waits for somebody: at most for so many looks. */
export async function install(
  { node, cluster, spec }: Pick<Prepared, "node" | "cluster" | "spec">,
  mostLooks = 8,
): Promise<"ready" | "failed" | "dead"> {
  const { host } = node;
  const stop = new AbortController();
  const seen = cluster.connect(host, () => undefined);
  const environment = { ...node.environment(spec, seen), signal: stop.signal };
  let looks = 0;
  const began = host.time;
  const delay = host.delay.bind(host);
  // Without an API server there is no ticket, and the installer waits as long as it takes.
  host.delay = (ms) => {
    if (host.time > began + longestMs) stop.abort();
    return delay(ms);
  };
  let codes: string[] = [];
  const isOver = (): boolean => {
    const status = seen.reporter.current();
    if (!host.alive || looks >= mostLooks) return true;
    if (status === undefined) return false;
    codes = codes.slice(0, looks - 1);
    codes[looks - 1] = `${status.state} ${status.code}`;
    return isReady(status) || (codes.length > 2 && new Set(codes.slice(-3)).size === 1);
  };
  await watchLoop({
    host,
    log: environment.log,
    cluster: seen,
    signal: stop.signal,
    readSpec: async () => ({ spec, specHash: environment.specHash }),
    environment: () => {
      looks += 1;
      return environment;
    },
    async sleep(ms) {
      host.time += ms;
      // Lets what is published in the background come to its end.
      for (let turn = 0; turn < 3; turn += 1) await new Promise((resolve) => setImmediate(resolve));
      if (isOver()) stop.abort();
    },
  });
  host.delay = delay;
  const status = seen.reporter.current();
  seen.reporter.close();
  if (!host.alive) return "dead";
  return status !== undefined && isReady(status) ? "ready" : "failed";
}

/** The node as it is before the change. The caller closes it. */
export async function prepare(shape: NodeShape, change: Change): Promise<Prepared> {
  const node = new MemoryNode(shape);
  const cluster = new MemoryCluster(node.spec([]).group, () => node.host.now());
  const runtimes = (digits: readonly string[]): RuntimeSpec[] => digits.map((one) => node.runtime(one));
  const before = node.spec(runtimes(change.from));
  if ((await install({ node, cluster, spec: before })) !== "ready") throw new Error(`${shape.name}: not prepared`);
  for (const digits of change.broken ?? []) node.breaks.add(node.runtime(digits).handler);
  const spec = node.spec(runtimes(change.to));
  node.host.settle();
  return { change, node, cluster, spec };
}

/** The same again, for one trial. */
export function copyOf({ node, cluster, ...rest }: Prepared): Prepared {
  const twin = node.copy();
  return { ...rest, node: twin, cluster: cluster.copy(() => twin.host.now()) };
}
