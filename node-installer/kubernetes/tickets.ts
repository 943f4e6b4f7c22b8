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

  /** One request, however many tickets there are: waiting nodes repeat it. */
  const readAll = async (): Promise<Lease[]> => {
    const { items } = await api.get<{ items: Lease[] }>(collection);
    return items.filter(({ metadata }) => names.includes(metadata.name));
  };
  const mine = (lease: Lease): boolean => lease.spec?.holderIdentity === nodeName;

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
      const leases = await readAll();
      const taken = new Set(leases.map(({ metadata }) => metadata.name));
      const free = names.filter((name) => !taken.has(name));
      if (free.length === 0 && !leases.some(mine)) return { held: false, holders: holdersOf(leases) };
      const { uid } = (await readOwnNode(api, nodeName)).metadata;
      // A former node of the same name had another uid: its ticket is about to be collected, so it is not ours.
      const ours = (lease: Lease) => lease.metadata.ownerReferences?.some((owner) => owner.uid === uid) === true;
      const [held, ...tooMany] = leases.filter((lease) => mine(lease) && ours(lease));
      for (const lease of tooMany) await giveBack(lease);
      if (held !== undefined) return { held: true };
      for (const name of free) if (await take(name, uid)) return { held: true };
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
function holdersOf(leases: Lease[]): string[] {
  const counts = new Map<string, number>();
  for (const holder of leases.flatMap(({ spec }) => spec?.holderIdentity ?? []))
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
 * Between two looks for a free ticket. A node whose turn comes soon gets it soon; of a thousand nodes that wait for days
 * behind one that failed, each asks once a minute.
 */
const firstPauseMs = 2_000;
const longestPauseMs = 60_000;

/**
 * Waits until this node holds a ticket. `onWait` is told who holds them whenever that changes, or why the API server
 * could not be asked: without an answer there is no ticket.
 */
export async function waitForTicket(
  tickets: Tickets,
  options: { delay: (ms: number) => Promise<void>; onWait: (waitingFor: string) => void },
): Promise<void> {
  let said = "";
  for (let pauseMs = firstPauseMs; ; pauseMs = Math.min(1.5 * pauseMs, longestPauseMs)) {
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
    await options.delay(pauseMs * (0.5 + Math.random()));
  }
}
