import { type NodeInstallerCard, nodeInstallerCard } from "../../runtime/cards.ts";
import type { InstallSpec } from "../../runtime/spec.ts";
import type { Inputs } from "../preview/inputs.ts";
import type { Preview } from "../preview/preview.ts";
import type { Step } from "../preview/step.ts";
import { code, few } from "../text.ts";
import { readSpec } from "./read-spec.ts";

export type RuntimeCard = NodeInstallerCard["runtimes"][number];

/** What a preview plans for one node group. */
export interface GroupChange {
  group: string;
  /** URN of its NodeInstaller. */
  urn: string;
  before: NodeInstallerCard | undefined;
  after: NodeInstallerCard | undefined;
  /** The install spec, where it changes. */
  specBefore: InstallSpec | undefined;
  specAfter: InstallSpec | undefined;
  added: RuntimeCard[];
  removed: RuntimeCard[];
  /** Removed and added at once on one platform: a payload that is edited in place. */
  replaced: { before: RuntimeCard; after: RuntimeCard }[];
}

/** Every node group that the preview touches, by name. */
export function groupChanges({ steps, inputsByUrn }: Preview): GroupChange[] {
  const components = steps.filter(({ type }) => type === nodeInstallerCard.type);
  const byFormerName = new Map(
    components.flatMap(({ urn, before, after }) => {
      const former = readCard(before)?.group;
      return former === undefined || !after || former === readCard(after)?.group ? [] : [[former, urn]];
    }),
  );
  /** The old spec of a renamed group is recorded below the component's former name. */
  const installerOf = ({ parent, before }: Step) => byFormerName.get(readSpec(before)?.group ?? "") ?? parent;
  const maps = steps.filter(({ type }) => type === configMapType);
  // The spec alone may change: a card says less than it.
  const installers = new Set(
    [...components.map(({ urn }) => urn), ...maps.map(installerOf)].filter((urn) => urn !== undefined),
  );
  return [...installers].sort().flatMap((urn) => {
    const own = steps.find((step) => step.urn === urn);
    const unchanged = own ? undefined : readCard(inputsByUrn.get(urn));
    const before = own ? readCard(own.before) : unchanged;
    const after = own ? readCard(own.after) : unchanged;
    // A spec is named by its content: the new one is created and the old one deleted.
    const specs = maps.filter((map) => installerOf(map) === urn);
    const [specBefore] = specs.flatMap(({ before }) => readSpec(before) ?? []);
    const [specAfter] = specs.flatMap(({ after }) => readSpec(after) ?? []);
    const group = (after ?? before ?? specAfter ?? specBefore)?.group;
    if (group === undefined) return [];
    const runtimesBefore = before?.runtimes ?? specBefore?.runtimes ?? [];
    const runtimesAfter = after?.runtimes ?? specAfter?.runtimes ?? [];
    return [{ group, urn, before, after, specBefore, specAfter, ...compare(runtimesBefore, runtimesAfter) }];
  });
}

export const configMapType = "kubernetes:core/v1:ConfigMap";

function compare(before: RuntimeCard[], after: RuntimeCard[]): Pick<GroupChange, "added" | "removed" | "replaced"> {
  const missing = (from: RuntimeCard[], of: RuntimeCard[]) =>
    from.filter(({ handler }) => !of.some((other) => other.handler === handler));
  const removed = missing(before, after);
  const added = missing(after, before);
  const replaced = removed.flatMap((old) => {
    const alternatives = added.filter(({ platform }) => platform === old.platform);
    const others = removed.filter(({ platform }) => platform === old.platform);
    return alternatives.length === 1 && others.length === 1
      ? alternatives.map((now) => ({ before: old, after: now }))
      : [];
  });
  return { added, removed, replaced };
}

const readCard = (inputs: Inputs | undefined): NodeInstallerCard | undefined =>
  nodeInstallerCard.schema.safeParse(inputs).data;

/** Whether what is on its nodes stays there when a group leaves the stack. */
export const nodesStayInstalled = ({ onDestroy, manifestsOnly }: NodeInstallerCard): boolean =>
  onDestroy === "leave" || manifestsOnly;

/** Whether the update uninstalls although the group stays: the commands that wait for nodes go, and one of them does that. */
export const isHandedOver = ({ before, after }: GroupChange): boolean =>
  before !== undefined && after?.manifestsOnly === true && !nodesStayInstalled(before) && before.runtimes.length > 0;

/** Every new install spec of a preview: what a fleet plan is made of. */
export const plannedSpecs = ({ steps }: Preview): InstallSpec[] =>
  steps.flatMap(({ type, after }: Step) => (type === configMapType ? (readSpec(after) ?? []) : []));

/** The nodes that a group has from then on, where the stack names them. */
export const plannedNodes = (preview: Preview): Map<string, string[]> =>
  new Map(
    groupChanges(preview).flatMap(({ group, after }) => {
      const names = after && nodesOf(after.nodes).names;
      return names ? [[group, names] as const] : [];
    }),
  );

/** "nodes with `a=b`" and how many they are, where names say it. */
export function nodesOf(nodes: NodeInstallerCard["nodes"]): { text: string; names: string[] | undefined } {
  if (nodes === "all") return { text: "every node of the cluster", names: undefined };
  if (Array.isArray(nodes)) return { text: `nodes ${few(nodes, 20)}`, names: nodes };
  const labels = Object.entries(nodes).map(([key, value]) => code(`${key}=${value}`));
  return { text: `nodes with ${labels.join(" and ")}`, names: undefined };
}

export const joinedAndLeft = (before: string[], after: string[]) => ({
  joined: after.filter((name) => !before.includes(name)),
  left: before.filter((name) => !after.includes(name)),
});
