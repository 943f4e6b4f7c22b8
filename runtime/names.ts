import { sha256 } from "./canonical.ts";
import { handlerName } from "./spec.ts";

/** The namespace of everything that the installer has in the cluster: its own, so that its pods can be told apart. */
export const systemNamespace = "contrast-runtime-system";

const installerPrefix = "contrast-installer-";

/** DaemonSet, ServiceAccount, roles and policies of a node group. */
export const installerName = (group: string): string => `${installerPrefix}${group}`;

/** The group whose installer has this name; undefined for any other name. */
export const groupOfInstaller = (name: string): string | undefined =>
  name.startsWith(installerPrefix) ? name.slice(installerPrefix.length) : undefined;

/** The label of whatever this product has in a cluster. */
export const partOfLabel = { "app.kubernetes.io/part-of": "contrast-runtime" };

/** Labels of a group's DaemonSet, of its pods, and of the ConfigMap with its spec. */
export const installerLabels = (group: string): Record<string, string> => ({
  "app.kubernetes.io/name": installerName(group),
  ...partOfLabel,
});

/**
 * A command that the engine runs for a node group or a host, as its state calls it: one of another name would be another
 * command. Nothing reads a name back: what a command does is in its text, and whose it is in its URN.
 */
export const commandName = (groupOrHost: string, purpose: CommandPurpose): string => `${groupOrHost}-${purpose}`;
export type CommandPurpose = "rollout" | "uninstall" | "reach" | "prepare" | "check" | "registry" | "join";

/** The admission policies of a group, and their bindings. */
export const policyNames = (group: string) => ({
  node: `${installerName(group)}-node`,
  events: `${installerName(group)}-events`,
  tickets: `${installerName(group)}-tickets`,
});

/** The Leases that are a group's tickets: `contrast-installer-<group>-<0 … atOnce-1>`. */
export const ticketNames = (group: string, atOnce: number): string[] =>
  Array.from({ length: atOnce }, (_, index) => `${installerName(group)}-${index}`);

/** Below it are all labels and annotations of this product. */
const domain = "runtime.contrast.edgeless.systems";

/** A label or annotation of this product's. */
export const ownKey = (name: string): string => `${domain}/${name}`;

/** Prefix of the node labels that say which handlers a node serves. */
export const handlerLabelPrefix = `${domain}/`;
/** The node label that says that this node serves the handler. */
export const handlerLabel = (handler: string): string => ownKey(handler);

/**
 * The handler that a pod was given by its RuntimeClass, whatever that is called and wherever it leads by now: the class's
 * node selector is copied into the pod when it is created, and stays there.
 */
export const selectedHandler = (nodeSelector: Record<string, string> = {}): string | undefined =>
  labelledHandlers(nodeSelector)[0];

/**
 * The handler that a pod runs with: a class's name is its handler's, and of a class with another name the pod's node selector
 * says which handler it led to. undefined: a pod without a class.
 */
export const handlerOfPod = (spec: {
  runtimeClassName?: string | undefined;
  nodeSelector?: Record<string, string> | undefined;
}): string | undefined =>
  spec.runtimeClassName === undefined ? undefined : (selectedHandler(spec.nodeSelector) ?? spec.runtimeClassName);

/** The handlers that a node serves by its labels, or that a selector wants of one. */
export const labelledHandlers = (labels: Record<string, string> = {}): string[] =>
  Object.keys(labels)
    .filter((key) => key.startsWith(handlerLabelPrefix))
    .map((key) => key.slice(handlerLabelPrefix.length))
    .filter((name) => handlerName.safeParse(name).success);

/**
 * The handler of a RuntimeClass whose name is resolved when a pod is admitted. No node has it: a pod that was not
 * resolved does not start, rather than with another runtime.
 */
export const unresolvedHandler = "contrast-unresolved";

/** AKS sets this label on the nodes of a pool. */
export const poolSelector = (pool: string): Record<string, string> => ({ "kubernetes.azure.com/agentpool": pool });

/** Node annotation in which a group's installer publishes its state, as JSON of `nodeStatusSchema`. */
export const statusAnnotation = (group: string): string => `status.${domain}/${group}`;

/**
 * Node label with the state in that annotation, for selectors: `kubectl get nodes -l state.<domain>/<group>=failed`. The
 * prefix is not the handlers', so that no RuntimeClass can lead there.
 */
export const stateLabel = (group: string): string => `state.${domain}/${group}`;

/** Node annotation with which somebody with rights on nodes asks a failed installer to try again. */
export const retryAnnotation = (group: string): string => `retry.${domain}/${group}`;

/** DaemonSet annotation: comma-separated names of dead nodes that an uninstallation does not wait for. */
export const skipNodesAnnotation = ownKey("skip-nodes");

/** Port of /healthz, /readyz, /metrics and /bundle on the pod. */
export const healthPort = 8099;

/** The ServiceAccount, in the installers' namespace and without any rights, whose tokens nodes give their bundles for. */
export const bundleReader = "bundle-reader";

/** A token for one node's bundle is refused by every other node, and by the API server. */
export const bundleAudience = (nodeName: string): string => `bundle.${domain}/${nodeName}`;

/** The API server keeps the header Authorization to itself; this one reaches the pod behind its proxy. */
export const bundleTokenHeader = "x-contrast-bundle-token";

/** The key of the spec's ConfigMap, and the name of the DaemonSet's volume that mounts it. */
export const specKey = "spec.json";
export const specVolume = "spec";

/** What a status and a rollout compare: the SHA-256 of the spec's bytes, in hex. */
export const specHash = (specJson: string | Buffer): string => sha256(specJson);

/** The environment variable that names the local cluster whose network a process was started in. */
export const localNetworkVariable = "CONTRAST_RUNTIME_NETWORK";
