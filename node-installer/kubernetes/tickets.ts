import { installerName, ownKey, ticketNames } from "../../runtime/names.ts";
import { printable } from "../../runtime/printable.ts";
import { type Api, ApiError, isStatus } from "./api.ts";
import { type NodeObject, readOwnNode } from "./node.ts";
import { grown, jittered, retryAfterOf } from "./patience.ts";
import { carriesNoWorkload } from "./pods.ts";
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
  /**
   * Records on the ticket why its holder keeps it. A node that went without one takes one for that, if one is free: so its
   * failure stops the others as well.
   */
  annotate(reason: string): Promise<void>;
  /** Went without a ticket and has not committed. */
  owes(): boolean;
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
  /** Key of the taint with which nodes join. */
  startupTaint?: string | undefined;
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
 *
 * Turns are there for workloads, so a new node takes none. What makes a node new is decided by what somebody else
 * guarantees for as long as the change takes: its startup taint keeps pods off until this installer lifts it, and nothing
 * but pods of DaemonSets and static ones is bound to it. A pod that tolerates everything, or is bound past the scheduler, may
 * still come, and lives through a restart of containerd as it would with a ticket. Lest a bad runtime breaks hundreds of new
 * nodes at once, they go without a ticket only while a node of the group is Ready and none keeps a ticket for a failure.
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
  /** Once it is not, it does not become so while it waits. */
  let isNew: boolean | undefined;
  let owes = false;

  /**
   * One request, however many tickets there are.
   *
   * @param fresh false: from the API server's memory, which costs it next to nothing and may be a moment old
   */
  const readAll = async (fresh = true): Promise<Lease[]> => {
    const { items } = await api.get<{ items: Lease[] }>(fresh ? collection : `${collection}?resourceVersion=0`);
    return items.filter(({ metadata }) => names.includes(metadata.name));
  };
  /** Of the group's nodes; an installer is ready when its node's spec is served. undefined if it cannot be told. */
  const fleet = async (): Promise<{ waiting: number; ready: number } | undefined> => {
    const path = `/apis/apps/v1/namespaces/${options.namespace}/daemonsets/${installerName(options.group)}`;
    try {
      const { status } = await api.get<DaemonSet>(`${path}?resourceVersion=0`);
      const ready = status?.numberReady ?? 0;
      return { waiting: (status?.desiredNumberScheduled ?? 0) - ready, ready };
    } catch (error) {
      if (error instanceof ApiError) return undefined;
      throw error;
    }
  };
  const waitingNodes = async (): Promise<number | undefined> => (await fleet())?.waiting;
  const mine = (lease: Lease): boolean => lease.spec?.holderIdentity === nodeName;
  const readNode = async (): Promise<NodeObject> => {
    const node = await readOwnNode(api, nodeName);
    nodeUid = node.metadata.uid;
    return node;
  };
  const uidOfNode = async (): Promise<string> => nodeUid ?? (await readNode()).metadata.uid;

  /** One of PreferNoSchedule keeps nobody off. */
  const isTainted = ({ spec }: NodeObject): boolean =>
    spec?.taints?.some(({ key, effect }) => key === options.startupTaint && effect?.startsWith("No")) ?? false;
  /** A new node that has to wait after all asks the cheap questions each time, any other none. */
  const needsNone = async (leases: readonly Lease[]): Promise<boolean> => {
    if (options.startupTaint === undefined || leases.some(hasFailed)) return false;
    const node = isNew === undefined ? await readNode() : undefined;
    if (node !== undefined) isNew = isTainted(node);
    if (!isNew || ((await fleet())?.ready ?? 0) === 0) return false;
    isNew = isTainted(node ?? (await readNode())) && (await carriesNoWorkload(api, nodeName));
    return isNew;
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

  const hold = (lease: Lease | "none"): { held: true } => {
    own = lease;
    owes = lease === "none";
    isNew = undefined;
    pace = new QueuePace();
    return { held: true };
  };

  const acquire = async ({ mayGoWithout }: { mayGoWithout: boolean }): ReturnType<Tickets["acquire"]> => {
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
    if (mayGoWithout && (await needsNone(leases))) return hold("none");
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
  };

  return {
    acquire: () => acquire({ mayGoWithout: true }),
    async annotate(reason) {
      if (owes) await acquire({ mayGoWithout: false });
      for (const lease of (await readAll()).filter(mine)) {
        const annotations = { [ticketReasonAnnotation]: printable(reason, maxTicketReason) };
        await api.mergePatch(`${collection}/${lease.metadata.name}`, { metadata: { annotations } });
      }
    },
    owes: () => owes,
    async release() {
      owes = false;
      if (own === "none") return;
      for (const lease of own === undefined ? (await readAll()).filter(mine) : [own]) await giveBack(lease);
      own = "none";
    },
  };
}

/** Nodes that failed keep their tickets. */
const hasFailed = ({ metadata }: Lease): boolean => metadata.annotations?.[ticketReasonAnnotation] !== undefined;

/** Those that failed say nothing about how fast others become free. */
const heldSince = (leases: Lease[]): number[] =>
  leases
    .filter((lease) => !hasFailed(lease))
    .map(({ spec }) => Date.parse(spec?.acquireTime ?? ""))
    .filter(Number.isFinite);

/** Without an API server there is nobody to take turns with. */
export const grantedTickets: Tickets = {
  acquire: async () => ({ held: true }),
  annotate: async () => {},
  owes: () => false,
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
