import { setTimeout as delay } from "node:timers/promises";
import type { KubeConfig } from "@kubernetes/client-node";
import { installerName } from "../../node-installer/kubernetes/names.ts";
import { isNotFound } from "./client.ts";
import type { Fleet } from "./observe.ts";
import { mergePatch } from "./patch.ts";
import { uninstallerName } from "./uninstallers.ts";

/** No node has it. */
const nowhere = { "runtime.contrast.edgeless.systems/uninstalled": "true" };

/**
 * The pod of a dead node waits for a kubelet that will not answer, and the namespace waits for the pod when it is
 * deleted. So the DaemonSet, of no more use, leaves every node, and dead nodes' pods are removed without their kubelets.
 */
export async function removeDeadPods(
  kubeconfig: KubeConfig,
  namespace: string,
  fleet: Fleet,
  observe: () => Promise<Fleet>,
): Promise<void> {
  const dead = new Set(fleet.nodes.filter(({ ready }) => !ready).map(({ name }) => name));
  if (dead.size === 0) return;
  const name = installerName(fleet.group);
  const spec = { template: { spec: { nodeSelector: nowhere } } };
  await mergePatch(kubeconfig, { apiVersion: "apps/v1", kind: "DaemonSet", metadata: { namespace, name }, spec });
  // Until its controller knows, it would make new ones.
  for (let wait = 0; wait < 60 && !(await observe()).settled; wait += 1) await delay(500);

  const { CoreV1Api } = await import("@kubernetes/client-node");
  const core = kubeconfig.makeApiClient(CoreV1Api);
  const labelSelector = `app.kubernetes.io/name in (${name}, ${uninstallerName(fleet.group)})`;
  const pods = await core.listNamespacedPod({ namespace, labelSelector });
  for (const { metadata, spec: pod } of pods.items) {
    if (!dead.has(pod?.nodeName ?? "")) continue;
    await core
      .deleteNamespacedPod({ namespace, name: metadata?.name ?? "", gracePeriodSeconds: 0 })
      .catch((error: unknown) => {
        if (!isNotFound(error)) throw error;
      });
    console.log(`${pod?.nodeName}: its installer's pod is removed without it`);
  }
}
