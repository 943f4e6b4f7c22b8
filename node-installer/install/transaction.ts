import { posix } from "node:path";
import { dialSecondsOf } from "../../runtime/guest-start.ts";
import { afterRestart, type ServingState } from "../containerd/serving.ts";
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
import { pristinePath, type Transaction } from "../host/journal.ts";
import { type Attempt, makeOwnDirectory, record, replaceJournal, withRuntime } from "./attempt.ts";
import { rotate } from "./backup.ts";
import type { Log } from "./log.ts";
import { nodeGate } from "./node-gate.ts";
import { driftIn, expectedNow, ownHandlers, signsOf, tablesIn, withoutOurs } from "./observe.ts";
import { restart } from "./restarts.ts";

/* The steps from the edit to the commit, during which the guard stands by; undo.ts undoes them. */

/**
 * Journal, then guard, then the rename. The pristine copy is containerd's file without our block; it is taken anew if
 * somebody else has edited the file since.
 */
export async function editFile(attempt: Attempt): Promise<void> {
  const { environment, observation, plan, journal } = attempt;
  const { host } = environment;
  const { located, edited } = observation;
  const before = digestOf(edited);
  const after = digestOf(plan.next);

  const own = journal.file;
  const untouched = own !== undefined && own.written === (before ?? null);
  const pristine = untouched ? own.pristine : await keepPristine(attempt);
  const backups = [...(own?.backups ?? []), ...(attempt.backup === undefined ? [] : [attempt.backup])];
  const drift = plan.edit ? driftIn(observation, plan.next) : [];
  if (drift.length > 0) environment.log.warn("drift", { file: located.file, differences: drift });
  const node = await environment.cluster.reporter.nodeReady();
  const transaction: Transaction = {
    phase: "replacing",
    startedAt: host.now().toISOString(),
    specHash: environment.specHash,
    before: before ?? null,
    after: after ?? null,
    backup: attempt.backup ?? null,
    handlersBefore: observation.present,
    handlersAfter: plan.entries.map(({ handler }) => handler),
    // The journal holds only JSON.
    servedBefore: JSON.parse(JSON.stringify(expectedOf(attempt) ?? null)),
    ...(node !== undefined && { nodeReadyBefore: node.ready }),
  };
  await makeOwnDirectory(attempt, posix.dirname(located.file));
  await record(attempt, {
    transaction,
    // Kept runtimes are already known; listed ones may be new, or adopted after a journal was lost.
    runtimes: environment.spec.runtimes.reduce(
      (runtimes, runtime) => withRuntime(runtimes, runtime, {}),
      attempt.journal.runtimes,
    ),
    file: {
      path: located.file,
      pristine,
      attributes: attempt.attributes,
      written: own?.written ?? before ?? null,
      backups,
    },
  });
  const unit = located.restart === "systemctl" ? located.unit : undefined;
  const added = transaction.handlersAfter.filter((handler) => !transaction.handlersBefore.includes(handler));
  const order = { file: located.file, before, after, backup: attempt.backup, unit, added };
  await armGuard(host, located.unit, order);
  if (plan.edit) await swapFile(host, located.file, before, plan.next, attempt.attributes);
}

async function keepPristine(attempt: Attempt): Promise<string | null> {
  const { host } = attempt.environment;
  const bytes = withoutOurs(attempt.observation);
  if (bytes === undefined) return null;
  await host.makeDirectory(stateDirectory, 0o700);
  await writeFileAtomically(host, pristinePath, bytes, rootOwned(0o600));
  return digestOf(bytes) ?? null;
}

/** As the daemon is, but for what its files will make it load besides our change. */
function expectedOf({ environment, observation, disk }: Attempt): ServingState | undefined {
  const { serving } = observation;
  return serving && afterRestart(serving, disk?.onDisk.runtimes, ownHandlers(observation, environment.spec));
}

export async function restartDaemon(attempt: Attempt): Promise<void> {
  await restart(attempt, attempt.purpose);
}

