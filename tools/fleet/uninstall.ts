import { setTimeout as delay } from "node:timers/promises";
import type { KubeConfig } from "@kubernetes/client-node";
import { ownKey, retryAnnotation, specHash, specKey, statusAnnotation } from "../../runtime/names.ts";
import { Refusal } from "../../runtime/refusal.ts";
import { exitCodes } from "../process/exit-codes.ts";
import type { NodeProgress } from "./assess.ts";
import { describeError, isNotFound, loadKubeConfig, within } from "./client.ts";
import { removeDeadPods } from "./dead-pods.ts";
import { type FollowOptions, followFleet, type Outcome, outcomeJson } from "./follow.ts";
import { freeTickets } from "./free-tickets.ts";
import { leftOn, remedy } from "./left.ts";
import { type Fleet, type FleetNode, observeFleet } from "./observe.ts";
import { mergePatch, patchNodeAnnotations } from "./patch.ts";
import { askForRetries } from "./retry.ts";
import { startUninstallers } from "./uninstallers.ts";
import { type HandlerUser, handlerUsers } from "./users.ts";

export interface UninstallOptions {
  group: string;
  namespace: string;
  /** Nodes that left the group, to be uninstalled instead of it; none if `leave` or `skipNodes` is given. */
  nodes: string[];
  skipNodes: string[];
  leave?: true | undefined;
  /** Seconds. */
  stallTimeout: number;
  /** The outcome as JSON; what happens meanwhile is told on standard error. */
  json?: true | undefined;
}

interface Uninstallation {
  kubeconfig: KubeConfig;
  stallMs: number;
  /** As first observed. */
  fleet: Fleet;
  observe: () => Promise<Fleet>;
  print: (line: string) => void;
}

interface Uninstalled extends Outcome {
  /** What is left to say where nothing failed. */
  summary?: string;
}

/** The delete command of a stack's `uninstall` resource; returns the exit code. */
export async function uninstall(options: UninstallOptions): Promise<number> {
  const { summary, ...outcome } = await uninstalled(options, options.json ? console.error : console.log);
  if (options.json) {
    console.log(outcomeJson(options.group, outcome));
    return outcome.exitCode;
  }
  for (const failure of outcome.failures) console.error(failure);
  if (summary !== undefined) console.log(summary);
  return outcome.exitCode;
}

const done = (summary?: string, nodes: NodeProgress[] = []): Uninstalled => ({
  exitCode: exitCodes.done,
  failures: [],
  nodes,
  ...(summary !== undefined && { summary }),
});

async function uninstalled(options: UninstallOptions, print: (line: string) => void): Promise<Uninstalled> {
  const { group, namespace, nodes, skipNodes, leave = false, stallTimeout } = options;
  const kubeconfig = await loadKubeConfig(process.env);
  const observe = () => within(30_000, "the cluster", observeFleet(kubeconfig, namespace, group));
  const fleet = await observe().catch((error: unknown) => {
    if (error instanceof Refusal && error.code === "no-installer") return undefined;
    if (error instanceof Refusal) throw error;
    const unreachable = `The API server cannot be queried: ${describeError(error)}`;
    if (!leave) throw new Refusal("unreachable", `${unreachable}. Nothing was changed.`);
    // Leaving the nodes as they are works without an API server, too.
    print(unreachable);
    return undefined;
  });
  if (fleet === undefined) {
    if (nodes.length > 0) throw new Refusal("no-installer", `Group ${group} has no installer to copy for these nodes.`);
    return done(leave ? undefined : `Group ${group} has no installers: nothing to uninstall.`);
  }
  const run: Uninstallation = { kubeconfig, stallMs: 1000 * stallTimeout, fleet, observe, print };
  if (leave) return leaveNodes(run);
  if (nodes.length > 0) return uninstallNodes(run, new Set(nodes));
  return uninstallGroup(run, new Set([...skipNodes, ...fleet.skipNodes]));
}

async function leaveNodes({ kubeconfig, fleet, observe }: Uninstallation): Promise<Uninstalled> {
  await removeDeadPods(kubeconfig, fleet.namespace, fleet, observe);
  return done(`Group ${fleet.group}: what is on its nodes stays there.`);
}

async function uninstallGroup(run: Uninstallation, skipNodes: ReadonlySet<string>): Promise<Uninstalled> {
  const { kubeconfig, fleet, observe } = run;
  const { namespace, group } = fleet;
  const nodes = fleet.nodes.map(({ name }) => name).filter((name) => !skipNodes.has(name));
  const users = await handlerUsers(kubeconfig, new Set(nodes));
  const reasons = objections(fleet, skipNodes, users);
  if (reasons.length > 0) return refused(`Group ${group}`, reasons);
  const { json, hash } = emptied(fleet);
  const retries = await askForRetries(kubeconfig, fleet, hash);
  await emptySpec(kubeconfig, namespace, fleet, json);
  const outcome = await follow(run, {
    observe: async () => {
      const now = await observe();
      await freeTickets(kubeconfig, namespace, now, skipNodes);
      return now;
    },
    wanted: {
      specHash: hash,
      minimumNodes: 0,
      skipNodes,
      notReadyBefore: new Set(fleet.nodes.filter(neverInstalled).map(({ name }) => name)),
      nodesMayLeave: false,
      retries,
    },
  });
  if (outcome.exitCode !== exitCodes.done) return outcome;
  const last = await observe();
  await removeAnnotations(kubeconfig, last);
  await removeTickets(kubeconfig, last);
  await removeDeadPods(kubeconfig, namespace, last, observe);
  const ready = outcome.nodes.filter(({ state }) => state === "ready").length;
  return done(`Group ${group}: ${ready} of ${outcome.nodes.length} nodes uninstalled.`, outcome.nodes);
}

