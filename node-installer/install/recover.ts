import { mismatches } from "../containerd/serving.ts";
import { digestOf, FileChanged, stagedPath } from "../host/files.ts";
import { commitGuard, guardIsThere, guardOutcome, guardStagedPath, removeGuard } from "../host/guard.ts";
import type { Journal, Transaction } from "../host/journal.ts";
import { removeStagedRestarts } from "../host/restart-budget.ts";
import { type Attempt, record } from "./attempt.ts";
import type { Environment } from "./environment.ts";
import { entryOf, type Observation, observeHost, signsOf, tablesIn } from "./observe.ts";
import type { Plan } from "./plan.ts";
import { mayRestart } from "./restarts.ts";
import { RolledBack } from "./rolled-back.ts";
import { runSteps } from "./steps.ts";
import { attemptsAt, closeTransaction, serveAgain, undoAgain } from "./undo.ts";

/** What an earlier run's transaction is found with; the first that applies counts. */
type Found =
  /** The guard was quicker: it restored the old bytes and restarted containerd, or found somebody else's. */
  | "guardActed"
  /** containerd's file holds the new bytes, or somebody else's with our new tables in them. */
  | "newTables"
  /** It holds the old bytes, or somebody else's without them. */
  | "otherBytes";

type Recovery = (attempt: Attempt, transaction: Transaction) => Promise<void>;

/** What is done with a transaction that an earlier run left open: by its phase in the journal, and what is found. */
const recoveries: Record<Transaction["phase"], Record<Found, Recovery>> = {
  // The trial was not finished: its content may be tried once more.
  replacing: { guardActed: closeAsFailed(false), newTables: resume, otherBytes: forget },
  // The trial had failed before, so that its content is not tried again, whoever restores the old bytes.
  "rolling-back": { guardActed: closeAsFailed(true), newTables: rollBackOn, otherBytes: rollBackOn },
};

/** A change that is interrupted even more often is undone instead: something about it kills its installer. */
const maximumResumptions = 2;

/** What every run does first, with the lock held: finishes what an earlier run left unfinished. */
export async function recover(environment: Environment, journal: Journal): Promise<void> {
  const { host, log } = environment;
  const { transaction } = journal;
  if (transaction === undefined) {
    // Killed after the commit: the guard no longer has an order.
    if (await guardIsThere(host)) {
      await commitGuard(host);
      await removeGuard(host);
    }
    return;
  }
  const observation = await observeHost(environment, journal, { criTimeoutMs: 5_000 });
  const attempt: Attempt = {
    environment,
    observation,
    plan: resumedPlan(observation, transaction),
    journal,
    attributes: journal.file?.attributes ?? { mode: 0o644, uid: 0, gid: 0 },
    backup: transaction.backup ?? undefined,
    purpose: "recovery",
    disk: undefined,
  };
  for (const staged of [stagedPath(observation.located.file), guardStagedPath(observation.located.file)]) {
    await host.remove(staged);
  }
  await removeStagedRestarts(host);
  const guard = await guardOutcome(host);
  const { phase, startedAt } = transaction;
  log.warn("recovering", { phase, startedAt, guard: guard ?? "has not acted" });
  const found: Found =
    guard !== undefined ? "guardActed" : holdsChange(observation, transaction) ? "newTables" : "otherBytes";
  await recoveries[phase][found](attempt, transaction);
}

function holdsChange(observation: Observation, transaction: Transaction): boolean {
  const current = digestOf(observation.edited) ?? null;
  if (current === transaction.before || current === transaction.after) return current === transaction.after;
  return tablesIn(observation, observation.edited, signsOf(transaction)).length > 0;
}

function closeAsFailed(final: boolean): Recovery {
  const restored = "The installer was interrupted, and the guard on the host restored the old content";
  return (attempt, transaction) => {
    const { code = "interrupted", reason = restored } = transaction;
    return closeTransaction(attempt, { transaction, code, reason, final });
  };
}

/** No part of the change is in the file; the daemon may have loaded it, though. */
async function forget(attempt: Attempt, transaction: Transaction): Promise<void> {
  await serveAgain(attempt, transaction, "The installer was interrupted during this change");
  await closeTransaction(attempt);
}

function rollBackOn(attempt: Attempt, { reason = "The rollback was interrupted" }: Transaction): Promise<void> {
  return undoAgain(attempt, reason);
}

/** The new tables get the trial that was interrupted. */
async function resume(attempt: Attempt, transaction: Transaction): Promise<void> {
  const { environment, journal } = attempt;
  const attempts = attemptsAt(journal.failure, transaction) + 1;
  if (attempts > maximumResumptions) {
    await undoAgain(attempt, "The installer was interrupted during this change several times");
    return;
  }
  if (attempt.plan.restart && !(await mayRestart(environment, attempt.plan.entries))) {
    await undoAgain(attempt, "containerd was restarted too often on this node for another trial of this change");
    return;
  }
  // Taken if it is to be had; a node that may be broken does not wait for it.
  if (attempt.plan.restart) await environment.cluster.tickets.acquire().catch(() => undefined);
  await record(attempt, {
    failure: {
      content: transaction.after,
      specHash: transaction.specHash,
      code: "interrupted",
      reason: "The installer was interrupted during this change",
      at: environment.host.now().toISOString(),
      attempts,
      final: false,
    },
  });
  try {
    await runSteps(attempt, "restart");
  } catch (error) {
    // Already closed: the following rounds plan on the basis of what somebody else wrote.
    if (error instanceof FileChanged) return;
    if (!(error instanceof RolledBack)) throw error;
    environment.log.error("rolled-back", { reason: error.message });
  }
}

/** The remaining part of the interrupted run's plan. */
function resumedPlan({ edited, serving, journal }: Observation, transaction: Transaction): Plan {
  const wanted = new Set(transaction.handlersAfter);
  const entries = journal.runtimes
    .filter(({ runtime }) => wanted.has(runtime.handler))
    .map(({ runtime }) => entryOf(runtime));
  const removed = transaction.handlersBefore.filter((handler) => !wanted.has(handler));
  const served = serving !== undefined && mismatches(serving, { entries, removed }).length === 0;
  return {
    payloads: [],
    untrusted: [],
    kataConfigurations: [],
    guestRegistries: [],
    entries,
    next: edited,
    edit: true,
    restart: !served,
    removed,
    retired: [],
    left: [],
    removeState: false,
    blocked: [],
  };
}
