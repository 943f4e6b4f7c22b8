import { Refusal } from "../../runtime/refusal.ts";
import { serves } from "../containerd/serving.ts";
import { digestOf, FileChanged, readIfThere, swapFile } from "../host/files.ts";
import { commitGuard, removeGuard } from "../host/guard.ts";
import type { Transaction } from "../host/journal.ts";
import { sentence } from "./log.ts";
import { nodeGate } from "./node-gate.ts";
import { edit, entryOf, mismatches, servedBefore } from "./observe.ts";
import { record, recordWithout, type Work } from "./work.ts";

/** The change failed, and the node serves as before. */
export class RolledBack extends Error {
  override readonly name = "RolledBack";
  readonly code: string;
  constructor(code: string, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

/** The change failed, and so did the rollback: a person must look at the node. */
export class RollbackFailed extends Error {
  override readonly name = "RollbackFailed";
  readonly code = "rollback-failed";
}

/** How often a change is tried if its trial is interrupted before the gate can decide. */
const maximumAttempts = 2;

/**
 * Rolls a change back: the exact old bytes, a restart with them, and the same gate with the old expectation. Always
 * throws: `RolledBack` with both results, or `RollbackFailed`, after which the transaction stays open, so that the next
 * run (and the guard) tries again.
 */
export async function rollBack(work: Work, reason: unknown, step: string): Promise<never> {
  const { environment, observation } = work;
  const { daemon, log, cluster } = environment;
  const { located } = observation;
  const { transaction } = work.journal;
  if (transaction === undefined) {
    // The file will not be changed, so nothing refers to its backup.
    if (work.backup !== undefined) await environment.host.remove(work.backup).catch(() => undefined);
    throw reason;
  }
  const unwritten = (error: unknown) => log.warn("journal-not-written", { reason: sentence(error) });
  const why = transaction.reason ?? sentence(reason);
  log.error("rolling-back", { reason: why });
  cluster.metrics.rollbacks += 1;
  const code = transaction.code ?? (reason instanceof Refusal ? reason.code : `${step}-failed`);
  // If containerd never saw the change, its content has not failed.
  let touched = true;
  let isBack = false;
  let node: string | undefined;
  try {
    const rollingBack = { ...transaction, phase: "rolling-back" as const, reason: why, code };
    // A full disk must not prevent the rollback. Without this record, the next run judges by the bytes that it finds.
    await record(work, { transaction: rollingBack }).catch(unwritten);
    const restored = await restoreBytes(work, transaction);
    isBack = true;
    const expectation = expectationBefore(work, transaction);
    touched = restored || !(await servesAsBefore(work, expectation));
    if (touched) {
      await daemon.restart(located);
      const result = await daemon.gate(located, expectation);
      if (!result.ok) throw new Error(result.problems.join("; "));
      if (transaction.nodeReadyBefore)
        node = await nodeGate(environment.host, cluster.reporter, environment.host.now());
    }
  } catch (error) {
    const then = isBack
      ? "after its old content was restored, containerd is still not as before"
      : "its old content could not be restored, which the guard on the host will try next";
    const copy = transaction.backup === null ? "" : `; the old content is also in ${transaction.backup}`;
    throw new RollbackFailed(
      `The change of ${located.file} failed (${why}), and ${then}: ${sentence(error)}. Look at the unit ${located.unit} on this node${copy}.`,
      { cause: error },
    );
  }
  // A change that only restarts has nothing to restore, but it was tried.
  const final = touched || step === "gate";
  await closeTransaction(work, transaction, { code, reason: why, final }).catch(unwritten);
  const breaker =
    "The same content is not retried automatically: change the spec, or ask for another attempt (--retry).";
  // containerd is as it was; another restart of it would not repair kubelet.
  const serves =
    node === undefined
      ? "The node serves as before."
      : `containerd serves as before, but ${node}: look at kubelet on this node.`;
  throw new RolledBack(
    code,
    `The change of ${located.file} failed and was rolled back: ${why}. ${serves}${final ? ` ${breaker}` : ""}`,
    { cause: reason },
  );
}

/** Ends the transaction on disk. The sequence matters: the transaction must exist as long as the guard's order does. */
export async function closeTransaction(
  work: Work,
  transaction: Transaction,
  outcome: { code: string; reason: string; final: boolean },
): Promise<void> {
  const { host } = work.environment;
  await commitGuard(host);
  const earlier = work.journal.failure;
  const attempts = (earlier?.content === transaction.after ? earlier.attempts : 0) + 1;
  await recordWithout(work, "transaction", {
    failure: {
      content: transaction.after,
      specHash: transaction.specHash,
      code: outcome.code,
      reason: outcome.reason,
      at: host.now().toISOString(),
      attempts,
      final: outcome.final || attempts >= maximumAttempts,
    },
  });
  await removeGuard(host);
}

/** Whether bytes had to be restored. Bytes that are neither the old nor our new ones are foreign: only our block changes. */
async function restoreBytes(work: Work, transaction: Transaction): Promise<boolean> {
  const { host } = work.environment;
  const { located } = work.observation;
  for (let attempt = 0; ; attempt += 1) {
    const bytes = await readIfThere(host, located.file);
    const current = digestOf(bytes) ?? null;
    if (current === transaction.before) return false;
    try {
      const old =
        current === transaction.after
          ? await bytesBefore(work, transaction)
          : edit({ ...work.observation, edited: bytes }, entriesBefore(work, transaction));
      if (digestOf(old) === digestOf(bytes)) return false;
      await swapFile(host, located.file, current ?? undefined, old, work.attributes);
      return true;
    } catch (error) {
      if (!(error instanceof FileChanged) || attempt >= 5) throw error;
    }
  }
}

async function bytesBefore(work: Work, { before, backup }: Transaction): Promise<Buffer | undefined> {
  if (before === null) return undefined;
  const bytes = backup === null ? undefined : await readIfThere(work.environment.host, backup);
  if (digestOf(bytes) !== before) throw new Error(`the backup ${backup ?? ""} no longer holds the old content`);
  return bytes;
}

const entriesBefore = ({ journal }: Work, { handlersBefore }: Transaction) =>
  journal.runtimes
    .filter(({ runtime }) => handlersBefore.includes(runtime.handler))
    .map(({ runtime }) => entryOf(runtime));

function expectationBefore(work: Work, transaction: Transaction) {
  const { handlersBefore, handlersAfter } = transaction;
  const before = servedBefore(transaction);
  return {
    // The old file may name a handler that the daemon did not serve, and a rollback cannot restore more than there was.
    entries: entriesBefore(work, transaction).filter(
      (entry) => before === undefined || serves(before, [entry]).length === 0,
    ),
    removed: handlersAfter.filter((handler) => !handlersBefore.includes(handler)),
    before,
  };
}

/** A look rather than a gate: spares a daemon that never saw the new bytes a restart. */
async function servesAsBefore(
  { environment, observation }: Work,
  expectation: ReturnType<typeof expectationBefore>,
): Promise<boolean> {
  try {
    const state = await environment.daemon.observe(observation.located, 2_000);
    return mismatches(state, expectation).length === 0;
  } catch {
    return false;
  }
}
