import { Refusal } from "../../runtime/refusal.ts";
import { readIfThere } from "../host/files.ts";
import type { Host } from "../host/host.ts";
import { type Journal, journalPath } from "../host/journal.ts";
import { ApiError } from "../kubernetes/api.ts";
import type { Cluster } from "../kubernetes/connect.ts";
import type { NodeStatus } from "../kubernetes/status.ts";
import { converge, type Outcome, servedNow } from "./converge.ts";
import { type Log, sentence } from "./log.ts";
import type { Environment } from "./observe.ts";
import type { ReadSpec } from "./read-spec.ts";
import { RollbackFailed, RolledBack } from "./rollback.ts";

/** How often the spec and containerd's file are checked, and how long both must be unchanged before they are acted on. */
const tickMs = 2_000;
/** How often the whole plan is made again, which also detects drift of payload files and of the running daemon. */
const lookMs = 60_000;
/** While pods use what should be removed: somebody is waiting for the removal. */
const blockedLookMs = 5_000;
/** After a failure: a look only reads, and what a person repaired should be noticed soon. */
const failedLookMs = 15_000;
/** Between attempts at a rollback that failed, each of which restarts containerd; doubles. */
const firstBackoffMs = 60_000;
const maximumBackoffMs = 600_000;
/** Between repairs of drift that need a restart of containerd; doubles while the drift continues. */
const firstRepairMs = 60_000;
const maximumRepairMs = 1_800_000;

export interface WatchParts {
  host: Host;
  log: Log;
  cluster: Cluster;
  /** Aborted: the loop ends after the current change. */
  signal: AbortSignal;
  readSpec: () => Promise<ReadSpec>;
  environment: (spec: ReadSpec) => Promise<Environment>;
  /** Returns at once if the signal is aborted. */
  sleep: (ms: number) => Promise<void>;
}

/** Converges, then stays: follows the spec, repairs drift, and only reads as long as nothing changes. */
export async function watchLoop(parts: WatchParts): Promise<void> {
  const { host, log, cluster, signal } = parts;
  let backoffMs = firstBackoffMs;
  let repairMs = firstRepairMs;
  let nextRepair = 0;
  let convergedSpec: string | undefined;

  while (!signal.aborted) {
    let waitMs = lookMs;
    let specHash = "";
    let retry: string | undefined;
    try {
      const spec = await parts.readSpec();
      specHash = spec.specHash;
      const environment = await parts.environment(spec);
      try {
        const isDrift = convergedSpec === specHash;
        const mayRestart = !isDrift || host.uptime() >= nextRepair;
        retry = await cluster.reporter.retryToken();
        await cluster.confinement.require();
        const outcome = await converge(environment, { mayRestart, ...(retry !== undefined && { retryToken: retry }) });
        if (outcome.changed && isDrift && outcome.removed.length === 0) {
          cluster.metrics.repairs += 1;
          nextRepair = host.uptime() + repairMs;
          repairMs = Math.min(repairMs * 2, maximumRepairMs);
          log.warn("drift-repaired", { nextRepairInSeconds: repairMs / 1000 });
        } else if (host.uptime() > nextRepair + maximumRepairMs) {
          repairMs = firstRepairMs;
        }
        convergedSpec = specHash;
        backoffMs = firstBackoffMs;
        cluster.reporter.report(statusOf(outcome, specHash, retry));
        if (outcome.blocked.length > 0) waitMs = blockedLookMs;
      } catch (error) {
        if (signal.aborted) break;
        waitMs = failedLookMs;
        if (error instanceof RollbackFailed) {
          waitMs = backoffMs;
          backoffMs = Math.min(backoffMs * 2, maximumBackoffMs);
        }
        await fail(environment, error, retry);
      } finally {
        environment.daemon.close();
      }
    } catch (error) {
      // The spec itself cannot be read: the node stays as it is.
      waitMs = failedLookMs;
      report("failed", codeOf(error), sentence(error), specHash);
    }
    await quiet(parts, waitMs);
  }
  log.info("stopped");

  /** @param retry the token that this attempt acted on; a later one is still pending */
  async function fail(environment: Environment, error: unknown, retry: string | undefined): Promise<void> {
    const { specHash } = environment;
    if (error instanceof ApiError) {
      report("waiting", "api-unavailable", `Waiting for the API server: ${error.message}`, specHash);
      return;
    }
    const said = cluster.reporter.current();
    const isNews = said?.state !== "failed" || said.code !== codeOf(error) || said.reason !== sentence(error);
    if (isNews) log.error("failed", { code: codeOf(error), reason: sentence(error) });
    // The labels of another group's node belong to that group.
    if (!(error instanceof Refusal && error.code === "other-group")) {
      await cluster.reporter.setServed(await servedNow(environment)).catch(() => undefined);
    }
    if (error instanceof RolledBack || error instanceof RollbackFailed) {
      await cluster.tickets.annotate(sentence(error)).catch(() => undefined);
    }
    report("failed", codeOf(error), sentence(error), specHash, retry);
  }

  function report(state: NodeStatus["state"], code: string, reason: string, specHash: string, retry?: string): void {
    const handlers = cluster.reporter.served();
    cluster.reporter.report({
      state,
      code,
      reason,
      handlers,
      pods: [],
      specHash,
      ...(retry !== undefined && { retry }),
    });
  }
}

const codeOf = (error: unknown): string => {
  const known = error instanceof Refusal || error instanceof RolledBack || error instanceof RollbackFailed;
  return known ? error.code : "unexpected";
};

function statusOf({ handlers, blocked }: Outcome, specHash: string, retry: string | undefined): NodeStatus {
  const token = retry === undefined ? {} : { retry };
  const pods = blocked.flatMap((entry) => entry.pods);
  if (blocked.length === 0) {
    const reason =
      handlers.length === 0 ? "No runtime is listed, and none is installed." : `Serves ${handlers.join(", ")}.`;
    return { state: "ready", code: "ready", reason, handlers, pods, specHash, ...token };
  }
  const reason = `Serves the spec; still used, so not removed yet: ${blocked.map(({ handler }) => handler).join(", ")}.`;
  return { state: "blocked", code: "runtime-in-use", reason, handlers, pods, specHash, ...token };
}

/** Waits; returns early if spec or containerd's file changed and have then stayed the same for a tick. */
async function quiet({ host, signal, readSpec, sleep }: WatchParts, waitMs: number): Promise<void> {
  const fingerprint = async () => {
    const spec = await readSpec().then(({ specHash }) => specHash, sentence);
    const path = await fileOfJournal(host);
    const stat = path === undefined ? undefined : await host.stat(path).catch(() => undefined);
    return [spec, stat?.ino, stat?.mtimeNs, stat?.size].join(" ");
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

async function fileOfJournal(host: Host): Promise<string | undefined> {
  try {
    const bytes = await readIfThere(host, journalPath);
    return bytes && (JSON.parse(bytes.toString()) as Journal).file?.path;
  } catch {
    return undefined;
  }
}
