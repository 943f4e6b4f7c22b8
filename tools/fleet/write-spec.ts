import { isStatus } from "../../node-installer/kubernetes/api.ts";
import { ownKey, retryAnnotation, specHash, specKey } from "../../runtime/names.ts";
import { describeError, each, type FleetApi } from "./api.ts";
import { emptiedSpecKey, type Fleet, type InstallerPod, uninstalledKey } from "./observe.ts";
import { patchNode } from "./patch.ts";

/**
 * Changes the ConfigMap in place: the DaemonSet's pods re-read the file, while a new ConfigMap would restart them all.
 * kubelet refreshes a mounted ConfigMap when it syncs the pod, up to a minute later; a changed annotation triggers that
 * now, so a pod that could not be told is only slower.
 *
 * @param more further keys of the ConfigMap; null removes one
 */
export async function writeSpec(
  api: FleetApi,
  { namespace, configMap, nodes }: Fleet,
  spec: string,
  more: Record<string, string | null> = {},
): Promise<void> {
  await api.mergePatch(configMapPath(namespace, configMap), { data: { [specKey]: spec, ...more } });
  const metadata = nudge(spec);
  await each(
    nodes.flatMap(({ pod }) => pod ?? []),
    (pod) =>
      api.mergePatch(podPath(namespace, pod), { metadata }).catch((error: unknown) => {
        if (!isStatus(error, 404)) throw error;
      }),
  );
}

const configMapPath = (namespace: string, name: string) => `/api/v1/namespaces/${namespace}/configmaps/${name}`;
const podPath = (namespace: string, { name }: InstallerPod) => `/api/v1/namespaces/${namespace}/pods/${name}`;
const nudge = (spec: string) => ({ annotations: { [ownKey("spec-changed")]: specHash(spec) } });

/**
 * What the API server says of the first of an uninstallation's writes that it would not let pass (rights, admission,
 * quotas, sizes), of each kind one; undefined if it would let all. Nothing is changed.
 */
export async function checkWrites(
  api: FleetApi,
  { namespace, group, configMap, nodes }: Fleet,
  spec: string,
  more: Record<string, string>,
): Promise<string | undefined> {
  const check = { check: true } as const;
  const pod = nodes.find((node) => node.pod !== undefined)?.pod;
  const [node] = nodes;
  const writes = [
    () => api.mergePatch(configMapPath(namespace, configMap), { data: { [specKey]: spec, ...more } }, check),
    () => pod && api.mergePatch(podPath(namespace, pod), { metadata: nudge(spec) }, check),
    () => node && patchNode(api, node.name, { annotations: { [retryAnnotation(group)]: null } }, check),
  ];
  for (const write of writes) {
    try {
      await write();
    } catch (error) {
      // Some admission webhooks cannot be asked without being obeyed.
      const says = describeError(error);
      if (!isStatus(error, 404) && !says.includes("does not support dry run")) return says;
    }
  }
  return undefined;
}

/** Says where the spec is that all nodes have done what it says. */
export const markUninstalled = (api: FleetApi, { namespace, configMap }: Fleet, hash: string): Promise<void> =>
  api.mergePatch(configMapPath(namespace, configMap), { data: { [uninstalledKey]: hash } });

/** What an uninstallation emptied that did not end, and that is wanted again; returns whether there was such a thing. */
export async function restoreSpec(api: FleetApi, fleet: Fleet, wanted: string): Promise<boolean> {
  const { emptiedSpec } = fleet;
  if (fleet.specHash === wanted || emptiedSpec === undefined || specHash(emptiedSpec) !== wanted) return false;
  await writeSpec(api, fleet, emptiedSpec, { [emptiedSpecKey]: null, [uninstalledKey]: null });
  return true;
}
