import { posix } from "node:path";
import { bundleHost, freeSpaceAnswer, longestBundle, parseBundle } from "../../node-installer/host/bundle.ts";
import type { Host } from "../../node-installer/host/host.ts";
import { notRoots } from "../../node-installer/host/owners.ts";
import { containerdOn } from "../../node-installer/install/daemon.ts";
import { planFor, replayingDaemon } from "../../node-installer/install/dry-run.ts";
import { hostFindings } from "../../node-installer/install/host-findings.ts";
import { type PayloadPlan, runtimesDirectory } from "../../node-installer/install/payload.ts";
import { isEmpty, refusePending } from "../../node-installer/install/plan.ts";
import { requireRoomForPayloads } from "../../node-installer/install/space.ts";
import { sha256 } from "../../runtime/canonical.ts";
import { Refusal } from "../../runtime/refusal.ts";
import type { InstallSpec } from "../../runtime/spec.ts";
import { list } from "../text.ts";

/** What an install spec would do to one node. */
export interface NodePlan {
  /** refused: nothing is changed there, and the rollout fails. unknown: the node's bundle makes no plan. */
  outcome: "refused" | "unknown" | "restart" | "change" | "unchanged";
  /** Kebab-case and the same for all nodes that have the same reason. */
  code: string;
  /** A sentence about this node. */
  reason: string;
}

/** What the owners of some nodes must know before something that they may do later. */
export interface Notice {
  sentence: string;
  nodes: string[];
}

/** Nodes with the same outcome for the same reason. */
export interface Outcome extends NodePlan {
  nodes: string[];
}

export interface FleetPlan {
  group: string;
  nodes: number;
  /** refused first, unchanged last. */
  outcomes: Outcome[];
  notices: Notice[];
  /** Nodes of the group that no bundle is of. */
  missing: string[];
}

/** A bundle as it lies on the disk. */
export interface BundleText {
  /** Ends in `NODE.json`. */
  file: string;
  text: string;
}

export const order: NodePlan["outcome"][] = ["refused", "unknown", "restart", "change", "unchanged"];

/** A plan for one kind of node, with what has to be copied there. */
interface KindPlan extends NodePlan {
  payloads: PayloadPlan[];
  notices?: string[];
}

/**
 * The installer's own plan for every node of a group, from their bundles; nodes that are the same in everything that a
 * plan looks at are planned once. One that cannot be read, as those of another version of the installer, stops no plan.
 *
 * @param names the group's nodes, where they are known: bundles of others, such as of nodes that leave it, do not count
 */
export async function planFleet(
  spec: InstallSpec,
  bundles: Iterable<BundleText>,
  names?: string[],
): Promise<FleetPlan> {
  const wanted = names && new Set(names);
  const missing = new Set(names);
  const kinds = new Map<string, KindPlan>([[unreadable.code, unreadable]]);
  const outcomes = new Map<string, Outcome>();
  const notices = new Map<string, Notice>();
  let nodes = 0;
  for (const bundle of bundles) {
    const node = posix.basename(bundle.file, ".json");
    if (wanted && !wanted.has(node)) continue;
    missing.delete(node);
    const { kind, free } = kindOf(bundle.text, node);
    let made = kinds.get(kind);
    if (made === undefined) {
      made = await planNode(spec, bundle.text);
      kinds.set(kind, made);
    }
    const { outcome, code, reason } = (await withoutSpace(made.payloads, free)) ?? made;
    const key = `${outcome} ${code}`;
    const known = outcomes.get(key);
    if (known) known.nodes.push(node);
    else outcomes.set(key, { outcome, code, reason, nodes: [node] });
    for (const sentence of made.notices ?? []) {
      const notice = notices.get(sentence);
      if (notice) notice.nodes.push(node);
      else notices.set(sentence, { sentence, nodes: [node] });
    }
    nodes += 1;
  }
  const sorted = [...outcomes.values()].sort(
    (a, b) => order.indexOf(a.outcome) - order.indexOf(b.outcome) || b.nodes.length - a.nodes.length,
  );
  const noticed = [...notices.values()].sort((a, b) => (a.sentence < b.sentence ? -1 : 1));
  for (const one of [...sorted, ...noticed]) one.nodes.sort();
  return { group: spec.group, nodes, outcomes: sorted, notices: noticed, missing: [...missing].sort() };
}

