import { printable } from "../../runtime/printable.ts";
import type { FleetApi } from "./api.ts";
import type { Fleet } from "./observe.ts";

/**
 * A node that died holding a ticket never returns it, and the other nodes would wait for it. Naming the node as dead says
 * that no installer works there any more; if the node comes back, it asks for a ticket like any other. A node that holds
 * several, which no installer of ours does, keeps the first of them.
 */
export async function freeTickets(
  api: FleetApi,
  namespace: string,
  fleet: Fleet,
  skipNodes: ReadonlySet<string>,
): Promise<void> {
  const leases = `/apis/coordination.k8s.io/v1/namespaces/${namespace}/leases`;
  const ready = new Set(fleet.nodes.filter((node) => node.ready).map(({ name }) => name));
  const holders = new Set<string>();
  for (const { name, uid, holder } of fleet.tickets.toSorted((a, b) => (a.name < b.name ? -1 : 1))) {
    const isDead = skipNodes.has(holder) && !ready.has(holder);
    const isOneTooMany = holders.has(holder);
    holders.add(holder);
    if (!isDead && !isOneTooMany) continue;
    const why = isDead
      ? "it is named as a node not to wait for"
      : "it holds more than one, which no installer does: look at who uses that node's token";
    if (await api.remove(`${leases}/${name}`, { uid }))
      console.error(
        `${printable(holder, 253)}: ${isDead ? "its ticket" : `the ticket ${name}`} is freed, because ${why}`,
      );
  }
}
