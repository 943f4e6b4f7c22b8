import { sha256 } from "./canonical.ts";

/** The namespace of everything that the installer has in the cluster: its own, so that its pods can be told apart. */
export const systemNamespace = "contrast-runtime-system";

/** DaemonSet, ServiceAccount, roles and policies of a node group. */
export const installerName = (group: string): string => `contrast-installer-${group}`;

/** The admission policies of a group, and their bindings. */
export const policyNames = (group: string) => ({
  node: `${installerName(group)}-node`,
  events: `${installerName(group)}-events`,
  tickets: `${installerName(group)}-tickets`,
});

/** The Leases that are a group's tickets: `contrast-installer-<group>-<0 … atOnce-1>`. */
export const ticketNames = (group: string, atOnce: number): string[] =>
  Array.from({ length: atOnce }, (_, index) => `${installerName(group)}-${index}`);

/** Prefix of the node labels that say which handlers a node serves; see `handlerLabel` in ../runtime/spec.ts. */
export const handlerLabelPrefix = "runtime.contrast.edgeless.systems/";

/** Node annotation in which a group's installer publishes its state, as JSON of `nodeStatusSchema`. */
export const statusAnnotation = (group: string): string => `status.runtime.contrast.edgeless.systems/${group}`;

/** Node annotation with which somebody with rights on nodes asks a failed installer to try again. */
export const retryAnnotation = (group: string): string => `retry.runtime.contrast.edgeless.systems/${group}`;

/** DaemonSet annotation: comma-separated names of dead nodes that an uninstallation does not wait for. */
export const skipNodesAnnotation = "runtime.contrast.edgeless.systems/skip-nodes";

/** Port of /healthz, /readyz, /metrics and /bundle on the pod. */
export const healthPort = 8099;

/** The ServiceAccount, in the installers' namespace and without any rights, whose tokens nodes give their bundles for. */
export const bundleReader = "bundle-reader";

/** A token for one node's bundle is refused by every other node, and by the API server. */
export const bundleAudience = (nodeName: string): string => `bundle.runtime.contrast.edgeless.systems/${nodeName}`;

/** The API server keeps the header Authorization to itself; this one reaches the pod behind its proxy. */
export const bundleTokenHeader = "x-contrast-bundle-token";

/** The key of the spec's ConfigMap, and the name of the DaemonSet's volume that mounts it. */
export const specKey = "spec.json";
export const specVolume = "spec";

/** What a status and a rollout compare: the SHA-256 of the spec's bytes, in hex. */
export const specHash = (specJson: string | Buffer): string => sha256(specJson);