/** The daemon's gate, a sandbox where the spec asks for one, and the node's gate. */
export async function passGates(attempt: Attempt): Promise<void> {
  const { environment, observation, plan, journal } = attempt;
  const { host, daemon, spec, cluster, log } = environment;
  const { located } = observation;
  const result = await daemon.gate(located, {
    entries: plan.entries,
    removed: plan.removed,
    // From the journal: in a resumed run, the daemon may already have been restarted with the new bytes.
    before: journal.transaction && (await expectedNow(environment, observation, journal.transaction)),
  });
  if (!result.ok && plan.entries.length === 0 && journal.transaction?.servedBefore === null) {
    // It was down before us, and what is left in its file is not ours.
    environment.log.warn("still-not-serving", { reason: result.problems.join("; ") });
    return;
  }
  if (!result.ok && (await isOverwritten(attempt)))
    throw new PutBack(`${located.file} was overwritten by another program`);
  if (!result.ok) throw new Error(`containerd did not pass the gate: ${result.problems.join("; ")}`);
  const since = host.now();
  if (spec.verifySandbox) {
    const proven = new Set(journal.runtimes.filter((owned) => owned.configured).map(({ runtime }) => runtime.handler));
    for (const entry of plan.entries) {
      if (proven.has(entry.handler)) continue;
      const runtime = journal.runtimes.find((owned) => owned.runtime.handler === entry.handler)?.runtime;
      const { seconds, leftOver } = await daemon.verifySandbox(
        located,
        entry,
        runtime && dialSecondsOf(runtime.kataConfig.content),
      );
      log.info("sandbox-started", { handler: entry.handler, seconds });
      cluster.metrics.sandboxSeconds[entry.handler] = seconds;
      if (leftOver.length > 0) log.warn("sandbox-left-over", { handler: entry.handler, reasons: leftOver });
    }
  }
  if (journal.transaction?.nodeReadyBefore !== true) return;
  const problem = await nodeGate(host, cluster.reporter, since);
  if (problem !== undefined) throw new Error(problem);
}

/** Another program put its file in the place of ours before containerd could serve it: a restart for nothing. */
export class PutBack extends FileChanged {}

/** Whether another program replaced our file right after the change, so that containerd never served ours. */
async function isOverwritten({ environment, observation, plan, journal }: Attempt): Promise<boolean> {
  const signs = journal.transaction === undefined ? [] : signsOf(journal.transaction);
  if (!plan.edit || signs.length === 0) return false;
  const bytes = await readIfThere(environment.host, observation.located.file);
  return tablesIn(observation, bytes, signs).length === 0;
}

/** The node's log outlives pods, runtimes and the journal: its lines of this event are what came and went there, and when. */
function tellChange(log: Log, specHash: string, { handlersBefore, handlersAfter }: Transaction): void {
  const installed = handlersAfter.filter((handler) => !handlersBefore.includes(handler));
  const removed = handlersBefore.filter((handler) => !handlersAfter.includes(handler));
  if (installed.length + removed.length > 0) log.info("handlers-changed", { installed, removed, specHash });
}

/** Once the guard's order is gone, nothing is rolled back any more; the remaining steps can be repeated. */
export async function commit({ environment: { host } }: Attempt): Promise<void> {
  if ((await guardOutcome(host)) !== undefined) {
    throw new Error(
      "the guard on the host undid the change meanwhile, because it was not finished within half an hour",
    );
  }
  await commitGuard(host);
}

export async function recordCommit(attempt: Attempt): Promise<void> {
  const { environment, plan, journal } = attempt;
  const { host, cluster } = environment;
  const committed = { specHash: environment.specHash, at: host.now().toISOString() };
  if (journal.transaction === undefined) {
    if (plan.payloads.length > 0 || plan.kataConfigurations.length > 0) await record(attempt, { committed });
    return;
  }
  const { failure: _failure, transaction, ...rest } = journal;
  const wanted = new Set(transaction.handlersAfter);
  const runtimes = journal.runtimes.map((owned) => ({ ...owned, configured: wanted.has(owned.runtime.handler) }));
  const { keep, remove } = rotate(journal.file?.backups ?? []);
  const file = rest.file && { ...rest.file, written: transaction.after, backups: keep };
  await replaceJournal(attempt, { ...rest, runtimes, committed, ...(file && { file }) });
  await removeGuard(host);
  tellChange(environment.log, environment.specHash, transaction);
  for (const backup of remove) await host.remove(backup);
  await cluster.tickets.release();
}
