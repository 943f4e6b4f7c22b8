import { isDeepStrictEqual } from "node:util";
import { Refusal } from "../../runtime/refusal.ts";
import type { Located } from "../containerd/locate.ts";
import { readIfThere } from "../host/files.ts";
import type { Host } from "../host/host.ts";
import { type Journal, journalPath, OtherGroup, parseJournal } from "../host/journal.ts";
import { restartsOf } from "../host/restart-budget.ts";
import { ApiError } from "../kubernetes/api.ts";
import type { Cluster } from "../kubernetes/connect.ts";
import { jittered, retryAfterOf } from "../kubernetes/patience.ts";
import { reportServing } from "../kubernetes/reporter.ts";
import { isReady, type NodeStatus } from "../kubernetes/status.ts";
import { Backoff, RepairPace, rollbackBackoff } from "./backoff.ts";
import { converge, type Outcome, recoverFirst } from "./converge.ts";
import type { Environment } from "./environment.ts";
import { labelledNow } from "./labelled.ts";
import { type Log, sentence } from "./log.ts";
import { mayBeDrift } from "./plan.ts";
import type { ReadSpec } from "./read-spec.ts";
import { RollbackFailed, RolledBack } from "./rolled-back.ts";

/** How often the spec and containerd's file are checked, and how long both must be unchanged before they are acted on. */
const tickMs = 2_000;
/** How often the whole plan is made again, which also detects drift of payload files and of the running daemon. */
const lookMs = 60_000;
/**
 * While pods use what should be removed. Somebody may be waiting for the removal, but the API server is asked each time:
 * the first pause, and the longest as long as the same pods stay.
 */
const blockedLooksMs = [5_000, 60_000] as const;
/** After a failure: a look only reads the node, and what a person repaired should be noticed soon. */
const failedLookMs = 15_000;
/** While the API server does not answer, or shows that the installer is not confined: the first pause and the longest. */
const outageLooksMs = [10_000, 120_000] as const;
/** After a look that failed on a node that was ready: one slow answer is no failure. */
const doubtMs = 5_000;

export interface WatchParts {
  host: Host;
  log: Log;
  cluster: Cluster;
  /** Aborted: the loop ends after the current change. */
  signal: AbortSignal;
  readSpec: () => Promise<ReadSpec>;
  environment: (spec: ReadSpec) => Environment;
  /** Returns at once if the signal is aborted. */
  sleep: (ms: number) => Promise<void>;
}

/** Converges, then stays: follows the spec, repairs drift, and only reads as long as nothing changes. */
export async function watchLoop(parts: WatchParts): Promise<void> {
  const look = looking(parts);
  while (!parts.signal.aborted) {
    const waitMs = await look();
    await quiet(parts, waitMs);
  }
  parts.log.info("stopped");
}

