import { ticketNames } from "../../node-installer/kubernetes/names.ts";
import type { NodeState } from "../../node-installer/kubernetes/status.ts";
import { leftOn, remedy } from "./left.ts";
import type { Fleet, FleetNode } from "./observe.ts";

/** What the fleet shall become. */
export interface Wanted {
  specHash: string;
  /** Fewer nodes than these is a failure. */
  minimumNodes: number;
  /** Dead nodes that nobody waits for, by configuration. */
  skipNodes: ReadonlySet<string>;
  /** Nodes that were NotReady when the rollout began: not waited for as long as they stay so. */
  notReadyBefore: ReadonlySet<string>;
  /** Nodes that leave the group may keep what is on them, by configuration. */
  nodesMayLeave: boolean;
  /** By node: the attempt that was asked for after an earlier failure. An older failure says nothing of it. */
  retries: ReadonlyMap<string, string>;
}

export interface NodeProgress {
  name: string;
  state: NodeState | "starting" | "not-ready" | "ignored" | "skipped" | "left";
  /** Changes of `code` are worth a line to a person; changes of `reason` alone are not. */
  code: string;
  reason: string;
  pods: string[];
}

export interface Assessment {
  /** Of the group. */
  nodes: NodeProgress[];
  /** Nodes that are the group's no more, and still have something of it. */
  left: NodeProgress[];
  /** Nothing can change any more without a person: the rollout is over. */
  over: boolean;
  /** It would be over if enough nodes matched. */
  tooFew: boolean;
  /** Why it did not succeed; empty when it did, or while it is not over. */
  failures: string[];
}

/** Pure: what is to be said of each node, and whether there is anything left to wait for. */
export function assess(fleet: Fleet, wanted: Wanted): Assessment {
  const matched = fleet.nodes.filter(({ selected }) => selected);
  const nodes = matched.map((node) => progress(node, wanted, fleet.endedPods));
  const left = fleet.nodes.flatMap((node) => farewell(node, fleet, wanted));
  const failed = nodes.filter(({ state }) => state === "failed");
  // A failed node keeps its ticket. When failed nodes have them all, those who wait for one will wait for ever.
  // One of a time when more could work at once is no ticket any more.
  const valid = new Set(ticketNames(fleet.group, fleet.spec.atOnce));
  const holders = new Set(fleet.tickets.filter(({ name }) => valid.has(name)).map(({ holder }) => holder));
  const stopped = failed.filter(({ name }) => holders.has(name)).length >= fleet.spec.atOnce;
  const isFinal = ({ state }: NodeProgress) =>
    ["ready", "failed", "blocked", "ignored", "skipped"].includes(state) || (state === "waiting" && stopped);
  const counted = nodes.filter(({ state }) => state !== "ignored" && state !== "skipped").length;
  const tooFew = counted < wanted.minimumNodes;
  const final = fleet.settled && fleet.specHash === wanted.specHash && nodes.every(isFinal);
  const over = final && !tooFew;
  const failures = over ? [...nodes, ...left].filter(({ state }) => !isGood(state)).map(sentence) : [];
  return { nodes, left, over, tooFew: final && tooFew, failures };
}

const isGood = (state: NodeProgress["state"]): boolean => ["ready", "ignored", "skipped"].includes(state);

/** What there is to say when nothing moves any more although the rollout is not over. */
export function unfinished(fleet: Fleet, wanted: Wanted): string[] {
  const { nodes, left } = assess(fleet, wanted);
  const counted = nodes.filter(({ state }) => state !== "ignored" && state !== "skipped").length;
  const sentences = [...nodes, ...left].filter(({ state }) => !isGood(state)).map(sentence);
  if (counted < wanted.minimumNodes) {
    sentences.unshift(tooFewOf(nodes, counted, fleet.group, wanted.minimumNodes));
  }
  if (fleet.specHash !== wanted.specHash) {
    const hashes = `${fleet.specHash.slice(0, 12)}, not ${wanted.specHash.slice(0, 12)}`;
    sentences.unshift(
      `The DaemonSet of group ${fleet.group} mounts the spec ${hashes}: an uninstallation that did not end emptied it, or ` +
        "somebody else changed it. An update with --refresh sets it back.",
    );
  }
  if (!fleet.settled) sentences.push(`The DaemonSet controller has not made all pods of group ${fleet.group}.`);
  return sentences;
}

/** Of nodes that match and are not waited for, no selector is to blame. */
function tooFewOf(nodes: NodeProgress[], counted: number, group: string, minimum: number): string {
  if (counted === nodes.length) {
    const matched = counted === 1 ? "1 node matches" : `${counted} nodes match`;
    return `${matched} group ${group}, at least ${minimum} shall: look at the group's node selector.`;
  }
  const dead = nodes.filter(({ state }) => state === "ignored" || state === "skipped").map(({ name }) => name);
  const names = dead.length > 10 ? `${dead.slice(0, 10).join(", ")}, …` : dead.join(", ");
  return (
    `${counted} of ${nodes.length} nodes of group ${group} can become ready, at least ${minimum} shall: NotReady since before ` +
    `this began, or named as nodes not to wait for, are ${names}.`
  );
}

export function sentence({ name, state, reason, pods }: NodeProgress): string {
  const users = pods.length > 0 ? ` Pods: ${pods.join(", ")}.` : "";
  return `${name}: ${state}: ${reason}${users}`;
}

/** Of a node that left the group with something on it. Nothing there waits, restarts or repairs by itself any more. */
function farewell(node: FleetNode, fleet: Fleet, { skipNodes, nodesMayLeave }: Wanted): NodeProgress[] {
  const what = leftOn(node, fleet);
  if (what === undefined) return [];
  const { name } = node;
  const fact = `${what} is still installed, without an installer`;
  const reason = skipNodes.has(name)
    ? `${fact}; named in the configuration as a node not to wait for`
    : nodesMayLeave
      ? `${fact}, as the configuration wants it`
      : `${fact}: ${remedy(fleet, name)}`;
  const state = nodesMayLeave || skipNodes.has(name) ? "skipped" : "left";
  return [{ name, state, code: state, reason, pods: [] }];
}

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
      ? say("ignored", "was NotReady before and still is; the installer does its work when it returns")
      : say("not-ready", "became NotReady since this began");
  }
  if (pod === undefined || !pod.current)
    return say("starting", "its pod is about to be replaced by one of the new revision");
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
      "the pods of what it removes have ended; it removes it when their sandboxes are gone",
      "ended",
    );
  }
  return { name, state: status.state, code: status.code, reason: status.reason, pods };
}
