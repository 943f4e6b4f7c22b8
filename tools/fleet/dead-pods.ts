import { setTimeout as delay } from "node:timers/promises";
import type { KubeConfig } from "@kubernetes/client-node";
import { installerName, ownKey } from "../../runtime/names.ts";
import { isNotFound } from "./client.ts";
import { nameOf } from "./name-of.ts";
import type { Fleet } from "./observe.ts";
import { mergePatch } from "./patch.ts";
import { uninstallerName } from "./uninstallers.ts";

/** A selector that matches no node. */
const nowhere = { [ownKey("uninstalled")]: "true" };

/**
 * A dead node's pod waits for a kubelet that will not answer, and the deletion of the namespace waits for the pod. So the
 * DaemonSet, which is no longer needed, is taken off every node, and dead nodes' pods are removed without their kubelets.
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
  // Until the controller notices the change, it would create new pods.
  for (let wait = 0; wait < 60 && !(await observe()).settled; wait += 1) await delay(500);

  const { CoreV1Api } = await import("@kubernetes/client-node");
  const core = kubeconfig.makeApiClient(CoreV1Api);
  const labelSelector = `app.kubernetes.io/name in (${name}, ${uninstallerName(fleet.group)})`;
  const pods = await core.listNamespacedPod({ namespace, labelSelector });
  for (const pod of pods.items) {
    const nodeName = pod.spec?.nodeName;
    if (nodeName === undefined || !dead.has(nodeName)) continue;
    await core.deleteNamespacedPod({ namespace, name: nameOf(pod), gracePeriodSeconds: 0 }).catch((error: unknown) => {
      if (!isNotFound(error)) throw error;
    });
    console.error(`${nodeName}: removed its installer's pod without waiting for the node`);
  }
}
