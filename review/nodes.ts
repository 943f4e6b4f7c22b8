import { isDeepStrictEqual } from "node:util";
import { z } from "zod";
import { canonicalJson } from "../node-installer/runtime/canonical.ts";
import type { InstallSpec } from "../node-installer/runtime/spec.ts";
import { type Card, type GroupChange, leavesNodes, nodesOf } from "./groups.ts";
import { code, count, few, known, type Line, list, predicted, unknown } from "./lines.ts";
import type { Inputs, Preview, Step } from "./preview.ts";

const pool = z.object({ pool: z.string(), vmSize: z.string().optional(), count: z.number() });
const hosts = z.object({
  hosts: z.array(z.object({ name: z.string(), address: z.string(), skipped: z.string().optional() })),
});
const localNodes = z.object({ nodes: z.array(z.object({ name: z.string() })) });

/** Nodes, hosts and pools that come, go or are made anew. */
export function nodeLines(changes: GroupChange[], { steps }: Preview): Line[] {
  return [
    ...changes.flatMap(selectionLines),
    ...takeoverLines(changes),
    ...steps.flatMap(hostLines),
    ...commandLines(steps),
    ...steps.flatMap(poolLines),
  ];
}

function selectionLines({ group, before, after }: GroupChange): Line[] {
  if (before === undefined && after) return [known(`Group ${code(group)} is new: ${nodesOf(after.nodes).text}.`)];
  if (before && after === undefined) return [known(`Group ${code(group)} goes: ${nodesOf(before.nodes).text}.`)];
  if (!before || !after || isDeepStrictEqual(before.nodes, after.nodes)) return [];
  const [old, now] = [nodesOf(before.nodes), nodesOf(after.nodes)];
  const leaving = predicted(
    `Nodes that leave ${code(group)} keep what is installed on them, without an installer that looks after it. ` +
      (after.manifestsOnly
        ? `No update names them; ${code("contrast-runtime status")} does.`
        : after.onDestroy === "leave"
          ? "The update names them."
          : "The update fails with their names until they are back, or uninstalled by " +
            `${code(`contrast-runtime uninstall --group ${group} --nodes …`)}.`),
  );
  if (!old.names || !now.names) {
    return [
      known(`Group ${code(group)} has ${now.text} instead of ${old.text}.`),
      unknown(`Which nodes join ${code(group)} and which leave it: labels are on the nodes, not in the stack.`),
      leaving,
    ];
  }
  const { joined, left } = difference(old.names, now.names);
  return [
    ...joined.map((node) => known(`Node ${code(node)} joins group ${code(group)}.`)),
    ...left.map((node) => known(`Node ${code(node)} leaves group ${code(group)}.`)),
    ...(left.length > 0 ? [leaving] : []),
  ];
}

/** Nodes that go from one group to another at once, as when a group is renamed. */
function takeoverLines(changes: GroupChange[]): Line[] {
  return changes.flatMap(({ group, before, after }) => {
    if (!after || isDeepStrictEqual(before?.nodes, after.nodes)) return [];
    const losers = changes.filter(
      (other) => other.group !== group && other.before?.runtimes.length && mayShare(after.nodes, other.before.nodes),
    );
    const failure = after.manifestsOnly ? "" : ", and the update, which makes the new before it removes the old, fails";
    return losers.map((other) =>
      predicted(
        `Installers of ${code(group)} refuse nodes that ${code(other.group)} still has${failure}. Take them from ` +
          `${code(other.group)} in one change, and give them to ${code(group)} in the next.`,
      ),
    );
  });
}

function mayShare(one: Card["nodes"], other: Card["nodes"]): boolean {
  if (Array.isArray(one) && Array.isArray(other)) return one.some((name) => other.includes(name));
  return one === "all" || other === "all" || isDeepStrictEqual(one, other);
}

const difference = (before: string[], after: string[]) => ({
  joined: after.filter((name) => !before.includes(name)),
  left: before.filter((name) => !after.includes(name)),
});

