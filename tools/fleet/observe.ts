/** The state that a rollout, an uninstallation and the status table work with, read from the cluster in one go. */
import type { CoreV1Api, KubeConfig, V1ConfigMap, V1DaemonSet, V1Node, V1Pod } from "@kubernetes/client-node";
import { z } from "zod";
import { type PublishedStatus, parseStatus } from "../../node-installer/kubernetes/status.ts";
import { ticketReasonAnnotation } from "../../node-installer/kubernetes/tickets.ts";
import { fromJson } from "../../runtime/from-json.ts";
import {
  installerName,
  skipNodesAnnotation,
  specHash,
  specKey,
  specVolume,
  statusAnnotation,
} from "../../runtime/names.ts";
import { printable } from "../../runtime/printable.ts";
import { Refusal } from "../../runtime/refusal.ts";
import { isNotFound } from "./client.ts";
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
  /** Nodes that an uninstallation does not wait for. */
  skipNodes: string[];
  /** Nodes that the DaemonSet selects, and nodes with a status of the group; sorted by name. */
  nodes: FleetNode[];
  tickets: Ticket[];
  /** Of the pods that blocked nodes name as users of a runtime to remove: those that are gone or terminating by now. */
  endedPods: ReadonlySet<string>;
}

/** The state of one group's fleet. @throws Refusal `no-installer` if its DaemonSet does not exist */
export async function observeFleet(kubeconfig: KubeConfig, namespace: string, group: string): Promise<Fleet> {
  const { AppsV1Api, CoordinationV1Api, ...client } = await import("@kubernetes/client-node");
  const apps = kubeconfig.makeApiClient(AppsV1Api);
  const core = kubeconfig.makeApiClient(client.CoreV1Api);
  const name = installerName(group);

  const daemonSet = await apps.readNamespacedDaemonSet({ namespace, name }).catch((error: unknown) => {
    if (!isNotFound(error)) throw error;
    throw new Refusal("no-installer", `There is no DaemonSet ${namespace}/${name}: group ${group} is not installed.`);
  });
  const configMapName = specConfigMap(daemonSet);
  const labelSelector = Object.entries(daemonSet.spec?.selector.matchLabels ?? {})
    .map(([key, value]) => `${key}=${value}`)
    .join(",");
  const [configMap, revisions, pods, nodes, leases] = await Promise.all([
    core.readNamespacedConfigMap({ namespace, name: configMapName }),
    apps.listNamespacedControllerRevision({ namespace, labelSelector }),
    core.listNamespacedPod({ namespace, labelSelector }),
    core.listNode(),
    kubeconfig.makeApiClient(CoordinationV1Api).listNamespacedLease({ namespace }),
  ]);

  const newest = revisions.items
    .filter(({ metadata }) => metadata?.ownerReferences?.some(({ uid }) => uid === daemonSet.metadata?.uid))
    .reduce<{ revision: number; hash: string | undefined }>(
      (best, { revision, metadata }) =>
        revision > best.revision ? { revision, hash: metadata?.labels?.["controller-revision-hash"] } : best,
      { revision: -1, hash: undefined },
    );
  const podsByNode = new Map<string, InstallerPod>();
  // A dead node's pod stays terminating forever, and has no successor as long as it exists.
  const covered = new Set<string>();
  for (const pod of pods.items) {
    const node = nodeOf(pod);
    if (node !== undefined) covered.add(node);
    if (node !== undefined && pod.metadata?.deletionTimestamp === undefined) {
      podsByNode.set(node, installerPod(pod, newest.hash));
    }
  }
  const text = specText(configMap);
  const fleetNodes = nodes.items
    .map((node) => {
      const awaited = covered.has(nameOf(node)) || !isNodeReady(node);
      return fleetNode(node, group, podsByNode, awaited && selectsNode(daemonSet, node));
    })
    .filter(({ selected, status }) => selected || status !== undefined)
    .toSorted((a, b) => (a.name < b.name ? -1 : 1));
  const ticketName = new RegExp(`^${name}-\\d+$`);
  const { desiredNumberScheduled = 0, observedGeneration = 0 } = daemonSet.status ?? {};
  return {
    namespace,
    group,
    settled: observedGeneration >= (daemonSet.metadata?.generation ?? 0) && covered.size >= desiredNumberScheduled,
    configMap: configMapName,
    spec: outlineOf(text, configMapName),
    specJson: text,
    specHash: specHash(text),
    skipNodes: (daemonSet.metadata?.annotations?.[skipNodesAnnotation] ?? "").split(",").filter((node) => node !== ""),
    nodes: fleetNodes,
    endedPods: await endedPods(core, fleetNodes),
    tickets: leases.items.flatMap(({ metadata, spec }) => {
      const { name, uid, annotations } = metadata ?? {};
      const holder = spec?.holderIdentity;
      if (!name || !uid || !holder || !ticketName.test(name)) return [];
      return [{ name, uid, holder, reason: annotations?.[ticketReasonAnnotation] }];
    }),
  };
}

