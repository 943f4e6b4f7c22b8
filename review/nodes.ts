import { isDeepStrictEqual } from "node:util";
import { z } from "zod";
import { skipNodesAnnotation } from "../runtime/names.ts";
import type { InstallSpec, RuntimeSpec } from "../runtime/spec.ts";
import { type Card, type GroupChange, nodesOf, runtimeOf } from "./groups.ts";
import { leafChanges } from "./leaves.ts";
import { claim, code, count, exchange, known, type Line, predicted, type Told, unknown } from "./lines.ts";
import type { Inputs, Preview, Step } from "./preview.ts";

export const hosts = z.object({
  hosts: z.array(z.object({ name: z.string(), address: z.string(), skipped: z.string().optional() })),
});
export const localNodes = z.object({ nodes: z.array(z.object({ name: z.string() })) });

/** Nodes, hosts and pools that come, go or are made anew. */
export function nodeLines(changes: GroupChange[], { steps }: Preview): Told[] {
  return [
    ...changes.flatMap(selectionLines),
    ...takeoverLines(changes),
    ...changes.flatMap(farewellLines),
    ...changes.flatMap(settingLines),
    ...steps.flatMap(daemonSetLines),
    ...steps.flatMap(hostLines),
    ...steps.flatMap((step) => poolLines(step).map((line) => claim(line, step, [`(${step.op})`, "count"]))),
  ];
}

function selectionLines({ group, before, after }: GroupChange): Line[] {
  if (before === undefined && after) return [known(`Group ${code(group)} is new: ${nodesOf(after.nodes).text}.`)];
  if (before && after === undefined) return [known(`Group ${code(group)} is removed: ${nodesOf(before.nodes).text}.`)];
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

function farewellLines({ group, before, after }: GroupChange): Line[] {
  if (!before || !after || after.manifestsOnly || before.onDestroy === after.onDestroy) return [];
  return [
    known(
      after.onDestroy === "leave"
        ? `From now on what is installed stays on nodes that leave ${code(group)}, and on all when ${code(group)} is removed.`
        : `From now on nodes are uninstalled when ${code(group)} goes, and those that leave it have to be.`,
    ),
  ];
}

/** What of an install spec says how installers work, and what of a runtime is not in its handler's name. */
function settingLines({ group, specBefore, specAfter }: GroupChange): Line[] {
  if (!specBefore || !specAfter) return [];
  const settings = ({ runtimes: _, ...rest }: InstallSpec) => rest;
  const lines = leafChanges(settings(specBefore), settings(specAfter)).map(({ path, before, after }) =>
    known(`Group ${code(group)}: ${code(path)} ${exchange(before, after)}.`),
  );
  // Payloads that only have another name are told elsewhere.
  const unnamed = ({ payload: _, ...rest }: RuntimeSpec) => rest;
  const runtimes = specAfter.runtimes.flatMap((now) => {
    const old = runtimeOf(specBefore, now.handler);
    if (old === undefined) return [];
    return leafChanges(unnamed(old), unnamed(now)).map(({ path, before, after }) =>
      known(`Group ${code(group)}, ${code(now.handler)}: ${code(path)} ${exchange(before, after)}.`),
    );
  });
  return [...lines, ...runtimes];
}

/** What is in no card: dead nodes, and taints that keep no installer off any more. */
function daemonSetLines(step: Step): Told[] {
  const { type, name, before, after } = step;
  if (type !== "kubernetes:apps/v1:DaemonSet" || !after) return [];
  const { joined, left } = difference(skippedNodes(before), skippedNodes(after));
  const waits = (nodes: string[], text: string) =>
    nodes.length === 0
      ? []
      : [
          claim(known(`${code(name)}: rollout and removal ${text} ${nodes.map(code).join(", ")}.`), step, [
            `metadata.annotations[${JSON.stringify(skipNodesAnnotation)}]`,
          ]),
        ];
  return [
    ...waits(joined, "do not wait for"),
    ...waits(left, "wait again for"),
    ...(before && difference(tolerationsOf(before), tolerationsOf(after)).joined.length > 0
      ? [
          unknown(
            `Whether nodes with the taints that ${code(name)} tolerates now join: containerd restarts once on each.`,
          ),
        ]
      : []),
  ];
}

const daemonSet = z.object({
  metadata: z.object({ annotations: z.record(z.string(), z.string()).optional() }),
  spec: z.object({ template: z.object({ spec: z.object({ tolerations: z.array(z.unknown()).optional() }) }) }),
});
const skippedNodes = (inputs: Inputs | undefined): string[] =>
  (daemonSet.safeParse(inputs).data?.metadata.annotations?.[skipNodesAnnotation] ?? "").split(",").filter(Boolean);
const tolerationsOf = (inputs: Inputs): string[] =>
  (daemonSet.safeParse(inputs).data?.spec.template.spec.tolerations ?? []).map((each) => JSON.stringify(each));

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

export const difference = (before: string[], after: string[]) => ({
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
      .map((host) => known(`Host ${code(host)} is no longer skipped: what was not run on it before is run now.`)),
    ...left.map((host) => known(`Host ${code(host)} (${code(addressOf(old, host))}) leaves ${code(name)}.`)),
    ...(left.length > 0
      ? [predicted("What was prepared on such a host is taken back by SSH; it stays a member of the cluster.")]
      : []),
    ...moved.map((host) =>
      known(`Host ${code(host.name)} is at ${code(host.address)} instead of ${code(addressOf(old, host.name))}.`),
    ),
  ];
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
    case "import":
      return [known(`Pool ${now.name} with ${many(now.nodes)} is imported: the stack manages it from then on.`)];
    default: {
      const others = paths.filter((path) => path !== "count").map(code);
      const inPlace =
        others.length > 0 || paths.length === 0
          ? [known(`Pool ${now.name} is changed in place${others.length > 0 ? `: ${others.join(", ")}` : ""}.`)]
          : [];
      if (old.nodes === now.nodes) return inPlace;
      if (old.nodes === undefined || now.nodes === undefined) {
        return [...inPlace, unknown(`How many nodes pool ${now.name} has from then on.`)];
      }
      const [more, number] = [now.nodes > old.nodes, Math.abs(now.nodes - old.nodes)];
      return [
        ...inPlace,
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
