/** The state that a rollout, an uninstallation and the status table work with, read from the cluster in one go. */
import type { V1ConfigMap, V1ControllerRevision, V1DaemonSet, V1Lease, V1Node, V1Pod } from "@kubernetes/client-node";
import * as z from "zod";
import { isStatus } from "../../node-installer/kubernetes/api.ts";
import { type PublishedStatus, parseStatus } from "../../node-installer/kubernetes/status.ts";
import { ticketReasonAnnotation } from "../../node-installer/kubernetes/tickets.ts";
import { fromJson } from "../../runtime/from-json.ts";
import {
  handlerOfPod,
  installerName,
  labelledHandlers,
  skipNodesAnnotation,
  specHash,
  specKey,
  specVolume,
  statusAnnotation,
} from "../../runtime/names.ts";
import { printable } from "../../runtime/printable.ts";
import { Refusal } from "../../runtime/refusal.ts";
import { each, type FleetApi, type Metadata } from "./api.ts";
import { nameOf } from "./name-of.ts";

export interface InstallerPod {
  name: string;
  /** It is of the DaemonSet's newest revision; an older pod is about to be replaced. */
  current: boolean;
  ready: boolean;
  /** Why it is not running, in kubelet's words; "" while it runs. */
  problem: string;
}

export interface FleetNode {
  name: string;
  ready: boolean;
  /** "containerd://2.4.2" */
  containerRuntime: string;
  status: PublishedStatus | undefined;
  /** The handlers that its labels say it serves. */
  labelled: string[];
  /** Another group, whose installer serves handlers there: the node is that group's. */
  otherGroup: string | undefined;
  /** It has a pod of the DaemonSet, or would have one if it were Ready. */
  selected: boolean;
  pod: InstallerPod | undefined;
}

export interface Ticket {
  name: string;
  uid: string;
  holder: string;
  reason: string | undefined;
}

/** The parts of an install spec that are needed here, even if another version of the product wrote it. */
const specOutline = z.looseObject({
  atOnce: z.int().min(1),
  runtimes: z.array(z.looseObject({ handler: z.string() })),
});

export interface Fleet {
  namespace: string;
  group: string;
  /** The DaemonSet's controller has seen the newest revision and created its pods. */
  settled: boolean;
  configMap: string;
  spec: z.infer<typeof specOutline>;
  /** The spec as the nodes read it, and its hash. */
  specJson: string;
  specHash: string;
  /** The spec that an uninstallation emptied. */
  emptiedSpec: string | undefined;
  /** Every node had uninstalled; what is left to remove are traces in the cluster. */
  uninstalled: boolean;
  /** Nodes that an uninstallation does not wait for. */
  skipNodes: string[];
  /** Nodes that the DaemonSet selects, and nodes with a status of the group; sorted by name. */
  nodes: FleetNode[];
  tickets: Ticket[];
  /**
   * Of the pods that blocked nodes name as users of a runtime to remove: those that are gone or terminating by now, or whose
   * name belongs to a pod with another runtime, as that of a StatefulSet's pod does soon.
   */
  endedPods: ReadonlySet<string>;
}

/** The key of a ConfigMap under which an uninstallation keeps the spec that it empties. */
export const emptiedSpecKey = "emptied-spec.json";
/** The key under which it says, by the emptied spec's hash, that every node has done what that says. */
export const uninstalledKey = "uninstalled";