/** Users that are not pods, such as processes, are not looked up. */
async function endedPods(core: CoreV1Api, nodes: FleetNode[]): Promise<Set<string>> {
  const users = nodes.flatMap(({ status }) => (status?.state === "blocked" ? status.pods : []));
  const named = users.flatMap((user) => {
    const [, namespace, name] = /^([a-z0-9-]+)\/([a-z0-9.-]+)$/.exec(user) ?? [];
    return namespace !== undefined && name !== undefined ? [{ user, namespace, name }] : [];
  });
  const ended = await Promise.all(
    named.map(async ({ user, namespace, name }) => {
      try {
        const { metadata } = await core.readNamespacedPod({ namespace, name });
        return metadata?.deletionTimestamp === undefined ? [] : [user];
      } catch (error) {
        if (!isNotFound(error)) throw error;
        return [user];
      }
    }),
  );
  return new Set(ended.flat());
}

function specConfigMap(daemonSet: V1DaemonSet): string {
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

export function installerPod(pod: V1Pod, newestRevision: string | undefined): InstallerPod {
  const { conditions = [], containerStatuses = [], phase = "Pending" } = pod.status ?? {};
  const stopped = containerStatuses.flatMap(
    ({ state, lastState }) => state?.waiting ?? state?.terminated ?? lastState?.terminated ?? [],
  );
  const unscheduled = conditions.filter(({ type, status }) => type === "PodScheduled" && status === "False");
  const problem = [...unscheduled, ...stopped].map(({ reason, message }) =>
    printable([reason, message].filter(Boolean).join(": ")),
  )[0];
  return {
    name: nameOf(pod),
    current: pod.metadata?.labels?.["controller-revision-hash"] === newestRevision,
    ready: conditions.some(({ type, status }) => type === "Ready" && status === "True"),
    problem: problem ?? (phase === "Running" ? "" : printable(`pod ${phase}`)),
  };
}

const isNodeReady = (node: V1Node): boolean =>
  node.status?.conditions?.some(({ type, status }) => type === "Ready" && status === "True") === true;

/** By label and by name, the two ways in which our own DaemonSets select. Taints are not considered. */
function selectsNode(daemonSet: V1DaemonSet, node: V1Node): boolean {
  const { nodeSelector = {}, affinity } = daemonSet.spec?.template.spec ?? {};
  const { name = "", labels = {} } = node.metadata ?? {};
  if (!Object.entries(nodeSelector).every(([key, value]) => labels[key] === value)) return false;
  const terms = affinity?.nodeAffinity?.requiredDuringSchedulingIgnoredDuringExecution?.nodeSelectorTerms;
  return (
    terms === undefined ||
    terms.some(({ matchFields = [] }) => matchFields.some(({ values = [] }) => values.includes(name)))
  );
}

/**
 * @param selected the node would have a pod if it were Ready, or has one that is terminating. The DaemonSet stays off a
 *   node that is Ready and tainted and has no pod.
 */
function fleetNode(node: V1Node, group: string, pods: Map<string, InstallerPod>, selected: boolean): FleetNode {
  const name = nameOf(node);
  const pod = pods.get(name);
  return {
    name,
    ready: isNodeReady(node),
    containerRuntime: printable(node.status?.nodeInfo?.containerRuntimeVersion || "unknown", 100),
    status: parseStatus(node.metadata?.annotations?.[statusAnnotation(group)]),
    selected: pod !== undefined || selected,
    pod,
  };
}
