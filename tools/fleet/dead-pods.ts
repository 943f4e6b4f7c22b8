import { setTimeout as delay } from "node:timers/promises";
import type { V1Pod } from "@kubernetes/client-node";
import { installerName, ownKey } from "../../runtime/names.ts";
import { listed } from "../../runtime/printable.ts";
import { each, type FleetApi } from "./api.ts";
import { nameOf } from "./name-of.ts";
import type { Fleet } from "./observe.ts";
import { uninstallerName } from "./uninstallers.ts";

/** A selector that matches no node. */
const nowhere = { [ownKey("uninstalled")]: "true" };

/**
 * A dead node's pod waits for a kubelet that will not answer, and the deletion of the namespace waits for the pod. So the
 * DaemonSet, which is no longer needed, is taken off every node, and dead nodes' pods are removed without their kubelets.
 */
export async function removeDeadPods(
  api: FleetApi,
  namespace: string,
  fleet: Fleet,
  observe: () => Promise<Fleet>,
): Promise<void> {
  const dead = new Set(fleet.nodes.filter(({ ready }) => !ready).map(({ name }) => name));
  if (dead.size === 0) return;
  const name = installerName(fleet.group);
  const spec = { template: { spec: { nodeSelector: nowhere } } };
  await api.mergePatch(`/apis/apps/v1/namespaces/${namespace}/daemonsets/${name}`, { spec });
  // Until the controller notices the change, it would create new pods.
  for (let wait = 0; wait < 60 && !(await observe()).settled; wait += 1) await delay(500);

  const collection = `/api/v1/namespaces/${namespace}/pods`;
  const labelSelector = `app.kubernetes.io/name in (${name}, ${uninstallerName(fleet.group)})`;
  const pods = await api.list(collection, { labelSelector }, (pod: V1Pod) => {
    const node = pod.spec?.nodeName;
    return node !== undefined && dead.has(node) ? [{ node, pod: nameOf(pod) }] : [];
  });
  await each(pods, ({ pod }) => api.remove(`${collection}/${pod}`, { gracePeriodSeconds: 0 }));
  if (pods.length === 0) return;
  const nodes = pods.map(({ node }) => node).toSorted();
  console.error(`${listed(nodes)}: removed the installer's pod without waiting for the node`);
}