function hostLines({ type, name, before, after }: Step): Line[] {
  if (type === "contrast-runtime:index:LocalCluster") {
    const names = (inputs: Inputs | undefined) =>
      (localNodes.safeParse(inputs).data?.nodes ?? []).map((node) => node.name);
    const { joined, left } = difference(names(before), names(after));
    return [
      ...joined.map((node) => known(`Node ${code(node)} of the local cluster is made.`)),
      ...left.map((node) => known(`Node ${code(node)} of the local cluster is removed with all that is on it.`)),
    ];
  }
  if (type !== "contrast-runtime:index:BareMetalNodes") return [];
  const read = (inputs: Inputs | undefined) => hosts.safeParse(inputs).data?.hosts ?? [];
  const [old, now] = [read(before), read(after)];
  const { joined, left } = difference(
    old.map((host) => host.name),
    now.map((host) => host.name),
  );
  const addressOf = (of: typeof old, host: string) => of.find((entry) => entry.name === host)?.address;
  const skippedIn = (of: typeof old) => of.filter(({ skipped }) => skipped !== undefined).map((host) => host.name);
  const skipped = difference(skippedIn(old), skippedIn(now));
  const moved = now.filter((host) => ![undefined, host.address].includes(addressOf(old, host.name)));
  return [
    ...joined
      .filter((host) => !skippedIn(now).includes(host))
      .map((host) => known(`Host ${code(host)} (${code(addressOf(now, host))}) is made ready by SSH.`)),
    ...skipped.joined.map((host) =>
      known(`Host ${code(host)} is skipped, for ${code("ignoreNodes")} names it: nothing is run on it by SSH.`),
    ),
    ...skipped.left
      .filter((host) => !left.includes(host))
      .map((host) => known(`Host ${code(host)} is skipped no more: what was not run on it by SSH is run now.`)),
    ...left.map((host) => known(`Host ${code(host)} (${code(addressOf(old, host))}) leaves ${code(name)}.`)),
    ...(left.length > 0
      ? [predicted("What was prepared on such a host is taken back by SSH; it stays a member of the cluster.")]
      : []),
    ...moved.map((host) =>
      known(`Host ${code(host.name)} is at ${code(host.address)} instead of ${code(addressOf(old, host.name))}.`),
    ),
  ];
}

/** What is run on hosts that were there before: another user, key, script or join command runs the commands it concerns. */
function commandLines(steps: Step[]): Line[] {
  const concerns = new Map<string, string[]>();
  for (const { type, op, name } of steps) {
    const [, host, concern] = /^(.+)-(prepare|check|registry|join)$/.exec(name) ?? [];
    if (type !== "command:remote:Command" || op !== "update" || !host || !concern) continue;
    concerns.set(host, [...(concerns.get(host) ?? []), concern]);
  }
  const hosts = new Map<string, string[]>();
  for (const [host, names] of concerns) {
    const commands = list(names.sort().map(code));
    hosts.set(commands, [...(hosts.get(commands) ?? []), host]);
  }
  return [...hosts].map(([commands, names]) =>
    known(
      `On ${count(names.length, "host")} that ${names.length === 1 ? "is" : "are"} there already, SSH runs ${commands}: ${few(names)}.`,
    ),
  );
}

/** The table of what Azure does to the nodes of a pool, by the operation on it. */
function poolLines(step: Step): Line[] {
  if (step.type !== "azure-native:containerservice:AgentPool") return [];
  const { op, paths } = step;
  const sizeOf = (inputs: Inputs | undefined) => {
    const { agentPoolName, count } = (inputs ?? {}) as { agentPoolName?: string; count?: number };
    return { name: code(agentPoolName ?? step.name), nodes: typeof count === "number" ? count : undefined };
  };
  const [old, now] = [sizeOf(step.before), sizeOf(step.after)];
  const many = (nodes: number | undefined) =>
    nodes === undefined ? "an unknown number of nodes" : count(nodes, "node");
  switch (op) {
    case "create":
      return [
        known(`Pool ${now.name} is created with ${many(now.nodes)}.`),
        predicted("Azure may refuse it: Microsoft retired the service in March 2026."),
      ];
    case "delete":
      return [known(`Pool ${old.name} is deleted with ${many(old.nodes)}.`)];
    case "replace":
      return [
        known(`Pool ${now.name} is replaced because of ${paths.map(code).join(", ")}.`),
        predicted(
          `It is re-imaged: ${many(old.nodes)} and all pods on them go first, then ${many(now.nodes)} come empty. ` +
            "Azure may refuse to make them: Microsoft retired the service in March 2026.",
        ),
      ];
    default: {
      if (old.nodes === now.nodes || old.nodes === undefined || now.nodes === undefined) {
        return [known(`Pool ${now.name} is changed in place: ${paths.map(code).join(", ")}.`)];
      }
      const [more, number] = [now.nodes > old.nodes, Math.abs(now.nodes - old.nodes)];
      return [
        known(`Pool ${now.name} has ${many(now.nodes)} instead of ${old.nodes}.`),
        predicted(
          more
            ? `${count(number, "new node")}: Azure may refuse, since Microsoft retired the service in March 2026.`
            : `Azure chooses which ${count(number, "node")} to remove, with the pods on it.`,
        ),
      ];
    }
  }
}