/** The state of one group's fleet. @throws Refusal `no-installer` if its DaemonSet does not exist */
export async function observeFleet(api: FleetApi, namespace: string, group: string): Promise<Fleet> {
  const name = installerName(group);
  const daemonSet = await api
    .get<V1DaemonSet>(`/apis/apps/v1/namespaces/${namespace}/daemonsets/${name}`)
    .catch((error: unknown) => {
      if (!isStatus(error, 404)) throw error;
      throw new Refusal("no-installer", `There is no DaemonSet ${namespace}/${name}: group ${group} is not installed.`);
    });
  const configMapName = specConfigMap(daemonSet);
  const labelSelector = selectorText(daemonSet.spec?.selector.matchLabels ?? {});
  const ticketName = new RegExp(`^${name}-\\d+$`);
  const [configMap, newest, tickets] = await Promise.all([
    api.get<V1ConfigMap>(`/api/v1/namespaces/${namespace}/configmaps/${configMapName}`),
    newestRevision(api, daemonSet, labelSelector),
    api.list(`/apis/coordination.k8s.io/v1/namespaces/${namespace}/leases`, {}, ({ metadata, spec }: V1Lease) => {
      const { name, uid, annotations } = metadata ?? {};
      const holder = spec?.holderIdentity;
      if (!name || !uid || !holder || !ticketName.test(name)) return [];
      return [{ name, uid, holder, reason: annotations?.[ticketReasonAnnotation] }];
    }),
  ]);

  // One after the other: a page of each at a time would be three in memory.
  const nodes = await groupNodes(api, daemonSet, group);
  const pods = await api.list(`/api/v1/namespaces/${namespace}/pods`, { labelSelector }, podOfNode);

  const podsByNode = new Map<string, InstallerPod>();
  // A dead node's pod stays terminating forever, and has no successor as long as it exists.
  const covered = new Set<string>();
  for (const { node, revision, ending, pod } of pods) {
    covered.add(node);
    if (!ending) podsByNode.set(node, { ...pod, current: revision === newest });
  }
  const text = specText(configMap);
  const spec = outlineOf(text, configMapName);
  const fleetNodes = nodes
    .map(({ selected, ...node }) => {
      const pod = podsByNode.get(node.name);
      // The DaemonSet stays off a node that is Ready and tainted and has no pod.
      return { ...node, pod, selected: pod !== undefined || ((covered.has(node.name) || !node.ready) && selected) };
    })
    .filter(({ selected, status }) => selected || status !== undefined)
    .toSorted((a, b) => (a.name < b.name ? -1 : 1));
  const { desiredNumberScheduled = 0, observedGeneration = 0 } = daemonSet.status ?? {};
  return {
    namespace,
    group,
    settled: observedGeneration >= (daemonSet.metadata?.generation ?? 0) && covered.size >= desiredNumberScheduled,
    configMap: configMapName,
    spec,
    specJson: text,
    specHash: specHash(text),
    emptiedSpec: configMap.data?.[emptiedSpecKey],
    uninstalled: configMap.data?.[uninstalledKey] === specHash(text),
    skipNodes: (daemonSet.metadata?.annotations?.[skipNodesAnnotation] ?? "").split(",").filter((node) => node !== ""),
    nodes: fleetNodes,
    endedPods: await endedPods(api, fleetNodes, new Set(spec.runtimes.map(({ handler }) => handler))),
    tickets,
  };
}

export const selectorText = (labels: Record<string, string>): string =>
  Object.entries(labels)
    .map(([key, value]) => `${key}=${value}`)
    .join(",");

/** The hash that the DaemonSet's newest pods carry. */
async function newestRevision(api: FleetApi, daemonSet: V1DaemonSet, labelSelector: string) {
  const { namespace = "", uid } = daemonSet.metadata ?? {};
  const revisions = await api.list(
    `/apis/apps/v1/namespaces/${namespace}/controllerrevisions`,
    { labelSelector },
    ({ metadata, revision }: V1ControllerRevision) =>
      metadata?.ownerReferences?.some((owner) => owner.uid === uid)
        ? [{ revision, hash: metadata.labels?.["controller-revision-hash"] }]
        : [],
  );
  return revisions.toSorted((a, b) => b.revision - a.revision)[0]?.hash;
}

/** Of an installer's pod what is needed. */
function podOfNode(pod: V1Pod) {
  const node = nodeOf(pod);
  if (node === undefined) return [];
  const { deletionTimestamp, labels } = pod.metadata ?? {};
  const revision = labels?.["controller-revision-hash"];
  return [{ node, revision, ending: deletionTimestamp !== undefined, pod: installerPod(pod) }];
}

type ReadNode = Omit<FleetNode, "pod">;

