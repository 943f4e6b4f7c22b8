import type { NodeState } from "../../node-installer/kubernetes/status.ts";
import { ticketNames } from "../../runtime/names.ts";
import { listed, printable } from "../../runtime/printable.ts";
import { leftOn, remedy } from "./left.ts";
import type { Fleet, FleetNode } from "./observe.ts";

/** What the fleet should become. */
export interface Wanted {
  specHash: string;
  /** Having fewer nodes is a failure. */
  minimumNodes: number;
  /** Dead nodes that the configuration says not to wait for. */
  skipNodes: ReadonlySet<string>;
  /** Nodes that were NotReady when the rollout began: not waited for as long as they stay NotReady. */
  notReadyBefore: ReadonlySet<string>;
  /** By configuration, nodes that leave the group may keep what is installed on them. */
  nodesMayLeave: boolean;
  /** By node: the retry that was requested after an earlier failure. That failure says nothing about the retry. */
  retries: ReadonlyMap<string, string>;
}

export interface NodeProgress {
  name: string;
  state: NodeState | "starting" | "not-ready" | "ignored" | "skipped" | "left";
  /** A change of `code` is worth printing a line; a change of `reason` alone is not. */
  code: string;
  reason: string;
  pods: string[];
}

export interface Assessment {
  /** The group's nodes. */
  nodes: NodeProgress[];
  /** Nodes that left the group and still have something of it. */
  left: NodeProgress[];
  /** The rollout is over: nothing changes any more without human intervention. */
  over: boolean;
  /** It would be over if enough nodes matched. */
  tooFew: boolean;
  /** Why it did not succeed; empty if it did, or while it is not over. */
  failures: string[];
}

/** Pure: each node's progress, and whether there is anything left to wait for. */
export function assess(fleet: Fleet, wanted: Wanted): Assessment {
  const matched = fleet.nodes.filter(({ selected }) => selected);
  const holders = holdersOf(fleet);
  const nodes = matched.map((node) => atWork(progress(node, wanted, fleet.endedPods), holders));
  const left = fleet.nodes.flatMap((node) => leftNode(node, fleet, wanted));
  const failed = nodes.filter(({ state }) => state === "failed");
  // A failed node keeps its ticket. If failed nodes hold all tickets, the waiting nodes will wait forever.
  const stopped = failed.filter(({ name }) => holders.has(name)).length >= fleet.spec.atOnce;
  const isFinal = ({ state }: NodeProgress) =>
    ["ready", "failed", "blocked", "ignored", "skipped"].includes(state) || (state === "waiting" && stopped);
  const counted = nodes.filter(({ state }) => state !== "ignored" && state !== "skipped").length;
  const tooFew = counted < wanted.minimumNodes;
  const final = fleet.settled && fleet.specHash === wanted.specHash && nodes.every(isFinal);
  const over = final && !tooFew;
  const failures = over ? [...nodes, ...left].filter(({ state }) => !isGood(state)).map(sentenceIn(fleet)) : [];
  return { nodes, left, over, tooFew: final && tooFew, failures };
}

/** Nothing to do, or nothing to wait for. */
export const isGood = (state: NodeProgress["state"]): boolean => ["ready", "ignored", "skipped"].includes(state);

/** What to report if nothing changes any more although the rollout is not over. */
export function unfinished(fleet: Fleet, wanted: Wanted): string[] {
  const { nodes, left } = assess(fleet, wanted);
  const counted = nodes.filter(({ state }) => state !== "ignored" && state !== "skipped").length;
  const sentences = [...nodes, ...left].filter(({ state }) => !isGood(state)).map(sentenceIn(fleet));
  if (counted < wanted.minimumNodes) {
    sentences.unshift(tooFewOf(nodes, counted, fleet.group, wanted.minimumNodes));
  }
  if (fleet.specHash !== wanted.specHash) {
    const hashes = `${fleet.specHash.slice(0, 12)}, not ${wanted.specHash.slice(0, 12)}`;
    sentences.unshift(
      `The DaemonSet of group ${fleet.group} mounts the spec ${hashes}: an unfinished uninstallation emptied it, or ` +
        "somebody else changed it. An update with --refresh restores it.",
    );
  }
  if (!fleet.settled) sentences.push(`The DaemonSet controller has not created all pods of group ${fleet.group}.`);
  return sentences;
}

