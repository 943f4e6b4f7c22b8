import { ownKey, ticketNames } from "../../runtime/names.ts";
import { printable } from "../../runtime/printable.ts";
import { type Api, isStatus } from "./api.ts";
import { readOwnNode } from "./node.ts";

/**
 * At most `atOnce` nodes of a group are between edit and commit. A DaemonSet starts all its pods at once, and its
 * `maxUnavailable` bounds updates only, so the installers themselves take turns.
 */
export interface Tickets {
  /** A single attempt. A ticket that this node already holds, even from before a restart, counts as acquired. */
  acquire(): Promise<{ held: true } | { held: false; holders: string[] }>;
  /** Records on the ticket why its holder keeps it. */
  annotate(reason: string): Promise<void>;
  /** Called at commit. Does nothing if this node holds no ticket. */
  release(): Promise<void>;
}

export interface Lease {
  metadata: {
    name: string;
    uid: string;
    annotations?: Record<string, string>;
    ownerReferences?: { uid: string }[];
  };
  spec?: { holderIdentity?: string; acquireTime?: string };
}

/** Lease annotation with the sentence of a node that failed and therefore keeps its ticket. */
export const ticketReasonAnnotation = ownKey("reason");
/** Characters. */
export const maxTicketReason = 1024;

/**
 * A ticket is a Lease that exists exactly as long as somebody holds it: creating it decides a race, deleting it gives it
 * back, and the cluster's garbage collector frees it when its owner, the Node, is deleted. No installer ever has
 * to judge whether another node is gone, so none needs the right to take another's ticket.
 *
 * Admission sees one object at a time, so it cannot keep a node from holding several. An installer never does, and gives
 * back what it has too much; of one that would not, the others say how many it holds, and a rollout takes them away.
 */
export function leaseTickets(
  api: Api,
  options: { namespace: string; group: string; atOnce: number; nodeName: string; now: () => Date },
): Tickets {
  const { nodeName } = options;
  const collection = `/apis/coordination.k8s.io/v1/namespaces/${options.namespace}/leases`;
  const names = ticketNames(options.group, options.atOnce);

  const read = async (name: string): Promise<Lease | undefined> => {
    try {
      return await api.get<Lease>(`${collection}/${name}`);
    } catch (error) {
      if (isStatus(error, 404)) return undefined;
      throw error;
    }
  };
  const readAll = () => Promise.all(names.map(read));
  const mine = (lease: Lease | undefined): lease is Lease => lease?.spec?.holderIdentity === nodeName;

  // True once known, so that a release costs no request. Unknown at the start, because tickets outlive pods.
  let holdsNone = false;

  const take = async (name: string, nodeUid: string): Promise<boolean> => {
    try {
      await api.create(collection, {
        apiVersion: "coordination.k8s.io/v1",
        kind: "Lease",
        metadata: {
          name,
          namespace: options.namespace,
          ownerReferences: [{ apiVersion: "v1", kind: "Node", name: nodeName, uid: nodeUid }],
        },
        // The API's MicroTime wants six digits.
        spec: { holderIdentity: nodeName, acquireTime: options.now().toISOString().replace("Z", "000Z") },
      });
      return true;
    } catch (error) {
      if (isStatus(error, 409)) return false;
      throw error;
    }
  };

  const giveBack = async ({ metadata }: Lease): Promise<void> => {
    try {
      await api.delete(`${collection}/${metadata.name}`, { uid: metadata.uid });
    } catch (error) {
      // Already deleted, or another object by now: the collector was quicker, and somebody else may hold it.
      if (!isStatus(error, 404, 409)) throw error;
    }
  };

  return {
    async acquire() {
      holdsNone = false;
      const [node, leases] = await Promise.all([readOwnNode(api, nodeName), readAll()]);
      const { uid } = node.metadata;
      // A former node of the same name had another uid: its ticket is about to be collected, so it is not ours.
      const ours = (lease: Lease) => lease.metadata.ownerReferences?.some((owner) => owner.uid === uid) === true;
      const [held, ...tooMany] = leases.filter((lease) => mine(lease) && ours(lease)).filter(mine);
      for (const lease of tooMany) await giveBack(lease);
      if (held !== undefined) return { held: true };
      for (const [index, name] of names.entries()) {
        if (leases[index] === undefined && (await take(name, uid))) return { held: true };
      }
      return { held: false, holders: holdersOf(await readAll()) };
    },
    async annotate(reason) {
      for (const lease of (await readAll()).filter(mine)) {
        const annotations = { [ticketReasonAnnotation]: printable(reason, maxTicketReason) };
        await api.mergePatch(`${collection}/${lease.metadata.name}`, { metadata: { annotations } });
      }
    },
    async release() {
      if (holdsNone) return;
      for (const lease of (await readAll()).filter(mine)) await giveBack(lease);
      holdsNone = true;
    },
  };
}

/** Each holder once; one that holds several is named as such. */
function holdersOf(leases: (Lease | undefined)[]): string[] {
  const counts = new Map<string, number>();
  for (const holder of leases.flatMap((lease) => lease?.spec?.holderIdentity ?? []))
    counts.set(holder, (counts.get(holder) ?? 0) + 1);
  return [...counts].map(([holder, count]) =>
    count === 1 ? holder : `${holder} (which holds ${count} tickets, although a node needs one)`,
  );
}

/** Without an API server there is nobody to take turns with. */
export const grantedTickets: Tickets = {
  acquire: async () => ({ held: true }),
  annotate: async () => {},
  release: async () => {},
};

/**
 * Waits until this node holds a ticket. `onWait` is told who holds them whenever that changes, or why the API server
 * could not be asked: without an answer there is no ticket.
 */
export async function waitForTicket(
  tickets: Tickets,
  options: { delay: (ms: number) => Promise<void>; onWait: (waitingFor: string) => void },
): Promise<void> {
  let said = "";
  for (;;) {
    let waitingFor: string;
    try {
      const answer = await tickets.acquire();
      if (answer.held) return;
      waitingFor =
        answer.holders.length > 0 ? answer.holders.toSorted().join(", ") : "a ticket that was just given back";
    } catch (error) {
      waitingFor = `the API server: ${error instanceof Error ? error.message : String(error)}`;
    }
    if (waitingFor !== said) options.onWait(waitingFor);
    said = waitingFor;
    // Spread out, so that a thousand waiting nodes do not ask in step.
    await options.delay(2_000 + Math.random() * 3_000);
  }
}