/** As many nodes are asked for one by one; of more, a list of all costs less. */
const askedByName = 100;

/**
 * The nodes that the DaemonSet may select (`selected`: it does), and those that have a status of the group without being
 * selected. The latter are looked for in all nodes' metadata, which is a fraction of a node: labels do not tell them.
 */
async function groupNodes(api: FleetApi, daemonSet: V1DaemonSet, group: string): Promise<ReadNode[]> {
  const { nodeSelector = {}, affinity } = daemonSet.spec?.template.spec ?? {};
  const terms = affinity?.nodeAffinity?.requiredDuringSchedulingIgnoredDuringExecution?.nodeSelectorTerms;
  const names =
    terms && new Set(terms.flatMap(({ matchFields = [] }) => matchFields.flatMap(({ values = [] }) => values)));
  const reduce = (node: V1Node) => [fleetNode(node, group, selects(node, nodeSelector, names))];
  const byName = async (name: string): Promise<ReadNode[]> => {
    try {
      return reduce(await api.get<V1Node>(`/api/v1/nodes/${name}`));
    } catch (error) {
      if (isStatus(error, 404)) return [];
      throw error;
    }
  };
  const labelSelector = selectorText(nodeSelector);
  const readsAll = names === undefined ? labelSelector === "" : names.size > askedByName;
  if (readsAll) return api.list("/api/v1/nodes", {}, reduce);
  const own =
    names === undefined
      ? await api.list("/api/v1/nodes", { labelSelector }, reduce)
      : (await each(names, byName)).flat();
  const traced = await api.listMetadata("/api/v1/nodes", {}, ({ metadata }) =>
    metadata.annotations?.[statusAnnotation(group)] === undefined ? [] : [metadata.name],
  );
  const known = new Set(own.map(({ name }) => name));
  const others = await each(
    traced.filter((name) => !known.has(name)),
    byName,
  );
  return [...own, ...others.flat()];
}

/** By label and by name, the two ways in which our own DaemonSets select. Taints are not considered. */
function selects(
  { metadata }: V1Node,
  labels: Record<string, string>,
  names: ReadonlySet<string> | undefined,
): boolean {
  const own = metadata?.labels ?? {};
  if (!Object.entries(labels).every(([key, value]) => own[key] === value)) return false;
  return names === undefined || names.has(metadata?.name ?? "");
}

type NamedPod = Metadata & { spec?: { runtimeClassName?: string; nodeSelector?: Record<string, string> } };

/** So many pods of a namespace are asked for one by one; of more, a list of all costs less. */
const podsByName = 8;

/**
 * Users that are not pods, such as processes, are not looked up.
 *
 * @param wanted handlers that stay; a list of many pods does not tell those of each
 */
async function endedPods(api: FleetApi, nodes: FleetNode[], wanted: ReadonlySet<string>): Promise<Set<string>> {
  const named = new Map<string, Set<string>>();
  for (const user of nodes.flatMap(({ status }) => (status?.state === "blocked" ? status.pods : []))) {
    const [, namespace, name] = /^([a-z0-9-]+)\/([a-z0-9.-]+)$/.exec(user) ?? [];
    if (namespace === undefined || name === undefined) continue;
    named.set(namespace, (named.get(namespace) ?? new Set()).add(name));
  }
  const ended = await each(named, async ([namespace, names]) => {
    const path = `/api/v1/namespaces/${namespace}/pods`;
    const living = ({ metadata }: Metadata) => (metadata.deletionTimestamp === undefined ? [metadata.name] : []);
    const using = (pod: NamedPod) => {
      const handler = pod.spec === undefined ? undefined : handlerOfPod(pod.spec);
      return handler !== undefined && wanted.has(handler) ? [] : living(pod);
    };
    const found =
      names.size > podsByName
        ? await api.listMetadata(path, {}, living)
        : (await each(names, (name) => api.get<NamedPod>(`${path}/${name}`).then(using, absent))).flat();
    const alive = new Set(found);
    return [...names].filter((name) => !alive.has(name)).map((name) => `${namespace}/${name}`);
  });
  return new Set(ended.flat());
}

