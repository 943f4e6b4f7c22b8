import { installerName, ownKey, ticketNames } from "../../runtime/names.ts";
import { printable } from "../../runtime/printable.ts";
import { type Api, ApiError, isStatus } from "./api.ts";
import { readOwnNode } from "./node.ts";
import { grown, jittered, retryAfterOf } from "./patience.ts";
import { QueuePace } from "./queue.ts";

/**
 * At most `atOnce` nodes of a group are between edit and commit. A DaemonSet starts all its pods at once, and its
 * `maxUnavailable` bounds updates only, so the installers themselves take turns.
 */
export interface Tickets {
  /**
   * A single attempt. A ticket that this node already holds, even from before a restart, counts as acquired. Without one,
   * the answer says when to ask again, in milliseconds.
   */
  acquire(): Promise<{ held: true } | { held: false; askAgainMs: number }>;
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

interface DaemonSet {
  status?: { desiredNumberScheduled?: number; numberReady?: number };
}

/** Lease annotation with the sentence of a node that failed and therefore keeps its ticket. */
export const ticketReasonAnnotation = ownKey("reason");
/** Characters of the reason. */
export const maxTicketReason = 1024;

/** Of the free tickets that a node saw, so many it tries to take before it looks again: others are after them, too. */
const triesPerLook = 3;

export interface TicketOptions {
  namespace: string;
  group: string;
  atOnce: number;
  nodeName: string;
  now: () => Date;
  /** From 0 to below 1. Default: `Math.random`. */
  random?: () => number;
}

/**
 * A ticket is a Lease that exists exactly as long as somebody holds it: creating it decides a race, deleting it gives it
 * back, and the cluster's garbage collector frees it when its owner, the Node, is deleted. No installer ever has
 * to judge whether another node is gone, so none needs the right to take another's ticket.
 *
 * Admission sees one object at a time, so it cannot keep a node from holding several. An installer never does, and gives
 * back what it has too much; of one that would not, `status` says how many it holds, and a rollout takes them away.
 */
export function leaseTickets(api: Api, options: TicketOptions): Tickets {
  const { nodeName, now, random = Math.random } = options;
  const collection = `/apis/coordination.k8s.io/v1/namespaces/${options.namespace}/leases`;
  const names = ticketNames(options.group, options.atOnce);

  /** What this process knows about its own ticket. Nothing at the start, because tickets outlive pods. */
  let own: Lease | "none" | undefined;
  /** A Node object that is made anew ends this pod, and with it the right to do anything in its name. */
  let nodeUid: string | undefined;
  let pace = new QueuePace();

  /**
   * One request, however many tickets there are.
   *
   * @param fresh false: from the API server's memory, which costs it next to nothing and may be a moment old
   */
  const readAll = async (fresh = true): Promise<Lease[]> => {
    const { items } = await api.get<{ items: Lease[] }>(fresh ? collection : `${collection}?resourceVersion=0`);
    return items.filter(({ metadata }) => names.includes(metadata.name));
  };
  /** The nodes whose installers are not ready, which they are when their spec is served; undefined if it cannot be told. */
  const waitingNodes = async (): Promise<number | undefined> => {
    const path = `/apis/apps/v1/namespaces/${options.namespace}/daemonsets/${installerName(options.group)}`;
    try {
      const { status } = await api.get<DaemonSet>(`${path}?resourceVersion=0`);
      return (status?.desiredNumberScheduled ?? 0) - (status?.numberReady ?? 0);
    } catch (error) {
      if (error instanceof ApiError) return undefined;
      throw error;
    }
  };
  const mine = (lease: Lease): boolean => lease.spec?.holderIdentity === nodeName;
  const uidOfNode = async (): Promise<string> => {
    nodeUid ??= (await readOwnNode(api, nodeName)).metadata.uid;
    return nodeUid;
  };

  const take = async (name: string): Promise<Lease | undefined> => {
    const uid = await uidOfNode();
    try {
      return await api.create<Lease>(collection, {
        apiVersion: "coordination.k8s.io/v1",
        kind: "Lease",
        metadata: {
          name,
          namespace: options.namespace,
          ownerReferences: [{ apiVersion: "v1", kind: "Node", name: nodeName, uid }],
        },
        // The API's MicroTime wants six digits.
        spec: { holderIdentity: nodeName, acquireTime: now().toISOString().replace("Z", "000Z") },
      });
    } catch (error) {
      if (isStatus(error, 409)) return undefined;
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

  const hold = (lease: Lease): { held: true } => {
    own = lease;
    pace = new QueuePace();
    return { held: true };
  };

  return {
    async acquire() {
      const leases = await readAll(own !== "none");
      const claimed = leases.filter(mine);
      if (claimed.length > 0) {
        const uid = await uidOfNode();
        // A former node of the same name had another uid: its ticket is about to be collected, so it is not ours.
        const [kept, ...tooMany] = claimed.filter(({ metadata }) =>
          metadata.ownerReferences?.some((owner) => owner.uid === uid),
        );
        for (const lease of tooMany) await giveBack(lease);
        if (kept !== undefined) return hold(kept);
      }
      const taken = new Set(leases.map(({ metadata }) => metadata.name));
      const free = names.filter((name) => !taken.has(name));
      // An attempt whose answer is lost may have succeeded.
      own = undefined;
      for (let tries = 0; tries < triesPerLook && free.length > 0; tries += 1) {
        const [name] = free.splice(Math.floor(free.length * random()), 1);
        const lease = name === undefined ? undefined : await take(name);
        if (lease !== undefined) return hold(lease);
      }
      own = "none";
      const time = now().getTime();
      const heldMs = heldSince(leases).map((since) => time - since);
      return { held: false, askAgainMs: await pace.next(time, { heldMs, atOnce: options.atOnce }, waitingNodes) };
    },
    async annotate(reason) {
      for (const lease of (await readAll()).filter(mine)) {
        const annotations = { [ticketReasonAnnotation]: printable(reason, maxTicketReason) };
        await api.mergePatch(`${collection}/${lease.metadata.name}`, { metadata: { annotations } });
      }
    },
    async release() {
      if (own === "none") return;
      for (const lease of own === undefined ? (await readAll()).filter(mine) : [own]) await giveBack(lease);
      own = "none";
    },
  };
}

/** Nodes that failed keep their tickets, and say nothing about how fast others become free. */
const heldSince = (leases: Lease[]): number[] =>
  leases
    .filter(({ metadata }) => metadata.annotations?.[ticketReasonAnnotation] === undefined)
    .map(({ spec }) => Date.parse(spec?.acquireTime ?? ""))
    .filter(Number.isFinite);

/** Without an API server there is nobody to take turns with. */
export const grantedTickets: Tickets = {
  acquire: async () => ({ held: true }),
  annotate: async () => {},
  release: async () => {},
};

/** What a node waits for: a ticket, or an answer of the API server, in its words. */
export type WaitingFor = { what: "ticket" } | { what: "api-server"; reason: string };

/** Between attempts at an API server that does not answer: the first and the longest. */
const outagePausesMs = [2_000, 60_000] as const;

/**
 * Waits until this node holds a ticket. `onWait` is told what for, whenever that becomes another thing: without an answer
 * there is no ticket.
 */
export async function waitForTicket(
  tickets: Tickets,
  options: {
    delay: (ms: number) => Promise<void>;
    onWait: (waitingFor: WaitingFor) => void;
    random?: () => number;
  },
): Promise<void> {
  const { random = Math.random } = options;
  let failures = 0;
  let said: WaitingFor["what"] | undefined;
  for (;;) {
    let waitingFor: WaitingFor = { what: "ticket" };
    let pauseMs: number;
    try {
      const answer = await tickets.acquire();
      if (answer.held) return;
      pauseMs = answer.askAgainMs;
      failures = 0;
    } catch (error) {
      waitingFor = { what: "api-server", reason: error instanceof Error ? error.message : String(error) };
      failures += 1;
      pauseMs = Math.max(grown(failures, ...outagePausesMs), retryAfterOf(error));
    }
    if (waitingFor.what !== said) options.onWait(waitingFor);
    said = waitingFor.what;
    await options.delay(jittered(pauseMs, random));
  }
}
