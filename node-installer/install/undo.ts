import { Refusal } from "../../runtime/refusal.ts";
import { mismatches, serves } from "../containerd/serving.ts";
import { digestOf, FileChanged, readIfThere, swapFile } from "../host/files.ts";
import { commitGuard, removeGuard } from "../host/guard.ts";
import type { Transaction } from "../host/journal.ts";
import { type Attempt, record, recordWithout } from "./attempt.ts";
import type { Expectation } from "./daemon.ts";
import { sentence } from "./log.ts";
import { nodeGate } from "./node-gate.ts";
import { edit, entryOf, expectedNow, knownBy, withoutOurs } from "./observe.ts";
import { isSpent, restart } from "./restarts.ts";
import { RollbackFailed, RolledBack } from "./rolled-back.ts";
import type { StepName } from "./step-names.ts";

/*
 * How a change of containerd's file is undone, and who begins:
 *
 *   a step from edit to commit fails   → undo       → our bytes are in the file      → rollBack   → closeTransaction
 *                                                   → another program's are          → serveAgain → closeTransaction
 *   recovery finds one unfinished      → undoAgain  → undo
 *   recovery finds nothing to undo     → serveAgain → closeTransaction
 *
 * Whatever ends a change without a commit ends in closeTransaction.
 */

/** How often a change is tried if its trial is interrupted before the gate can decide. */
const maximumAttempts = 2;

/**
 * Undoes the steps from the edit to the commit. Always throws: `RolledBack` with both results, `RollbackFailed`, after which
 * the transaction stays open, so that the next run (and the guard) tries again, or the reason itself if nothing of ours is
 * in the file.
 */
export async function undo(attempt: Attempt, reason: unknown, step: StepName | "recovery"): Promise<never> {
  const { transaction } = attempt.journal;
  if (reason instanceof FileChanged) {
    // At the edit, containerd has not been restarted yet.
    if (transaction !== undefined && step !== "edit") await serveAgain(attempt, transaction, sentence(reason));
    await closeTransaction(attempt);
    throw reason;
  }
  // The file was not changed after its backup: the change is not on record, or the record is of an earlier one that no disk
  // took the end of. So nothing refers to that copy.
  const { backup } = attempt;
  if (backup !== undefined && backup !== transaction?.backup)
    await attempt.environment.host.remove(backup).catch(() => undefined);
  if (transaction !== undefined) return await rollBack(attempt, transaction, reason, step);
  throw reason;
}

/** For what an earlier run left behind: the node serves as before, so this run can go on. Throws `RollbackFailed`. */
export async function undoAgain(attempt: Attempt, reason: string): Promise<void> {
  try {
    await undo(attempt, new Error(reason), "recovery");
  } catch (error) {
    if (!(error instanceof RolledBack)) throw error;
    attempt.environment.log.error("rolled-back", { reason: error.message });
  }
}

/**
 * Ends the transaction on disk without a commit, and records the failure that ended it; none: nothing of it is in the file,
 * and the next plan starts from what is there. The sequence matters: the transaction must exist as long as the guard's
 * order does.
 */
export async function closeTransaction(
  attempt: Attempt,
  failed?: { transaction: Transaction; code: string; reason: string; final: boolean },
): Promise<void> {
  const { host } = attempt.environment;
  await commitGuard(host);
  await recordWithout(attempt, "transaction", failed && { failure: failureOf(attempt, failed) });
  await removeGuard(host);
}

function failureOf(
  { environment, journal }: Attempt,
  { transaction, code, reason, final }: { transaction: Transaction; code: string; reason: string; final: boolean },
) {
  const attempts = attemptsAt(journal.failure, transaction) + 1;
  return {
    content: transaction.after,
    specHash: transaction.specHash,
    code,
    reason,
    at: environment.host.now().toISOString(),
    attempts,
    final: final || attempts >= maximumAttempts,
  };
}

/** How often this very content was tried before. */
export const attemptsAt = (failure: Attempt["journal"]["failure"], { after }: Pick<Transaction, "after">): number =>
  failure?.content === after ? failure.attempts : 0;