/** For nodes that left the group and so have no installer any more. */
async function uninstallNodes(run: Uninstallation, names: ReadonlySet<string>): Promise<Uninstalled> {
  const { kubeconfig, fleet } = run;
  const users = await handlerUsers(kubeconfig, names);
  const nodes = [...names].toSorted();
  const reasons = nodeObjections(fleet, names, users);
  if (reasons.length > 0) return refused(nodes.join(", "), reasons);
  const left = { ...fleet, nodes: fleet.nodes.filter(({ name }) => names.has(name)) };
  const spec = emptied(fleet);
  const retries = await askForRetries(kubeconfig, left, spec.hash);
  const uninstallers = await startUninstallers(kubeconfig, fleet, names, spec);
  try {
    const outcome = await follow(run, {
      observe: uninstallers.observe,
      wanted: {
        specHash: spec.hash,
        minimumNodes: names.size,
        skipNodes: new Set(),
        notReadyBefore: new Set(),
        nodesMayLeave: false,
        retries,
      },
    });
    if (outcome.exitCode !== exitCodes.done) return outcome;
    await removeAnnotations(kubeconfig, left);
    return done(`${nodes.join(", ")}: uninstalled.`, outcome.nodes);
  } finally {
    await uninstallers.remove();
  }
}

const follow = (
  { stallMs, print }: Uninstallation,
  options: Pick<FollowOptions, "observe" | "wanted">,
): Promise<Outcome> => followFleet({ ...options, stallMs, print, clock: () => performance.now(), delay });

function emptied({ specJson }: Fleet): { json: string; hash: string } {
  const json = `${JSON.stringify({ ...JSON.parse(specJson), runtimes: [] })}\n`;
  return { json, hash: specHash(json) };
}

const refused = (what: string, reasons: string[]): Uninstalled => ({
  exitCode: exitCodes.failed,
  failures: [`${what} is not uninstalled; nothing was changed.`, ...reasons],
  nodes: [],
});

/** A node that has been NotReady ever since it joined the group. */
const neverInstalled = ({ ready, pod, status }: FleetNode): boolean =>
  !ready && pod === undefined && status === undefined;

/** Pure: the reasons not to begin. */
export function objections(fleet: Fleet, skipNodes: ReadonlySet<string>, users: HandlerUser[]): string[] {
  const waitedFor = fleet.nodes.filter(({ name }) => !skipNodes.has(name));
  const skip = "bring it back, or name it as a node to skip";
  return [
    ...inUse(users),
    ...waitedFor
      .filter((node) => !node.ready && !neverInstalled(node))
      .map(({ name }) => `Node ${name} is NotReady, so nothing can be uninstalled there: ${skip}.`),
    ...waitedFor.flatMap((node) => {
      const left = node.ready ? leftOn(node, fleet) : undefined;
      return left === undefined
        ? []
        : [`Node ${node.name} left the group and still has ${left}: ${remedy(fleet, node.name)}`];
    }),
  ];
}

/** Pure: the reasons not to begin with these nodes, which left the group. */
export function nodeObjections(fleet: Fleet, names: ReadonlySet<string>, users: HandlerUser[]): string[] {
  const known = new Map(fleet.nodes.map((node) => [node.name, node]));
  return [
    ...inUse(users),
    ...[...names].toSorted().flatMap((name) => {
      const node = known.get(name);
      if (node === undefined) return [`Node ${name} has nothing of group ${fleet.group} installed, or does not exist.`];
      if (!node.ready) return [`Node ${name} is NotReady, so nothing can be uninstalled there: bring it back first.`];
      return node.selected
        ? [
            `Node ${name} is in group ${fleet.group}, which would install the runtimes again: take the node out of the group first.`,
          ]
        : [];
    }),
  ];
}

const inUse = (users: HandlerUser[]): string[] =>
  users.map(({ pod, node, handler }) => `Pod ${pod} on ${node} still uses ${handler}: delete it first.`);

/**
 * Changes the ConfigMap in place: the DaemonSet's pods re-read the file, while a new ConfigMap would restart them all.
 * kubelet refreshes a mounted ConfigMap when it syncs the pod, up to a minute later; a changed annotation triggers that now.
 */
async function emptySpec(kubeconfig: KubeConfig, namespace: string, fleet: Fleet, spec: string): Promise<void> {
  await mergePatch(kubeconfig, {
    apiVersion: "v1",
    kind: "ConfigMap",
    metadata: { namespace, name: fleet.configMap },
    data: { [specKey]: spec },
  });
  const annotations = { [ownKey("spec-changed")]: specHash(spec) };
  await Promise.all(
    fleet.nodes.flatMap(({ pod }) =>
      pod === undefined
        ? []
        : [
            mergePatch(kubeconfig, {
              apiVersion: "v1",
              kind: "Pod",
              metadata: { namespace, name: pod.name, annotations },
            }),
          ],
    ),
  );
}

/** Annotations that installers wrote on nodes; no stack manages them. */
async function removeAnnotations(kubeconfig: KubeConfig, { group, nodes }: Fleet): Promise<void> {
  const annotations = { [statusAnnotation(group)]: null, [retryAnnotation(group)]: null };
  for (const { name } of nodes) await patchNodeAnnotations(kubeconfig, name, annotations);
}

async function removeTickets(kubeconfig: KubeConfig, { namespace, tickets }: Fleet): Promise<void> {
  const { CoordinationV1Api } = await import("@kubernetes/client-node");
  const leases = kubeconfig.makeApiClient(CoordinationV1Api);
  for (const { name } of tickets) {
    await leases.deleteNamespacedLease({ namespace, name }).catch((error: unknown) => {
      if (!isNotFound(error)) throw error;
    });
  }
}