/** How often containerd restarts at most, by group. */
export function restartLines(changes: GroupChange[], { steps, known: resources }: Preview): Line[] {
  const bounds: (number | undefined)[] = [];
  const lines = changes.flatMap((change): Line[] => {
    const { group, before, after, added, removed } = change;
    if (before && after === undefined && leavesNodes(before)) return [];
    const times = restartsPerNode(change);
    const card = after ?? before;
    if (card === undefined) return [unknown(`How often containerd restarts in group ${code(group)}.`)];
    if (times === 0) {
      const joining = joiningNodes(change);
      if (joining !== 0) {
        bounds.push(joining);
        return onNewNodes(`Group ${code(group)}`, joining, "that joins");
      }
      const image = before && after && before.image !== after.image;
      return image
        ? [predicted(`Group ${code(group)}: installers restart with the new image; containerd does not.`)]
        : change.specBefore || change.specAfter
          ? [predicted(`Group ${code(group)}: nothing that containerd reads changes; it does not restart.`)]
          : [];
    }
    const nodes = numberOfNodes(card, [...resources.values()], steps);
    bounds.push(nodes === undefined ? undefined : nodes * times);
    const where = nodesOf(card.nodes).text;
    const often =
      times === 2 ? "twice (with the new runtime, and again when the last pod of the old one is gone)" : "once";
    const bound = nodes === undefined ? "" : `; at most ${count(nodes * times, "restart")} on ${count(nodes, "node")}`;
    return [
      predicted(
        `Group ${code(group)}: containerd restarts at most ${often} on each node, ${card.atOnce} at a time${bound}. Pods keep running.`,
      ),
      ...(nodes === undefined ? [unknown(`How many nodes group ${code(group)} has: ${where}.`)] : []),
      ...(added.length + removed.length === 0
        ? [unknown(`Whether each node of ${code(group)} accepts the other distribution.`)]
        : []),
    ];
  });
  for (const { name, nodes } of steps.flatMap((step) => newPoolNodes(step, changes))) {
    bounds.push(nodes);
    lines.push(...onNewNodes(`Pool ${name}`, nodes, "that Azure makes"));
  }
  if (bounds.length < 2) return lines;
  const total = bounds.every((bound) => bound !== undefined)
    ? bounds.reduce((sum, bound) => sum + bound, 0)
    : undefined;
  return total === undefined ? lines : [...lines, predicted(`In all groups: at most ${count(total, "restart")}.`)];
}

function onNewNodes(where: string, nodes: number | undefined, which: string): Line[] {
  const bound = nodes === undefined ? "" : `; at most ${count(nodes, "restart")} on ${count(nodes, "node")}`;
  return [
    predicted(`${where}: containerd restarts once on each node ${which}, when the runtime is installed there${bound}.`),
    ...(nodes === undefined ? [unknown(`${where}: how many nodes join.`)] : []),
  ];
}

/** How many nodes come into a group that stays as it is; undefined where names do not say it. */
function joiningNodes({ before, after }: GroupChange): number | undefined {
  if (!before || !after || isDeepStrictEqual(before.nodes, after.nodes)) return 0;
  const [old, now] = [nodesOf(before.nodes), nodesOf(after.nodes)];
  return now.names && difference(old.names ?? [], now.names).joined.length;
}

/** Of a pool whose group's own lines do not count them. */
function newPoolNodes(step: Step, changes: GroupChange[]): { name: string; nodes: number }[] {
  if (step.type !== "azure-native:containerservice:AgentPool" || !step.before || !step.after) return [];
  const pool = String(step.after.agentPoolName ?? step.name);
  const isCounted = changes.some(
    (change) => poolOf(change.after?.nodes) === pool && (restartsPerNode(change) > 0 || joiningNodes(change) !== 0),
  );
  const [old, now] = [step.op === "replace" ? 0 : Number(step.before.count ?? 0), Number(step.after.count ?? 0)];
  return isCounted || now <= old ? [] : [{ name: code(pool), nodes: now - old }];
}

/** The AKS pool whose label a group selects. */
const poolOf = (nodes: Card["nodes"] | undefined): string | undefined =>
  typeof nodes === "object" && !Array.isArray(nodes) ? nodes["kubernetes.azure.com/agentpool"] : undefined;

/**
 * A transaction restarts containerd once, however many handlers it changes. A handler that pods use goes later, in a
 * transaction of its own.
 */
function restartsPerNode({ before, after, added, removed, specBefore, specAfter }: GroupChange): number {
  if (before === undefined || after === undefined) return 1;
  if (added.length > 0 && removed.length > 0) return 2;
  if (added.length > 0 || removed.length > 0) return 1;
  const part = (spec: InstallSpec | undefined) => canonicalJson(spec && [spec.distribution, spec.runtimes]);
  return part(specBefore) === part(specAfter) ? 0 : 1;
}

/** Of names, or of the pool whose label the group selects. */
function numberOfNodes({ nodes }: Card, resources: Inputs[], steps: Step[]): number | undefined {
  const { names } = nodesOf(nodes);
  if (names) return names.length;
  if (nodes === "all") {
    const cluster = steps.find(({ type }) => type === "contrast-runtime:index:LocalCluster")?.after;
    return localNodes.safeParse(cluster).data?.nodes.length;
  }
  const cards = resources.flatMap((inputs) => pool.safeParse(inputs).data ?? []);
  return cards.find((card) => card.pool === poolOf(nodes))?.count;
}