/** Returns a function that looks at the node, does what that asks for, and tells how long to wait for the next look. */
function looking(parts: WatchParts): () => Promise<number> {
  const { host, log, cluster, signal } = parts;
  const rollbacks = rollbackBackoff();
  const repairs = new RepairPace();
  /** The spec that the node served at the last look: what has changed since is drift. */
  let convergedSpec: string | undefined;
  const labels = labelling(cluster);
  const blocked = new Backoff(...blockedLooksMs);
  const outage = new Backoff(...outageLooksMs);
  let blockedBy: string[] = [];
  /** The last look failed, and the node was ready before. */
  let doubted = false;
  let isFirst = true;

  const follow = async (environment: Environment, retry: string | undefined): Promise<number> => {
    const { specHash } = environment;
    cluster.metrics.advisories = environment.spec.advisories ?? {};
    const isDrift = convergedSpec === specHash;
    const mayRestart = !isDrift || repairs.allows(host.uptime());
    const status = async (outcome: Outcome) =>
      statusOf(outcome, specHash, retry, startsOf(outcome, environment) + (await repairsOf(environment)));
    const outcome = await converge(environment, {
      isDrift,
      mayRestart,
      statusOf: status,
      ...(retry !== undefined && { retryToken: retry }),
    });
    if (outcome.changed && isDrift && mayBeDrift(outcome)) {
      cluster.metrics.repairs += 1;
      log.warn("drift-repaired", { nextRepairInSeconds: repairs.repaired(host.uptime()) / 1000 });
    } else {
      repairs.quiet(host.uptime());
    }
    convergedSpec = specHash;
    rollbacks.reset();
    outage.reset();
    doubted = false;
    labels.known();
    cluster.reporter.report(await status(outcome));
    const users = outcome.blocked.flatMap(({ pods }) => pods);
    if (!isDeepStrictEqual(users, blockedBy)) blocked.reset();
    blockedBy = users;
    return users.length > 0 ? jittered(blocked.next(), Math.random) : lookMs;
  };

  const pauseAfter = (error: unknown): number => {
    if (error instanceof RollbackFailed) return rollbacks.next();
    const isClusters = error instanceof ApiError || (error instanceof Refusal && error.code === "unconfined");
    if (!isClusters) return failedLookMs;
    return Math.max(jittered(outage.next(), Math.random), retryAfterOf(error));
  };

  return async () => {
    let specHash = "";
    try {
      const spec = await parts.readSpec();
      specHash = spec.specHash;
      const environment = labels.watching(parts.environment(spec));
      // Asked before and awaited after: recovery does not wait for the API server, and a node whose recovery is refused
      // answers whoever asked for another attempt.
      const token = cluster.reporter.retryToken();
      const answered = token.catch(() => undefined);
      try {
        await recoverFirst(environment);
        // Labels outlive a disk that was imaged anew, and pods follow them: so before anything that takes time.
        if (isFirst) await labels.renew(environment);
        isFirst = false;
        const retry = await token;
        await cluster.confinement.require();
        return await follow(environment, retry);
      } catch (error) {
        if (signal.aborted) return 0;
        if (error instanceof OtherGroup && spec.spec.runtimes.length === 0) {
          // Of this group nothing shall be here, and nothing is.
          const reason = "No runtime is listed, and the node belongs to another group.";
          const retry = await answered;
          const nothing = { handlers: [], pods: [], specHash, ...(retry !== undefined && { retry }) };
          cluster.reporter.report({ state: "ready", code: "ready", reason, ...nothing });
          return lookMs;
        }
        const waitMs = pauseAfter(error);
        await labels.renew(environment, error);
        const said = cluster.reporter.current();
        const wasReady = said !== undefined && isReady(said) && said.specHash === specHash;
        if (wasReady && !doubted && !isOutcome(error)) {
          doubted = true;
          log.warn("look-failed", { code: codeOf(error), reason: sentence(error) });
          return doubtMs;
        }
        await reportFailure(parts, environment, error, await answered);
        return waitMs;
      }
    } catch (error) {
      // The spec itself cannot be read: the node stays as it is.
      reportServing(cluster.reporter, { state: "failed", code: codeOf(error), reason: sentence(error), specHash });
      return failedLookMs;
    }
  };
}

/** Of a change, not of a look. */
const isOutcome = (error: unknown) => error instanceof RolledBack || error instanceof RollbackFailed;

/** The labels before the first look, and after looks that failed: as truthful, and not taken away by one slow answer. */
function labelling({ reporter }: Cluster) {
  let located: Located | undefined;
  let isUnknown = false;
  return {
    known() {
      isUnknown = false;
    },
    /** Remembers where containerd was found, for when it cannot be found because a program of the host is slow. */
    watching(environment: Environment): Environment {
      const { daemon } = environment;
      const locate = async (edited?: string) => {
        located = await daemon.locate(edited);
        return located;
      };
      return { ...environment, daemon: { ...daemon, locate } };
    },
    async renew(environment: Environment, error?: unknown): Promise<void> {
      // The labels of another group's node belong to that group.
      if (error instanceof ApiError || error instanceof OtherGroup) return;
      const handlers = await labelledNow(environment, located).catch(() => undefined);
      if (handlers !== undefined || isUnknown) await reporter.setServed(handlers ?? []).catch(() => undefined);
      isUnknown = handlers === undefined;
    },
  };
}

