import { isDeepStrictEqual } from "node:util";
import { aksCocoNodePoolCard, localClusterCard, type NodeInstallerCard } from "../../runtime/cards.ts";
import type { Preview } from "../preview/preview.ts";
import { type Step, typeOf } from "../preview/step.ts";
import { code, count } from "../text.ts";
import { type GroupChange, isHandedOver, joinedAndLeft, nodesOf, nodesStayInstalled } from "./groups.ts";
import { type Line, predicted, unknown } from "./line.ts";
import { isAnotherCluster } from "./providers.ts";

/** How often containerd restarts at most, by group. */
export function restartLines(changes: GroupChange[], preview: Preview): Line[] {
  const { steps } = preview;
  const isMoved = steps.some(isAnotherCluster);
  const bounds: (number | undefined)[] = [];
  const lines = changes.flatMap((change): Line[] => {
    const { group, before, after } = change;
    if (before && after === undefined && nodesStayInstalled(before)) return [];
    const times = restartsPerNode(change, isMoved);
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
    const nodes = numberOfNodes(card, preview);
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
      ...(hasOtherDistribution(change)
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
  if (!before || !after?.runtimes.length || isDeepStrictEqual(before.nodes, after.nodes)) return 0;
  const [old, now] = [nodesOf(before.nodes), nodesOf(after.nodes)];
  return now.names && joinedAndLeft(old.names ?? [], now.names).joined.length;
}

/** Of a pool whose group's own lines do not count them. */
function newPoolNodes(step: Step, changes: GroupChange[]): { name: string; nodes: number }[] {
  if (step.type !== "azure-native:containerservice:AgentPool" || !step.before || !step.after) return [];
  const pool = String(step.after.agentPoolName ?? step.name);
  const isCounted = changes.some(
    (change) =>
      poolOf(change.after?.nodes) === pool && (restartsPerNode(change, false) > 0 || joiningNodes(change) !== 0),
  );
  const [old, now] = [step.op === "replace" ? 0 : Number(step.before.count ?? 0), Number(step.after.count ?? 0)];
  return isCounted || now <= old ? [] : [{ name: code(pool), nodes: now - old }];
}

/** The AKS pool whose label a group selects. */
const poolOf = (nodes: NodeInstallerCard["nodes"] | undefined): string | undefined =>
  typeof nodes === "object" && !Array.isArray(nodes) ? nodes["kubernetes.azure.com/agentpool"] : undefined;

/**
 * A transaction restarts containerd once, however many handlers it changes. A handler that pods use goes later, in a
 * transaction of its own.
 */
function restartsPerNode(change: GroupChange, isMoved: boolean): number {
  const { before, after, added, removed } = change;
  if (!before || !after) return (after ?? before)?.runtimes.length === 0 ? 0 : 1;
  if (isHandedOver(change)) return 1;
  if (isMoved) return after.manifestsOnly || after.runtimes.length === 0 ? 0 : 1;
  if (added.length > 0 && removed.length > 0) return 2;
  // Of the same handlers containerd reads the same.
  return added.length > 0 || removed.length > 0 || hasOtherDistribution(change) ? 1 : 0;
}

const hasOtherDistribution = ({ specBefore, specAfter }: GroupChange): boolean =>
  specBefore !== undefined &&
  specAfter !== undefined &&
  !isDeepStrictEqual(specBefore.distribution, specAfter.distribution);

/** Of names, or of the pool whose label the group selects. */
function numberOfNodes({ nodes }: NodeInstallerCard, { steps, inputsByUrn }: Preview): number | undefined {
  const { names } = nodesOf(nodes);
  if (names) return names.length;
  if (nodes === "all") {
    const cluster = steps.find(({ type }) => type === localClusterCard.type)?.after;
    return localClusterCard.schema.safeParse(cluster).data?.nodes.length;
  }
  const pools = [...inputsByUrn].flatMap(([urn, inputs]) =>
    typeOf(urn) === aksCocoNodePoolCard.type ? (aksCocoNodePoolCard.schema.safeParse(inputs).data ?? []) : [],
  );
  return pools.find(({ pool }) => pool === poolOf(nodes))?.count;
}
