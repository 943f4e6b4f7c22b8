import { setTimeout as delay } from "node:timers/promises";
import type { KubeConfig, V1Pod, V1PodSpec } from "@kubernetes/client-node";
import { installerName, partOfLabel, specKey, specVolume } from "../../runtime/names.ts";
import { isNotFound } from "./client.ts";
import { type Fleet, installerPod, observeFleet } from "./observe.ts";

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
  kubeconfig: KubeConfig,
  { namespace, group }: Fleet,
  nodes: ReadonlySet<string>,
  spec: { json: string; hash: string },
): Promise<Uninstallers> {
  const { AppsV1Api, CoreV1Api } = await import("@kubernetes/client-node");
  const core = kubeconfig.makeApiClient(CoreV1Api);
  const name = uninstallerName(group);
  const labels = { "app.kubernetes.io/name": name, ...partOfLabel };
  const podName = (node: string) => `${name}-${node}`;

  const daemonSet = await kubeconfig
    .makeApiClient(AppsV1Api)
    .readNamespacedDaemonSet({ namespace, name: installerName(group) });
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
    const gone = (error: unknown) => {
      if (!isNotFound(error)) throw error;
    };
    for (const node of nodes) await core.deleteNamespacedPod({ namespace, name: podName(node) }).catch(gone);
    await core.deleteNamespacedConfigMap({ namespace, name }).catch(gone);
    // Only kubelet ends a pod. A pod left behind on a node that dies next would block the namespace's deletion.
    for (let wait = 0; wait < 120 && (await pods()).size > 0; wait += 1) await delay(500);
  };

  // Pods that a killed run left behind would have another spec.
  await remove();
  await core.createNamespacedConfigMap({
    namespace,
    body: { metadata: { name, labels }, data: { [specKey]: spec.json } },
  });
  for (const node of nodes) await core.createNamespacedPod({ namespace, body: pod(node) });

  async function pods() {
    const { items } = await core.listNamespacedPod({ namespace, labelSelector: `app.kubernetes.io/name=${name}` });
    return new Map(
      items.flatMap((item) =>
        item.spec?.nodeName ? [[item.spec.nodeName, installerPod(item, undefined)] as const] : [],
      ),
    );
  }
  return {
    async observe() {
      const [fleet, own] = await Promise.all([observeFleet(kubeconfig, namespace, group), pods()]);
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