/** @param retry the token that this attempt acted on; a later one is still pending */
async function reportFailure(
  { log, cluster }: WatchParts,
  environment: Environment,
  error: unknown,
  retry: string | undefined,
): Promise<void> {
  const { specHash } = environment;
  if (error instanceof ApiError) {
    const reason = `Waiting for the API server: ${error.message}`;
    reportServing(cluster.reporter, { state: "waiting", code: "api-unavailable", reason, specHash });
    return;
  }
  const [code, reason] = [codeOf(error), sentence(error)];
  const said = cluster.reporter.current();
  if (said?.state !== "failed" || said.code !== code || said.reason !== reason) log.error("failed", { code, reason });
  // One that found no ticket free to stop the others with tries again with each look.
  if (isOutcome(error) || cluster.tickets.owes()) {
    await cluster.tickets.annotate(reason).catch(() => undefined);
  }
  const failed = { state: "failed", code, reason, specHash, ...(retry !== undefined && { retry }) } as const;
  // What another group's node serves is that group's.
  if (error instanceof OtherGroup) cluster.reporter.report({ ...failed, handlers: [], pods: [] });
  else reportServing(cluster.reporter, failed);
}

const codeOf = (error: unknown): string => {
  const known = error instanceof Refusal || error instanceof RolledBack || error instanceof RollbackFailed;
  return known ? error.code : error instanceof ApiError ? "api-unavailable" : "unexpected";
};

/** A start that takes nearly as long as it may is seen here before it takes longer. */
function startsOf({ handlers }: Outcome, { cluster }: Environment): string {
  const { sandboxSeconds } = cluster.metrics;
  return handlers
    .flatMap((handler) => (sandboxSeconds[handler] === undefined ? [] : [[handler, sandboxSeconds[handler]]]))
    .map(([handler, seconds]) => ` A sandbox of ${handler} started in ${seconds} s.`)
    .join("");
}

/** A node that is repaired again and again serves, but somebody should know. */
async function repairsOf({ host }: Environment): Promise<string> {
  const repairs = (await restartsOf(host)).filter((restart) => restart.for === "repair");
  const last = repairs.at(-1);
  if (last === undefined) return "";
  const times = repairs.length === 1 ? "once" : `${repairs.length} times`;
  return ` Another program changed containerd's configuration: it was repaired ${times} in the last 24 hours, last at ${new Date(last.at).toISOString()}.`;
}

function statusOf(
  { handlers, blocked }: Outcome,
  specHash: string,
  retry: string | undefined,
  remarks: string,
): NodeStatus {
  const token = retry === undefined ? {} : { retry };
  const pods = blocked.flatMap((entry) => entry.pods);
  if (blocked.length === 0) {
    const reason =
      handlers.length === 0 ? "No runtime is listed, and none is installed." : `Serves ${handlers.join(", ")}.`;
    return { state: "ready", code: "ready", reason: `${reason}${remarks}`, handlers, pods, specHash, ...token };
  }
  const reason = `Serves the spec; still used, so not removed yet: ${blocked.map(({ handler }) => handler).join(", ")}.`;
  return { state: "blocked", code: "runtime-in-use", reason, handlers, pods, specHash, ...token };
}

/** Waits; returns early if spec, containerd's file or whose the node is changed and have then stayed the same for a tick. */
async function quiet({ host, signal, readSpec, sleep }: WatchParts, waitMs: number): Promise<void> {
  if (signal.aborted) return;
  const fingerprint = async () => {
    const spec = await readSpec().then(({ specHash }) => specHash, sentence);
    const { group, file } = (await journalNow(host)) ?? {};
    const stat = file === undefined ? undefined : await host.stat(file.path).catch(() => undefined);
    return [spec, group, stat?.ino, stat?.mtimeNs, stat?.size].join(" ");
  };
  const began = await fingerprint();
  let last = began;
  for (let waited = 0; waited < waitMs && !signal.aborted; waited += tickMs) {
    await sleep(Math.min(tickMs, waitMs - waited));
    const now = await fingerprint();
    if (now !== began && now === last) return;
    last = now;
  }
}

async function journalNow(host: Host): Promise<Journal | undefined> {
  try {
    const bytes = await readIfThere(host, journalPath);
    return bytes && parseJournal(bytes.toString());
  } catch {
    return undefined;
  }
}
