import { digestOf, FileChanged, stagedPath } from "../host/files.ts";
import { commitGuard, guardIsThere, guardOutcome, guardStagedPath, removeGuard } from "../host/guard.ts";
import type { Journal, Transaction } from "../host/journal.ts";
import { type Environment, entryOf, mismatches, type Observation, observeHost } from "./observe.ts";
import type { Plan } from "./plan.ts";
import { closeTransaction, RolledBack, rollBack } from "./rollback.ts";
import { runSteps } from "./steps.ts";
import { abandon } from "./transaction.ts";
import { record, type Work } from "./work.ts";

/** A change that is interrupted even more often is rolled back instead: something about it kills its installer. */
const maximumResumptions = 2;

/**
 * What every run does first, with the lock held: finishes what an earlier run left unfinished. The bytes in containerd's
 * file say how far it got, the journal what it wanted, and `guard.fired` whether the guard was quicker.
 */
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
  const current = digestOf(observation.edited) ?? null;
  const work: Work = {
    environment,
    observation,
    plan: resumedPlan(observation, transaction),
    journal,
    attributes: journal.file?.attributes ?? { mode: 0o644, uid: 0, gid: 0 },
    backup: transaction.backup ?? undefined,
  };
  for (const staged of [stagedPath(observation.located.file), guardStagedPath(observation.located.file)]) {
    await host.remove(staged);
  }
  const fired = await guardOutcome(host);
  log.warn("recovering", {
    phase: transaction.phase,
    startedAt: transaction.startedAt,
    guard: fired ?? "has not acted",
  });
  if (fired !== undefined) {
    const reason =
      transaction.reason ?? "The installer was interrupted, and the guard on the host restored the old content";
    const code = transaction.code ?? "interrupted";
    await closeTransaction(work, transaction, { code, reason, final: transaction.phase === "rolling-back" });
    return;
  }
  if (transaction.phase === "replacing" && current === transaction.after) {
    await resume(work, transaction);
    return;
  }
  if (transaction.phase === "rolling-back") {
    await rollBackAgain(work, transaction.reason ?? "The rollback was interrupted");
    return;
  }
  // The old bytes, or somebody else's: no part of this change is in the file.
  await abandon(work);
}

/** The new bytes are in place: they get the trial that was interrupted. */
async function resume(work: Work, transaction: Transaction): Promise<void> {
  const { failure } = work.journal;
  const attempts = (failure?.content === transaction.after ? failure.attempts : 0) + 1;
  if (attempts > maximumResumptions) {
    await rollBackAgain(work, "The installer was interrupted during this change several times");
    return;
  }
  await record(work, {
    failure: {
      content: transaction.after,
      specHash: transaction.specHash,
      code: "interrupted",
      reason: "The installer was interrupted during this change",
      at: work.environment.host.now().toISOString(),
      attempts,
      final: false,
    },
  });
  try {
    await runSteps(work, "restart");
  } catch (error) {
    // Already closed: the following rounds plan on the basis of what somebody else wrote.
    if (error instanceof FileChanged) return;
    if (!(error instanceof RolledBack)) throw error;
    work.environment.log.error("rolled-back", { reason: error.message });
  }
}

async function rollBackAgain(work: Work, reason: string): Promise<void> {
  try {
    await rollBack(work, new Error(reason), "recovery");
  } catch (error) {
    if (!(error instanceof RolledBack)) throw error;
    work.environment.log.error("rolled-back", { reason: error.message });
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
    entries,
    next: edited,
    edit: true,
    restart: !served,
    removed,
    retired: [],
    leave: false,
    blocked: [],
  };
}
