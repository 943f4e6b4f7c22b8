import { type Api, ApiError } from "../../node-installer/kubernetes/api.ts";
import { memoryApi } from "./memory-api.ts";
import type { VirtualClock } from "./virtual-clock.ts";

export interface CountingOptions {
  clock: VirtualClock;
  /** Milliseconds that each request takes. */
  latencyMs: number;
  /** Milliseconds by which an answer to `resourceVersion=0` may be old. */
  staleMs: number;
  /** From when to when nobody answers. */
  away?: readonly [from: number, to: number];
  /** More in a second are told to come again after `Retry-After: 1`. */
  mostPerSecond?: number;
}

export interface Counts {
  requests: number;
  /** Changes that reach etcd. */
  writes: number;
  /** Of these, changes of the Node object. */
  nodeWrites: number;
  /** Answered 429, or not at all. */
  refused: number;
  /** By verb and kind: "GET leases". */
  byKind: Record<string, number>;
}

const zero = (): Counts => ({ requests: 0, writes: 0, nodeWrites: 0, refused: 0, byKind: {} });

/** The API server of a fleet in memory, with a clock of its own, that counts what it is asked. */
export function countingApi({ clock, latencyMs, staleMs, away, mostPerSecond = Infinity }: CountingOptions) {
  const memory = memoryApi();
  /** Apart from the thousands of others, because lists look at everything there is. */
  const tickets = memoryApi();
  const total = zero();
  const ofNode = new Map<string, Counts>();
  const perSecond = new Map<number, number>();
  let leases: { at: number; list: unknown } | undefined;

  const count = (nodeName: string, change: (counts: Counts) => void) => {
    const own = ofNode.get(nodeName) ?? zero();
    ofNode.set(nodeName, own);
    change(own);
    change(total);
  };

  /** What waiting nodes repeat, and real API servers answer from their memory. */
  const remembered = (path: string): unknown => {
    if (leases === undefined || clock.time - leases.at > staleMs)
      leases = { at: clock.time, list: JSON.parse(tickets.answer("GET", path, {}).body) };
    return leases.list;
  };

  const client = (nodeName: string): Api => {
    const call = async <T>(method: string, path: string, body: object = {}): Promise<T> => {
      const second = Math.floor(clock.time / 1000);
      const inSecond = (perSecond.get(second) ?? 0) + 1;
      perSecond.set(second, inSecond);
      const kind = `${method} ${/(leases|nodes|events|pods|daemonsets)/.exec(path)?.[1]}`;
      count(nodeName, (counts) => {
        counts.requests += 1;
        counts.byKind[kind] = (counts.byKind[kind] ?? 0) + 1;
      });
      const [from = Infinity, to = 0] = away ?? [];
      const isAway = clock.time >= from && clock.time < to;
      if (isAway || inSecond > mostPerSecond) {
        await clock.delay(latencyMs);
        count(nodeName, (counts) => {
          counts.refused += 1;
        });
        if (isAway) throw new ApiError(0, "Unreachable", `${method} ${path}: connect ECONNREFUSED`);
        throw new ApiError(429, "TooManyRequests", `${method} ${path}: 429`, { retryAfterMs: 1_000 });
      }
      await clock.delay(latencyMs / 2);
      const isRemembered = method === "GET" && path.endsWith("/leases?resourceVersion=0");
      const store = path.includes("/leases") ? tickets : memory;
      const { status, body: text } = isRemembered ? { status: 200, body: "" } : store.answer(method, path, { ...body });
      const parsed = isRemembered ? remembered(path) : JSON.parse(text);
      await clock.delay(latencyMs / 2);
      if (status >= 300) throw new ApiError(status, parsed.reason, `${method} ${path}: ${status} ${parsed.message}`);
      const isChange =
        method !== "GET" && !path.includes("dryRun") && (method !== "PATCH" || Object.keys(body).length > 0);
      if (isChange)
        count(nodeName, (counts) => {
          counts.writes += 1;
          if (path.includes("/nodes/")) counts.nodeWrites += 1;
        });
      return parsed;
    };
    return {
      get: (path) => call("GET", path),
      create: (path, object) => call("POST", path, object),
      mergePatch: (path, patch) => call("PATCH", path, patch),
      async delete(path, preconditions) {
        await call("DELETE", path, preconditions && { preconditions });
      },
    };
  };

  const enforce = (policies: readonly string[]) => {
    for (const name of policies) for (const { policies: inForce } of [memory, tickets]) inForce.add(name);
  };

  return { memory, enforce, client, total, ofNode, perSecond };
}
