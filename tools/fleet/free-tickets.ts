import type { KubeConfig } from "@kubernetes/client-node";
import { isNotFound } from "./client.ts";
import type { Fleet } from "./observe.ts";

/**
 * A node that died with a ticket never gives it back, and the others would wait for it. Who names it as dead says that
 * nobody works on it any more; should it return, it asks for a ticket like every other.
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
      console.log(`${holder}: its turn is over, for it is named as a node not to wait for`);
    } catch (error) {
      if (!isNotFound(error)) throw error;
    }
  }
}
