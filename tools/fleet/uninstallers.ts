import { setTimeout as delay } from "node:timers/promises";
import type { V1DaemonSet, V1Pod, V1PodSpec } from "@kubernetes/client-node";
import { installerName, partOfLabel, specKey, specVolume } from "../../runtime/names.ts";
import { each, type FleetApi } from "./api.ts";
import { type Fleet, type InstallerPod, installerPod, observeFleet } from "./observe.ts";

/**
 * Installers for nodes that left their group: one pod per node, like the DaemonSet's pods except for the spec, which lists
 * no runtimes. They have their own label, so that no DaemonSet adopts them, and are removed afterwards.
 */
export interface Uninstallers {
  /** The fleet as if it had only these nodes and that spec. */
  observe(): Promise<Fleet>;
  remove(): Promise<void>;
}

export const uninstallerName = (group: string): string => `contrast-uninstaller-${group}`;

export async function startUninstallers(
  api: FleetApi,
  { namespace, group }: Fleet,
  nodes: ReadonlySet<string>,
  spec: { json: string; hash: string },
): Promise<Uninstallers> {
  const name = uninstallerName(group);
  const labels = { "app.kubernetes.io/name": name, ...partOfLabel };
  const podName = (node: string) => `${name}-${node}`;

  const [podsPath, maps] = [`/api/v1/namespaces/${namespace}/pods`, `/api/v1/namespaces/${namespace}/configmaps`];
  const daemonSet = await api.get<V1DaemonSet>(
    `/apis/apps/v1/namespaces/${namespace}/daemonsets/${installerName(group)}`,
  );
  const template: V1PodSpec = daemonSet.spec?.template.spec ?? { containers: [] };
  // The node was in the group once; what selects nodes and what keeps pods off them may be why it no longer is.
  const { nodeSelector: _selector, affinity: _affinity, containers, volumes = [], ...rest } = template;
  const pod = (node: string): V1Pod => ({
    metadata: { name: podName(node), namespace, labels },
    spec: {
      ...rest,
      nodeName: node,
      tolerations: [{ operator: "Exists" }],
      containers: containers.filter((container) => container.name === "installer"),
      volumes: volumes.map((volume) =>
        volume.name === specVolume ? { name: specVolume, configMap: { name } } : volume,
      ),
    },
  });
  const remove = async () => {
    await each(nodes, (node) => api.remove(`${podsPath}/${podName(node)}`));
    await api.remove(`${maps}/${name}`);
    // Only kubelet ends a pod. A pod left behind on a node that dies next would block the namespace's deletion.
    for (let wait = 0; wait < 120 && (await pods()).size > 0; wait += 1) await delay(500);
  };

  // Pods that a killed run left behind would have another spec.
  await remove();
  await api.create(maps, { metadata: { name, labels }, data: { [specKey]: spec.json } });
  await each(nodes, (node) => api.create(podsPath, pod(node)));

  async function pods(): Promise<Map<string, InstallerPod>> {
    const own = await api.list(podsPath, { labelSelector: `app.kubernetes.io/name=${name}` }, (item: V1Pod) =>
      item.spec?.nodeName ? [[item.spec.nodeName, { ...installerPod(item), current: true }] as const] : [],
    );
    return new Map(own);
  }
  return {
    async observe() {
      const [fleet, own] = await Promise.all([observeFleet(api, namespace, group), pods()]);
      return {
        ...fleet,
        settled: true,
        specHash: spec.hash,
        nodes: fleet.nodes
          .filter((node) => nodes.has(node.name))
          .map((node) => ({ ...node, selected: true, pod: own.get(node.name) })),
      };
    },
    remove,
  };
}
