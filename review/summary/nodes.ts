import { isDeepStrictEqual } from "node:util";
import * as z from "zod";
import type { NodeInstallerCard } from "../../runtime/cards.ts";
import { skipNodesAnnotation } from "../../runtime/names.ts";
import type { InstallSpec, RuntimeSpec } from "../../runtime/spec.ts";
import { treeDifferences } from "../preview/differences.ts";
import type { Inputs } from "../preview/inputs.ts";
import type { Preview } from "../preview/preview.ts";
import type { Step } from "../preview/step.ts";
import { code, exchange } from "../text.ts";
import { type GroupChange, joinedAndLeft, nodesOf } from "./groups.ts";
import { hostLines } from "./hosts.ts";
import { claim, known, type Line, predicted, type Told, unknown } from "./line.ts";
import { poolLines } from "./pools.ts";
import { runtimeOf } from "./read-spec.ts";

/** Nodes, hosts and pools that come, go or are made anew. */
export function nodeLines(changes: GroupChange[], { steps, manifests }: Preview): Told[] {
  return [
    ...changes.flatMap(renameLines),
    ...changes.flatMap(selectionLines),
    ...contestedNodeLines(changes),
    ...changes.flatMap(onDestroyLines),
    ...changes.flatMap(settingLines),
    ...steps.flatMap((step) => daemonSetLines(step, manifests === undefined)),
    ...steps.flatMap(hostLines),
    ...steps.flatMap((step) => poolLines(step).map((line) => claim(line, step, [`(${step.op})`, "count"]))),
  ];
}

function renameLines({ before, after }: GroupChange): Line[] {
  if (!before || !after || before.group === after.group) return [];
  return [
    known(`Group ${code(before.group)} is renamed to ${code(after.group)}.`),
    predicted(
      `Installers of ${code(after.group)} take over its nodes as they are: the name alone changes nothing else on them.`,
    ),
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
  const { joined, left } = joinedAndLeft(old.names, now.names);
  return [
    ...joined.map((node) => known(`Node ${code(node)} joins group ${code(group)}.`)),
    ...left.map((node) => known(`Node ${code(node)} leaves group ${code(group)}.`)),
    ...(left.length > 0 ? [leaving] : []),
  ];
}

function onDestroyLines({ group, before, after }: GroupChange): Line[] {
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
  // That a group is renamed is told by its card; advisories are told with the handlers that they are of.
  const settings = ({ runtimes: _, group: _name, formerly: _former, advisories: _of, ...rest }: InstallSpec) => rest;
  const lines = treeDifferences(settings(specBefore), settings(specAfter)).map(({ path, before, after }) =>
    known(`Group ${code(group)}: ${code(path)} ${exchange(before, after)}.`),
  );
  // Payloads that only have another name are told elsewhere.
  const unnamed = ({ advisories }: InstallSpec, { payload: _, ...rest }: RuntimeSpec) => ({
    ...rest,
    ...(advisories?.[rest.handler] && { advisories: advisories[rest.handler] }),
  });
  const runtimes = specAfter.runtimes.flatMap((now) => {
    const old = runtimeOf(specBefore, now.handler);
    if (old === undefined) return [];
    return treeDifferences(unnamed(specBefore, old), unnamed(specAfter, now)).map(({ path, before, after }) =>
      known(`Group ${code(group)}, ${code(now.handler)}: ${code(path)} ${exchange(before, after)}.`),
    );
  });
  return [...lines, ...runtimes];
}

/** What is in no card: dead nodes, and taints that keep no installer off any more. */
function daemonSetLines(step: Step, isUpdated: boolean): Told[] {
  const { type, name, before, after } = step;
  if (type !== "kubernetes:apps/v1:DaemonSet" || !after) return [];
  const { joined, left } = joinedAndLeft(skippedNodes(before), skippedNodes(after));
  const waiting = isUpdated ? "rollout and removal" : `the commands ${code("rollout")} and ${code("uninstall")}`;
  const waits = (nodes: string[], text: string) =>
    nodes.length === 0
      ? []
      : [
          claim(known(`${code(name)}: ${waiting} ${text} ${nodes.map(code).join(", ")}.`), step, [
            `metadata.annotations[${JSON.stringify(skipNodesAnnotation)}]`,
          ]),
        ];
  return [
    ...waits(joined, "do not wait for"),
    ...waits(left, "wait again for"),
    ...(before && joinedAndLeft(tolerationsOf(before), tolerationsOf(after)).joined.length > 0
      ? [
          unknown(
            `Whether nodes with the taints that ${code(name)} tolerates now join: containerd restarts once on each.`,
          ),
        ]
      : []),
  ];
}

const daemonSetSchema = z.object({
  metadata: z.object({ annotations: z.record(z.string(), z.string()).optional() }),
  spec: z.object({ template: z.object({ spec: z.object({ tolerations: z.array(z.unknown()).optional() }) }) }),
});

const skippedNodes = (inputs: Inputs | undefined): string[] =>
  (daemonSetSchema.safeParse(inputs).data?.metadata.annotations?.[skipNodesAnnotation] ?? "")
    .split(",")
    .filter(Boolean);

const tolerationsOf = (inputs: Inputs): string[] =>
  (daemonSetSchema.safeParse(inputs).data?.spec.template.spec.tolerations ?? []).map((each) => JSON.stringify(each));

/** Nodes that go from one group to another at once, as when a group is renamed. */
function contestedNodeLines(changes: GroupChange[]): Line[] {
  return changes.flatMap(({ group, before, after }) => {
    if (!after || isDeepStrictEqual(before?.nodes, after.nodes)) return [];
    const losers = changes.filter(
      (other) => other.group !== group && other.before?.runtimes.length && mayShare(after.nodes, other.before.nodes),
    );
    const failure = after.manifestsOnly ? "" : ", and the update, which makes the new before it removes the old, fails";
    return losers.map((other) =>
      predicted(
        `Installers of ${code(group)} refuse nodes that ${code(other.group)} still has${failure}. If ${code(group)} is its new ` +
          `name, say so: ${code(`formerly: ${other.group}`)}. Otherwise take the nodes from ${code(other.group)} in one change, ` +
          `and give them to ${code(group)} in the next.`,
      ),
    );
  });
}

function mayShare(one: NodeInstallerCard["nodes"], other: NodeInstallerCard["nodes"]): boolean {
  if (Array.isArray(one) && Array.isArray(other)) return one.some((name) => other.includes(name));
  return one === "all" || other === "all" || isDeepStrictEqual(one, other);
}