/** The exact old bytes, a restart with them, and the same gate with the old expectation. */
async function rollBack(
  attempt: Attempt,
  transaction: Transaction,
  cause: unknown,
  step: StepName | "recovery",
): Promise<never> {
  const { environment, observation } = attempt;
  const { daemon, log, cluster } = environment;
  const { located } = observation;
  const unwritten = (error: unknown) => log.warn("journal-not-written", { reason: sentence(error) });
  const reason = transaction.reason ?? sentence(cause);
  log.error("rolling-back", { reason });
  cluster.metrics.rollbacks += 1;
  const code = transaction.code ?? (cause instanceof Refusal ? cause.code : `${step}-failed`);
  // If containerd never saw the change, its content has not failed.
  let touched = true;
  let isBack = false;
  let nodeProblem: string | undefined;
  try {
    const rollingBack = { ...transaction, phase: "rolling-back" as const, reason, code };
    // A full disk must not prevent the rollback. Without this record, the next run judges by the bytes that it finds.
    await record(attempt, { transaction: rollingBack }).catch(unwritten);
    const restored = await restoreBytes(attempt, transaction);
    isBack = true;
    const expectation = await expectationBefore(attempt, transaction);
    touched = restored || !(await servesAsBefore(attempt, expectation));
    if (touched) {
      // What did not help before is not repeated for ever: once the budget is spent, it only looks.
      if (restored || step !== "recovery" || !(await isSpent(environment))) await restart(attempt, "rollback");
      // A daemon that did not serve before the change need not serve after its rollback. What a distribution renders, it
      // has rendered anew by now.
      const rendered = expectation.before && (await expectationBefore(attempt, transaction));
      const result = rendered && (await daemon.gate(located, rendered));
      if (result?.ok === false) throw new Error(result.problems.join("; "));
      if (transaction.nodeReadyBefore)
        nodeProblem = await nodeGate(environment.host, cluster.reporter, environment.host.now());
    }
  } catch (error) {
    const then = isBack
      ? "after its old content was restored, containerd is still not as before"
      : "its old content could not be restored, which the guard on the host will try next";
    const copy = transaction.backup === null ? "" : `; the old content is also in ${transaction.backup}`;
    throw new RollbackFailed(
      `The change of ${located.file} failed (${reason}), and ${then}: ${sentence(error)}. Look at the unit ${located.unit} on this node${copy}.`,
      { cause: error },
    );
  }
  // A change that only restarts has nothing to restore, but it was tried.
  const final = touched || step === "gate" || transaction.phase === "rolling-back";
  await closeTransaction(attempt, { transaction, code, reason, final }).catch(unwritten);
  const breaker =
    "The same content is not retried automatically: change the spec, or ask for another attempt (--retry).";
  // containerd is as it was; another restart of it would not repair kubelet.
  const now =
    transaction.servedBefore === null
      ? `containerd's CRI did not answer before the change either: look at the unit ${located.unit} on this node.`
      : nodeProblem === undefined
        ? "The node serves as before."
        : `containerd serves as before, but ${nodeProblem}: look at kubelet on this node.`;
  throw new RolledBack(
    code,
    `The change of ${located.file} failed and was rolled back: ${reason}. ${now}${final ? ` ${breaker}` : ""}`,
    { cause },
  );
}

/**
 * Nothing of the change is in the file any more, but the daemon may have loaded it before: one whose CRI is away, or that
 * serves what the change added, is restarted with the file as it is. What else is in there is not ours to judge. Throws
 * `RollbackFailed`.
 */
export async function serveAgain(attempt: Attempt, transaction: Transaction, reason: string): Promise<void> {
  const { environment, observation } = attempt;
  const { located } = observation;
  if (transaction.servedBefore === null) return;
  const expectation = { entries: [], removed: addedBy(transaction), before: undefined };
  if (await servesAsBefore(attempt, expectation)) return;
  environment.log.error("restarting-without-change", { reason });
  let problems: string[];
  try {
    if (!(await isSpent(environment))) await restart(attempt, "rollback");
    ({ problems } = await environment.daemon.gate(located, expectation));
  } catch (error) {
    problems = [sentence(error)];
  }
  if (problems.length === 0) return;
  throw new RollbackFailed(
    `The change of ${located.file} was interrupted (${reason}). Nothing of it is in the file any more, but containerd does not serve with it: ${problems.join("; ")}. Look at the unit ${located.unit} on this node.`,
  );
}

const addedBy = ({ handlersBefore, handlersAfter }: Transaction): string[] =>
  handlersAfter.filter((handler) => !handlersBefore.includes(handler));

/** Whether bytes had to be restored. Bytes that are neither the old nor our new ones are foreign: only our tables change. */
async function restoreBytes(attempt: Attempt, transaction: Transaction): Promise<boolean> {
  const { host } = attempt.environment;
  const { located } = attempt.observation;
  for (let round = 0; ; round += 1) {
    const bytes = await readIfThere(host, located.file);
    const current = digestOf(bytes) ?? null;
    if (current === transaction.before) return false;
    try {
      const old =
        current === transaction.after
          ? await bytesBefore(attempt, transaction)
          : withTablesBefore(attempt, transaction, bytes);
      if (digestOf(old) === digestOf(bytes)) return false;
      await swapFile(host, located.file, current ?? undefined, old, attempt.attributes);
      return true;
    } catch (error) {
      if (!(error instanceof FileChanged) || round >= 5) throw error;
    }
  }
}

function withTablesBefore(attempt: Attempt, transaction: Transaction, edited: Buffer | undefined): Buffer | undefined {
  const { journal, environment } = attempt;
  const now = { ...attempt.observation, edited, journal, known: knownBy(journal, environment.spec) };
  const entries = entriesBefore(attempt, transaction);
  return entries.length === 0 ? withoutOurs(now) : edit(now, entries);
}

async function bytesBefore(attempt: Attempt, { before, backup }: Transaction): Promise<Buffer | undefined> {
  if (before === null) return undefined;
  if (backup === null) throw new Error("the journal names no backup of the old content");
  const bytes = await readIfThere(attempt.environment.host, backup);
  if (digestOf(bytes) !== before) throw new Error(`the backup ${backup} no longer holds the old content`);
  return bytes;
}

const entriesBefore = ({ journal }: Attempt, { handlersBefore }: Transaction) =>
  journal.runtimes
    .filter(({ runtime }) => handlersBefore.includes(runtime.handler))
    .map(({ runtime }) => entryOf(runtime));

async function expectationBefore(attempt: Attempt, transaction: Transaction): Promise<Expectation> {
  const before = await expectedNow(attempt.environment, attempt.observation, transaction);
  return {
    // The old file may name a handler that the daemon did not serve, and a rollback cannot restore more than there was.
    entries: entriesBefore(attempt, transaction).filter(
      (entry) => before === undefined || serves(before, [entry]).length === 0,
    ),
    removed: addedBy(transaction),
    before,
  };
}

/** A look rather than a gate: spares a daemon that never saw the new bytes a restart. */
async function servesAsBefore({ environment, observation }: Attempt, expectation: Expectation): Promise<boolean> {
  try {
    const serving = await environment.daemon.serving(observation.located, 2_000);
    return mismatches(serving, expectation).length === 0;
  } catch {
    return false;
  }
}
