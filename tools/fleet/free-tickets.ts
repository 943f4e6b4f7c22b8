import type { KubeConfig } from "@kubernetes/client-node";
import { isNotFound } from "./client.ts";
import type { Fleet } from "./observe.ts";

/**
 * A node that died holding a ticket never returns it, and the other nodes would wait for it. Naming the node as dead says
 * that no installer works there any more; if the node comes back, it asks for a ticket like any other.
 */
export async function freeTickets(
  kubeconfig: KubeConfig,
  namespace: string,
  fleet: Fleet,
  skipNodes: ReadonlySet<string>,
): Promise<void> {
  const { CoordinationV1Api } = await import("@kubernetes/client-node");
  const leases = kubeconfig.makeApiClient(CoordinationV1Api);
  const ready = new Set(fleet.nodes.filter((node) => node.ready).map(({ name }) => name));
  for (const { name, uid, holder } of fleet.tickets) {
    if (!skipNodes.has(holder) || ready.has(holder)) continue;
    try {
      await leases.deleteNamespacedLease({ namespace, name, body: { preconditions: { uid } } });
      console.log(`${holder}: its ticket is freed, because it is named as a node not to wait for`);
    } catch (error) {
      if (!isNotFound(error)) throw error;
    }
  }
}
