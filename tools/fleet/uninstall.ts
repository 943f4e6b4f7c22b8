import { setTimeout as delay } from "node:timers/promises";
import { specHash } from "../../runtime/names.ts";
import { listed } from "../../runtime/printable.ts";
import { Refusal } from "../../runtime/refusal.ts";
import { exitCodes } from "../process/exit-codes.ts";
import { describeError, type FleetApi } from "./api.ts";
import type { NodeProgress } from "./assess.ts";
import { connect } from "./client.ts";
import { firstOf } from "./console.ts";
import { removeDeadPods } from "./dead-pods.ts";
import { type FollowOptions, followFleet, type Outcome, outcomeJson } from "./follow.ts";
import { freeTickets } from "./free-tickets.ts";
import { leftOn, remedy } from "./left.ts";
import { emptiedSpecKey, type Fleet, type FleetNode, observeFleet } from "./observe.ts";
import { askForRetries } from "./retry.ts";
import { removeAnnotations, removeTickets } from "./traces.ts";
import { startUninstallers } from "./uninstallers.ts";
import { type HandlerUser, handlerUsers } from "./users.ts";
import { checkWrites, markUninstalled, writeSpec } from "./write-spec.ts";

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
  api: FleetApi;
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
  for (const failure of firstOf(outcome.failures, options.group)) console.error(failure);
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
  const api = await connect(process.env);
  const observe = () => observeFleet(api, namespace, group);
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
  const run: Uninstallation = { api, stallMs: 1000 * stallTimeout, fleet, observe, print };
  if (leave) return leaveNodes(run);
  if (nodes.length > 0) return uninstallNodes(run, new Set(nodes));
  return uninstallGroup(run, new Set([...skipNodes, ...fleet.skipNodes]));
}

async function leaveNodes({ api, fleet, observe }: Uninstallation): Promise<Uninstalled> {
  await removeDeadPods(api, fleet.namespace, fleet, observe);
  return done(`Group ${fleet.group}: what is on its nodes stays there.`);
}

/**
 * Can be run again, wherever it was interrupted: what was done is found done. Nodes report nothing twice, and their reports
 * are removed in the end; so where all had uninstalled, only those are looked at that still have one.
 */
async function uninstallGroup(run: Uninstallation, skipNodes: ReadonlySet<string>): Promise<Uninstalled> {
  const { api, fleet } = run;
  const { namespace, group } = fleet;
  const observe = async () => remaining(await run.observe());
  const begun = remaining(fleet);
  const own = begun.nodes.filter(({ name, otherGroup }) => otherGroup === undefined && !skipNodes.has(name));
  const users = await handlerUsers(api, new Set(own.map(({ name }) => name)));
  const reasons = objections(begun, skipNodes, users);
  if (reasons.length > 0) return refused(`Group ${group}`, reasons);
  const { json, hash } = emptied(fleet);
  const kept = fleet.spec.runtimes.length > 0 ? { [emptiedSpecKey]: fleet.specJson } : {};
  const forbidden = await checkWrites(api, fleet, json, kept);
  if (forbidden !== undefined) return refused(`Group ${group}`, [`The API server would refuse it: ${forbidden}`]);
  const retries = await askForRetries(api, begun, hash);
  await writeSpec(api, begun, json, kept);
  const outcome = await follow(run, {
    observe: async () => {
      const now = await observe();
      await freeTickets(api, namespace, now, skipNodes);
      return now;
    },
    wanted: {
      specHash: hash,
      minimumNodes: 0,
      skipNodes,
      notReadyBefore: new Set(begun.nodes.filter(hasNothing).map(({ name }) => name)),
      nodesMayLeave: false,
      retries,
    },
  });
  if (outcome.exitCode !== exitCodes.done) return outcome;
  await markUninstalled(api, fleet, hash);
  const last = await run.observe();
  await removeAnnotations(api, group, last.nodes);
  await removeTickets(api, namespace, group);
  await removeDeadPods(api, namespace, last, run.observe);
  const ready = outcome.nodes.filter(({ state }) => state === "ready").length;
  const before = fleet.uninstalled ? "; the others were before" : "";
  return done(`Group ${group}: ${ready} of ${outcome.nodes.length} nodes uninstalled${before}.`, outcome.nodes);
}

/** Of a fleet that had uninstalled, the nodes of which that is still to be seen. */
const remaining = (fleet: Fleet): Fleet =>
  fleet.uninstalled ? { ...fleet, nodes: fleet.nodes.filter(({ status }) => status !== undefined) } : fleet;

/** For nodes that left the group and so have no installer any more. */
async function uninstallNodes(run: Uninstallation, names: ReadonlySet<string>): Promise<Uninstalled> {
  const { api, fleet } = run;
  const users = await handlerUsers(api, names);
  const nodes = [...names].toSorted();
  const reasons = nodeObjections(fleet, names, users);
  if (reasons.length > 0) return refused(listed(nodes), reasons);
  const left = { ...fleet, nodes: fleet.nodes.filter(({ name }) => names.has(name)) };
  const spec = emptied(fleet);
  const retries = await askForRetries(api, left, spec.hash);
  const uninstallers = await startUninstallers(api, fleet, names, spec);
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
    // While a node has its report it can be named again, if this is interrupted.
    await uninstallers.remove();
    await removeAnnotations(api, left.group, left.nodes);
    return done(`${listed(nodes)}: uninstalled.`, outcome.nodes);
  } finally {
    await uninstallers.remove();
  }
}

const follow = (
  { stallMs, print }: Uninstallation,
  options: Pick<FollowOptions, "observe" | "wanted">,
): Promise<Outcome> => followFleet({ ...options, stallMs, print, clock: () => performance.now(), delay });

/** Without a former name: nodes are not taken over to be uninstalled. */
function emptied({ specJson }: Fleet): { json: string; hash: string } {
  const { formerly: _, ...spec } = JSON.parse(specJson);
  const json = `${JSON.stringify({ ...spec, runtimes: [] })}\n`;
  return { json, hash: specHash(json) };
}

const refused = (what: string, reasons: string[]): Uninstalled => ({
  exitCode: exitCodes.failed,
  failures: [`${what} is not uninstalled; nothing was changed.`, ...reasons],
  nodes: [],
});

/** A node that is NotReady, and has been ever since it joined the group, or is another group's. */
const hasNothing = ({ ready, pod, status, otherGroup }: FleetNode): boolean =>
  !ready && (otherGroup !== undefined || (pod === undefined && status === undefined));

/** Pure: the reasons not to begin. */
export function objections(fleet: Fleet, skipNodes: ReadonlySet<string>, users: HandlerUser[]): string[] {
  const waitedFor = fleet.nodes.filter(({ name }) => !skipNodes.has(name));
  const skip = "bring it back, or name it as a node to skip";
  return [
    ...inUse(users),
    ...waitedFor
      .filter((node) => !node.ready && !hasNothing(node))
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