function absent(error: unknown): string[] {
  if (isStatus(error, 404)) return [];
  throw error;
}

export function specConfigMap(daemonSet: V1DaemonSet): string {
  const volume = daemonSet.spec?.template.spec?.volumes?.find(({ name }) => name === specVolume);
  const name = volume?.configMap?.name;
  if (name !== undefined) return name;
  throw new Refusal(
    "foreign-installer",
    `DaemonSet ${daemonSet.metadata?.namespace}/${daemonSet.metadata?.name} has no volume "${specVolume}" from a ` +
      "ConfigMap: it was made by something else, or by another version of this product.",
  );
}

function specText(configMap: V1ConfigMap): string {
  const text = configMap.data?.[specKey];
  if (text !== undefined) return text;
  const { namespace, name } = configMap.metadata ?? {};
  throw new Refusal("foreign-installer", `ConfigMap ${namespace}/${name} has no key "${specKey}".`);
}

function outlineOf(text: string, configMap: string): Fleet["spec"] {
  const { data } = fromJson.pipe(specOutline).safeParse(text);
  if (data !== undefined) return data;
  throw new Refusal("foreign-installer", `Key "${specKey}" of ConfigMap ${configMap} holds no install spec.`);
}

/** The node of a DaemonSet's pod, even before the scheduler has bound it. */
function nodeOf(pod: V1Pod): string | undefined {
  if (pod.spec?.nodeName !== undefined) return pod.spec.nodeName;
  const terms =
    pod.spec?.affinity?.nodeAffinity?.requiredDuringSchedulingIgnoredDuringExecution?.nodeSelectorTerms ?? [];
  return terms.flatMap(({ matchFields = [] }) => matchFields).find(({ key }) => key === "metadata.name")?.values?.[0];
}

/** containerd's and kubelet's words for how a container ended that ended with its machine: they explain nothing. */
const unseenEnds = ["Unknown", "ContainerStatusUnknown"];

/** `problem` is why it does not run, or how it ended before it ran again; empty: it runs, and nothing is known. */
export function installerPod(pod: V1Pod): Omit<InstallerPod, "current"> {
  const { conditions = [], containerStatuses = [], phase = "Pending" } = pod.status ?? {};
  const stopped = containerStatuses.flatMap(({ state, lastState }) => {
    const ended = lastState?.terminated;
    return state?.waiting ?? state?.terminated ?? (ended && !unseenEnds.includes(ended.reason ?? "") ? ended : []);
  });
  const unscheduled = conditions.filter(({ type, status }) => type === "PodScheduled" && status === "False");
  const problem = [...unscheduled, ...stopped].map(({ reason, message }) =>
    printable([reason, message].filter(Boolean).join(": ")),
  )[0];
  return {
    name: nameOf(pod),
    ready: isReady(conditions),
    problem: problem ?? (phase === "Running" ? "" : printable(`pod ${phase}`)),
  };
}

/** Of a node's or a pod's conditions. */
export const isReady = (conditions: readonly { type: string; status: string }[] = []): boolean =>
  conditions.some(({ type, status }) => type === "Ready" && status === "True");

function fleetNode(node: V1Node, group: string, selected: boolean): ReadNode {
  return {
    name: nameOf(node),
    ready: isReady(node.status?.conditions),
    containerRuntime: printable(node.status?.nodeInfo?.containerRuntimeVersion || "unknown", 100),
    status: parseStatus(node.metadata?.annotations?.[statusAnnotation(group)]),
    labelled: labelledHandlers(node.metadata?.labels),
    otherGroup: otherGroup(node, group),
    selected,
  };
}

function otherGroup({ metadata }: V1Node, group: string): string | undefined {
  const prefix = statusAnnotation("");
  return Object.entries(metadata?.annotations ?? {})
    .filter(([key, value]) => key.startsWith(prefix) && (parseStatus(value)?.handlers.length ?? 0) > 0)
    .map(([key]) => key.slice(prefix.length))
    .find((name) => name !== group);
}