const head = /"takenAt":\s{0,9}"[^"]{0,40}",\s{0,9}"node":\s{0,9}"([^"]{0,253})"/;

const space = new RegExp(`"freeSpace ${runtimesDirectory}":\\s{0,9}(\\{[^}]{0,200}\\})`);

/** Inodes and times, of files and in the node's journal: a plan asks at most whether two of them are the same. */
const identities =
  /(?<=(?:[mc]timeNs|ino|dev)\\{0,3}":\s{0,9}\\{0,3}")\d{1,30}|2\d{3}-\d\d-\d\dT[\d:.]{1,20}Z|2\d{7}T\d{6}/g;

/**
 * A digest that bundles of equal nodes share: without name, time and free space, and with inodes and times renamed by
 * their order, which keeps every equality among them. On the text, because reading a thousand of them costs
 * more than planning ten. What does not begin like a bundle of this node is of the kind `unreadable`: a node that gives
 * out another's name speaks for neither.
 */
function kindOf(text: string, node: string): { kind: string; free: FreeSpace | undefined } {
  const [match, name] = head.exec(text.slice(0, 1000)) ?? [];
  if (match === undefined || name !== node || text.length > longestBundle)
    return { kind: unreadable.code, free: undefined };
  const [freeText = "", free] = space.exec(text) ?? [];
  const parsed = free === undefined ? undefined : freeSpaceAnswer.safeParse(jsonOf(free));
  if (parsed?.success === false) return { kind: unreadable.code, free: undefined };
  const names = new Map<string, string>();
  const same = text
    .replace(match, "")
    .replace(freeText, "")
    .replaceAll(identities, (value) => {
      const name = names.get(value) ?? `#${names.size}`;
      names.set(value, name);
      return name;
    });
  return { kind: sha256(same), free: parsed?.data };
}

function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

type FreeSpace = Awaited<ReturnType<Host["freeSpace"]>>;

/** A refusal where the node lacks space, which differs from node to node. */
async function withoutSpace(payloads: PayloadPlan[], free: FreeSpace | undefined): Promise<NodePlan | undefined> {
  if (free === undefined) return undefined;
  try {
    await requireRoomForPayloads({ freeSpace: async () => free } as unknown as Host, payloads);
    return undefined;
  } catch (error) {
    return refused(error);
  }
}

function refused(error: unknown): NodePlan {
  if (!(error instanceof Refusal)) throw error;
  return { outcome: "refused", code: error.code, reason: error.message };
}

const unreadable: KindPlan = {
  outcome: "unknown",
  code: "bundle-unreadable",
  reason: "the bundle is not one that this version reads: collect it again once the node has this version's installer",
  payloads: [],
};

/** The very code that runs on nodes, on a node's bundle. Whatever is in that, it is the plan of this node alone. */
async function planNode(spec: InstallSpec, text: string): Promise<KindPlan> {
  const bundle = parseBundle(text);
  if (bundle === undefined) return unreadable;
  const host = bundleHost(bundle);
  const daemon = replayingDaemon(containerdOn(host, spec.distribution), bundle);
  try {
    const findings = spec.runtimes.length > 0 ? await hostFindings(host, await daemon.locate(), spec) : [];
    const errors = findings.filter(({ severity }) => severity === "error");
    if (errors.length > 0) {
      const reason = errors.map(({ message }) => message).join(" ");
      return { outcome: "refused", code: errors.map((finding) => finding.code).join(", "), reason, payloads: [] };
    }
    const { plan, servingKnown, located, notices, pending } = await planFor(host, daemon, spec);
    if (plan.untrusted.length > 0) return { ...refused(notRoots(plan.untrusted)), payloads: [], notices };
    if (isEmpty(plan) && plan.blocked.length === 0) {
      return { outcome: "unchanged", code: "", reason: "", payloads: plan.payloads, notices };
    }
    refusePending(located, pending, spec);
    const used = plan.blocked.map(({ handler }) => handler);
    const reason = [
      ...(used.length > 0 ? [`pods still use ${list(used)}`] : []),
      ...(pending.length > 0 ? ["the restart also loads what others have changed there"] : []),
      ...(servingKnown ? [] : ["its containerd did not answer when the bundle was taken"]),
    ].join("; ");
    return { outcome: plan.restart ? "restart" : "change", code: reason, reason, payloads: plan.payloads, notices };
  } catch (error) {
    if (!(error instanceof Refusal)) return failed(error);
    if (error.code === "bundle-incomplete") return { ...refused(error), outcome: "unknown", payloads: [] };
    return { ...refused(error), payloads: [] };
  }
}

/** A fault of ours, or a bundle that no schema foresaw: said of this node, and the others are planned. */
function failed(error: unknown): KindPlan {
  const reason = `planning it failed: ${String((error as Error).message ?? error).slice(0, 200)}`;
  return { outcome: "unknown", code: planFailed, reason, payloads: [] };
}

/** The code of nodes whose plan ended in an error that is no refusal. */
export const planFailed = "plan-failed";
