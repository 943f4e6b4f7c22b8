import { posix } from "node:path";
import { opening as fence } from "../containerd/fence.ts";
import {
  digestOf,
  FileChanged,
  readIfThere,
  rootOwned,
  stateDirectory,
  swapFile,
  writeFileAtomically,
} from "../host/files.ts";
import { armGuard, commitGuard, guardOutcome, removeGuard } from "../host/guard.ts";
import { pristinePath, type Transaction, writeJournal } from "../host/journal.ts";
import { rotate } from "./backup.ts";
import { nodeGate } from "./node-gate.ts";
import { edit, servedBefore } from "./observe.ts";
import { rollBack } from "./rollback.ts";
import { makeOwnDirectory, record, recordWithout, type Work, withRuntime } from "./work.ts";

/* The steps from the edit to the commit, during which the guard stands by, and how they are rolled back. */

/**
 * Journal, then guard, then the rename. The pristine copy is containerd's file without our block; it is taken anew if
 * somebody else has edited the file since.
 */
export async function editFile(work: Work): Promise<void> {
  const { environment, observation, plan, journal } = work;
  const { host } = environment;
  const { located, edited } = observation;
  const before = digestOf(edited);
  const after = digestOf(plan.next);

  const own = journal.file;
  const untouched = own !== undefined && own.written === (before ?? null);
  const pristine = untouched ? own.pristine : await keepPristine(work);
  const backups = [...(own?.backups ?? []), ...(work.backup === undefined ? [] : [work.backup])];
  const node = await environment.cluster.reporter.nodeReady();
  const transaction: Transaction = {
    phase: "replacing",
    startedAt: host.now().toISOString(),
    specHash: environment.specHash,
    before: before ?? null,
    after: after ?? null,
    backup: work.backup ?? null,
    handlersBefore: observation.present,
    handlersAfter: plan.entries.map(({ handler }) => handler),
    // The journal holds only JSON.
    servedBefore: JSON.parse(JSON.stringify(observation.serving ?? null)),
    ...(node !== undefined && { nodeReadyBefore: node.ready }),
  };
  await makeOwnDirectory(work, posix.dirname(located.file));
  await record(work, {
    transaction,
    // Kept runtimes are already known; listed ones may be new, or adopted after a journal was lost.
    runtimes: environment.spec.runtimes.reduce(
      (runtimes, runtime) => withRuntime(runtimes, runtime, {}),
      work.journal.runtimes,
    ),
    file: {
      path: located.file,
      pristine,
      attributes: work.attributes,
      written: own?.written ?? before ?? null,
      backups,
    },
  });
  const unit = located.restart === "systemctl" ? located.unit : undefined;
  await armGuard(host, located.unit, { file: located.file, before, after, backup: work.backup, unit });
  if (plan.edit) await swapFile(host, located.file, before, plan.next, work.attributes);
}

async function keepPristine(work: Work): Promise<string | null> {
  const { host } = work.environment;
  const bytes = edit(work.observation, []);
  if (bytes === undefined) return null;
  await host.makeDirectory(stateDirectory, 0o700);
  await writeFileAtomically(host, pristinePath, bytes, rootOwned(0o600));
  return digestOf(bytes) ?? null;
}

export async function restart({ environment, observation }: Work): Promise<void> {
  environment.cluster.metrics.restarts += 1;
  await environment.daemon.restart(observation.located);
}

export async function gate(work: Work): Promise<void> {
  const { environment, observation, plan, journal } = work;
  const { host, daemon, spec, cluster } = environment;
  const { located } = observation;
  const result = await daemon.gate(located, {
    entries: plan.entries,
    removed: plan.removed,
    // From the journal: in a resumed run, the daemon may already have been restarted with the new bytes.
    before: journal.transaction && servedBefore(journal.transaction),
  });
  if (!result.ok && (await isOverwritten(work)))
    throw new FileChanged(`${located.file} was overwritten by another program`);
  if (!result.ok) throw new Error(`containerd did not pass the gate: ${result.problems.join("; ")}`);
  const since = host.now();
  if (spec.verifySandbox) {
    const proven = new Set(journal.runtimes.filter((owned) => owned.configured).map(({ runtime }) => runtime.handler));
    for (const entry of plan.entries) {
      if (!proven.has(entry.handler)) await daemon.verifySandbox(located, entry);
    }
  }
  if (journal.transaction?.nodeReadyBefore !== true) return;
  const problem = await nodeGate(host, cluster.reporter, since);
  if (problem !== undefined) throw new Error(problem);
}

/** Whether another program replaced our file right after the change, so that containerd never served ours. */
async function isOverwritten({ environment, observation, plan }: Work): Promise<boolean> {
  const { file } = observation.located;
  const bytes = await readIfThere(environment.host, file);
  // Decided by the fence only, because a damaged block is not a missing one.
  return plan.edit && plan.entries.length > 0 && !bytes?.includes(fence);
}

/** Once the guard's order is gone, nothing is rolled back any more; the remaining steps can be repeated. */
export async function commit({ environment: { host } }: Work): Promise<void> {
  if ((await guardOutcome(host)) !== undefined) {
    throw new Error(
      "the guard on the host undid the change meanwhile, because it was not finished within half an hour",
    );
  }
  await commitGuard(host);
}

export async function recordCommit(work: Work): Promise<void> {
  const { environment, plan, journal } = work;
  const { host, cluster } = environment;
  const committed = { specHash: environment.specHash, at: host.now().toISOString() };
  if (journal.transaction === undefined) {
    if (plan.payloads.length > 0 || plan.kataConfigurations.length > 0) await record(work, { committed });
    return;
  }
  const { failure: _failure, transaction, ...rest } = journal;
  const wanted = new Set(transaction.handlersAfter);
  const runtimes = journal.runtimes.map((owned) => ({ ...owned, configured: wanted.has(owned.runtime.handler) }));
  const { keep, remove } = rotate(journal.file?.backups ?? []);
  const file = rest.file && { ...rest.file, written: transaction.after, backups: keep };
  const next = { ...rest, runtimes, committed, ...(file && { file }) };
  await writeJournal(host, next);
  work.journal = next;
  await removeGuard(host);
  for (const backup of remove) await host.remove(backup);
  await cluster.tickets.release();
}

/** Undoes the steps from the edit to the commit; what it throws tells the outcome. */
export async function takeBack(work: Work, reason: unknown, step: string): Promise<never> {
  if (!(reason instanceof FileChanged)) return await rollBack(work, reason, step);
  await abandon(work);
  throw reason;
}

/** For a file without our change: there is nothing to roll back, and the next plan starts from what is there. */
export async function abandon(work: Work): Promise<void> {
  const { host } = work.environment;
  await commitGuard(host);
  await recordWithout(work, "transaction");
  await removeGuard(host);
}