/** The selector is not to blame if nodes match but are not waited for. */
function tooFewOf(nodes: NodeProgress[], counted: number, group: string, minimum: number): string {
  if (counted === nodes.length) {
    const matched = counted === 1 ? "1 node matches" : `${counted} nodes match`;
    return `${matched} group ${group}, but at least ${minimum} must: check the group's node selector.`;
  }
  const dead = nodes.filter(({ state }) => state === "ignored" || state === "skipped").map(({ name }) => name);
  return (
    `${counted} of ${nodes.length} nodes of group ${group} can become ready, but at least ${minimum} must. NotReady since ` +
    `before this began, or named as nodes not to wait for: ${listed(dead)}.`
  );
}

/** Nodes with a ticket. Tickets left from a larger `atOnce` are no longer valid. */
function holdersOf({ group, spec, tickets }: Fleet): Set<string> {
  const valid = new Set(ticketNames(group, spec.atOnce));
  return new Set(tickets.filter(({ name }) => valid.has(name)).map(({ holder }) => holder));
}

/** A node that waits does not say for whom: thousands of them would say it again with every ticket. */
function sentenceIn(fleet: Fleet): (node: NodeProgress) => string {
  const holders = [...holdersOf(fleet)].sort();
  return ({ name, state, reason, pods }) => {
    const users = pods.length > 0 ? ` Pods: ${listed(pods)}.` : "";
    const before = state === "waiting" && holders.length > 0 ? ` Before it: ${listed(holders)}.` : "";
    return printable(`${name}: ${state}: ${reason}${before}${users}`, 4_000);
  };
}

/** For a node that left the group with something installed. Without an installer, nothing there is changed or repaired. */
function leftNode(node: FleetNode, fleet: Fleet, { skipNodes, nodesMayLeave }: Wanted): NodeProgress[] {
  const what = leftOn(node, fleet);
  if (what === undefined) return [];
  const { name } = node;
  const fact = `${what} is still installed, without an installer`;
  const reason = skipNodes.has(name)
    ? `${fact}; named in the configuration as a node not to wait for`
    : nodesMayLeave
      ? `${fact}, as configured`
      : `${fact}: ${remedy(fleet, name)}`;
  const state = nodesMayLeave || skipNodes.has(name) ? "skipped" : "left";
  return [{ name, state, code: state, reason, pods: [] }];
}

/** A node does not write that its wait is over: its ticket says so. */
const atWork = (node: NodeProgress, holders: ReadonlySet<string>): NodeProgress =>
  node.state === "waiting" && node.code === "take-ticket" && holders.has(node.name)
    ? { ...node, state: "working", code: "ticket", reason: "It has a ticket: containerd is changed and tried now." }
    : node;

function progress(node: FleetNode, wanted: Wanted, endedPods: ReadonlySet<string>): NodeProgress {
  const { name, status, pod } = node;
  const say = (state: NodeProgress["state"], reason: string, code: string = state): NodeProgress => ({
    name,
    state,
    code,
    reason,
    pods: [],
  });
  if (wanted.skipNodes.has(name)) return say("skipped", "named in the configuration as a node not to wait for");
  if (!node.ready) {
    return wanted.notReadyBefore.has(name)
      ? say("ignored", "was NotReady before and still is; the installer does its work when the node returns")
      : say("not-ready", "became NotReady since this began");
  }
  if (pod === undefined || !pod.current)
    return say("starting", "its pod is about to be replaced by a pod of the new revision");
  const retry = wanted.retries.get(name);
  const isCurrent =
    status?.specHash === wanted.specHash &&
    (retry === undefined || status.retry === retry || status.state !== "failed");
  if (status === undefined || !isCurrent) {
    const silence =
      status === undefined ? "the installer has not reported yet" : "the installer has not reported on this spec yet";
    return say("starting", pod.problem || silence, pod.problem.split(":", 1)[0] || "starting");
  }
  if ((status.state === "ready" || status.state === "blocked") && !pod.ready) {
    return say("working", pod.problem || "done; kubelet has not probed the pod yet", "probe");
  }
  const pods = status.pods.filter((user) => !endedPods.has(user));
  if (status.state === "blocked" && pods.length === 0) {
    return say(
      "working",
      "the pods of the runtime to remove have ended; the installer removes it when their sandboxes are gone",
      "ended",
    );
  }
  return { name, state: status.state, code: status.code, reason: status.reason, pods };
}
