import { posix } from "node:path";
import { opening as fence } from "../containerd/fence.ts";
import { requireSystemd } from "../containerd/restart.ts";
import {
  digestOf,
  FileChanged,
  readIfThere,
  rootOwned,
  stateDirectory,
  swapFile,
  writeFileAtomically,
} from "../host/files.ts";
import { armGuard, commitGuard, removeGuard } from "../host/guard.ts";
import { pristinePath, type Transaction, writeJournal } from "../host/journal.ts";
import { waitForTicket } from "../kubernetes/tickets.ts";
import { runtimeDirectory } from "../runtime/spec.ts";
import { backUp, rotate } from "./backup.ts";
import { cleanUp } from "./clean-up.ts";
import { sentence } from "./log.ts";
import { nodeGate } from "./node-gate.ts";
import { edit } from "./observe.ts";
import { placePayload } from "./payload.ts";
import { bytesToCopy } from "./plan.ts";
import { rollBack } from "./rollback.ts";
import { requireRoomForChange, requireRoomForPayloads } from "./space.ts";
import { bootId, makeOwnDirectory, record, recordWithout, type Work, withRuntime } from "./work.ts";

/** A part of the sequence. Its share of the plan says whether there is anything to do. */
export interface Step {
  name: string;
  needed: (work: Work) => boolean;
  apply: (work: Work) => Promise<void>;
  /** Takes back what `apply`, and the steps after it, did. */
  undo?: (work: Work, reason: unknown, step: string) => Promise<never>;
}

const changesDaemon = ({ plan }: Work) => plan.edit || plan.restart;
const always = () => true;

/** The guard's order goes: from here on nothing is taken back any more, and what is left can be repeated. */
const commitStep = "commit";

/**
 * The one sequence. All handlers of a node pass it together: one edit, one restart. Until `edit` nothing that exists is
 * touched, so a failure leaves at most files that nothing refers to; from `edit` on the guard stands by.
 */
export const steps: Step[] = [
  {
    name: "check-host",
    needed: always,
    apply: checkHost,
  },
  {
    name: "place-payload",
    needed: ({ plan }) => plan.payloads.length > 0,
    apply: placePayloads,
  },
  {
    name: "write-kata-configuration",
    needed: ({ plan }) => plan.kataConfigurations.length > 0,
    apply: writeKataConfigurations,
  },
  { name: "validate", needed: ({ plan }) => plan.edit, apply: validate },
  { name: "take-ticket", needed: changesDaemon, apply: takeTicket },
  {
    name: "back-up",
    needed: ({ plan, observation }) => plan.edit && observation.edited !== undefined,
    apply: backUpFile,
  },
  { name: "edit", needed: changesDaemon, apply: editFile, undo: rollBack },
  { name: "restart", needed: ({ plan }) => plan.restart, apply: restart },
  { name: "gate", needed: changesDaemon, apply: gate },
  {
    name: commitStep,
    needed: ({ journal }) => journal.transaction !== undefined,
    apply: ({ environment }) => commitGuard(environment.host),
  },
  { name: "record", needed: always, apply: recordCommit },
  { name: "clean-up", needed: always, apply: cleanUp },
];

async function checkHost({ environment, observation, plan }: Work): Promise<void> {
  const { host } = environment;
  const { located } = observation;
  await requireSystemd(host, located);
  await environment.checkHost(located);
  await requireRoomForPayloads(host, plan.payloads);
  await requireRoomForChange(host, located.file);
}

async function placePayloads(work: Work): Promise<void> {
  const { host, payloads, cluster } = work.environment;
  for (const plan of work.plan.payloads) {
    const { handler } = plan.runtime;
    const known = work.journal.runtimes.find(({ runtime }) => runtime.handler === handler);
    if (plan.missing.length === 0 && known !== undefined && known.files.length === plan.runtime.files.length) continue;
    // Owned before the first byte: what a kill leaves behind has an owner who removes it.
    if (known === undefined) await record(work, { runtimes: withRuntime(work.journal.runtimes, plan.runtime, {}) });
    await makeOwnDirectory(work, posix.dirname(runtimeDirectory(handler)));
    const files = await placePayload(host, plan, payloads);
    await record(work, { runtimes: withRuntime(work.journal.runtimes, plan.runtime, { files }) });
  }
  cluster.metrics.bytesCopied += bytesToCopy(work.plan);
}

async function writeKataConfigurations({ environment, plan }: Work): Promise<void> {
  for (const { path, content } of plan.kataConfigurations) {
    await environment.host.makeDirectory(posix.dirname(path), 0o755);
    await writeFileAtomically(environment.host, path, content, rootOwned(0o644));
  }
}

async function validate({ environment, observation, plan }: Work): Promise<void> {
  await environment.daemon.validate(observation.located, plan.next, plan.entries);
}

/** Nodes of a group take turns from here to the commit; a node that fails keeps its ticket. */
async function takeTicket({ environment }: Work): Promise<void> {
  const { cluster, host, log, signal, specHash } = environment;
  signal?.throwIfAborted();
  await waitForTicket(cluster.tickets, {
    async delay(ms) {
      await host.delay(ms);
      signal?.throwIfAborted();
    },
    onWait(waitingFor) {
      const reason = `Waits for its turn to restart containerd: ${waitingFor}.`;
      log.info("waiting", { reason });
      const handlers = cluster.reporter.served();
      cluster.reporter.report({ state: "waiting", code: "take-ticket", reason, handlers, pods: [], specHash });
    },
  });
}

async function backUpFile(work: Work): Promise<void> {
  const { located, edited } = work.observation;
  if (edited === undefined) return;
  const { host } = work.environment;
  work.backup = await backUp(host, located.file, edited, work.attributes);
}

/**
 * Journal, then guard, then the rename. The pristine copy is containerd's file without us: taken again whenever somebody
 * else edited the file since.
 */
async function editFile(work: Work): Promise<void> {
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
    bootId: await bootId(host),
    specHash: environment.specHash,
    before: before ?? null,
    after: after ?? null,
    backup: work.backup ?? null,
    handlersBefore: observation.present,
    handlersAfter: plan.entries.map(({ handler }) => handler),
    // Only JSON enters the journal.
    servedBefore: JSON.parse(JSON.stringify(observation.serving ?? null)),
    ...(node !== undefined && { nodeReadyBefore: node.ready }),
  };
  await makeOwnDirectory(work, posix.dirname(located.file));
  await record(work, {
    transaction,
    // Kept runtimes are known already; listed ones may be new, or adopted from a lost journal.
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
  if (!plan.edit) return;
  try {
    await swapFile(host, located.file, before, plan.next, work.attributes);
  } catch (error) {
    if (!(error instanceof FileChanged)) throw error;
    await abandon(work);
    throw error;
  }
}

/** Nothing of ours is in the file: there is nothing to take back, and the next plan starts from what is there. */
async function abandon(work: Work): Promise<void> {
  const { host } = work.environment;
  await commitGuard(host);
  await recordWithout(work, "transaction");
  await removeGuard(host);
}

/** A program that wrote its own idea of the file over ours, right after the change: containerd never served ours. */
async function isOverwritten({ environment, observation, plan }: Work): Promise<boolean> {
  const { file } = observation.located;
  const bytes = await readIfThere(environment.host, file);
  // Told by the fence alone, for a block that somebody damaged is no block that is gone.
  return plan.edit && plan.entries.length > 0 && !bytes?.includes(fence);
}

async function keepPristine(work: Work): Promise<string | null> {
  const { host } = work.environment;
  const bytes = edit(work.observation, []);
  if (bytes === undefined) return null;
  await host.makeDirectory(stateDirectory, 0o700);
  await writeFileAtomically(host, pristinePath, bytes, rootOwned(0o600));
  return digestOf(bytes) ?? null;
}

async function restart({ environment, observation }: Work): Promise<void> {
  environment.cluster.metrics.restarts += 1;
  await environment.daemon.restart(observation.located);
}

async function gate(work: Work): Promise<void> {
  const { environment, observation, plan, journal } = work;
  const { host, daemon, spec, cluster } = environment;
  const { located } = observation;
  const result = await daemon.gate(located, {
    entries: plan.entries,
    removed: plan.removed,
    before: observation.serving,
  });
  if (!result.ok && (await isOverwritten(work))) {
    await abandon(work);
    throw new FileChanged(`${located.file} was overwritten by another program`);
  }
  if (!result.ok) throw new Error(`containerd did not pass the gate: ${result.problems.join("; ")}`);
  const since = host.now();
  if (spec.verifySandbox) {
    const proven = new Set(journal.runtimes.filter((owned) => owned.configured).map(({ runtime }) => runtime.handler));
    for (const entry of plan.entries) {
      if (!proven.has(entry.handler)) await daemon.verifySandbox(located, entry);
    }
  }
  if (!plan.restart || journal.transaction?.nodeReadyBefore !== true) return;
  const problem = await nodeGate(host, cluster.reporter, since);
  if (problem !== undefined) throw new Error(problem);
}

async function recordCommit(work: Work): Promise<void> {
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

/**
 * Runs the steps that are needed. A failure between `edit` and the commit is taken back by the step that can, and comes
 * out as `RolledBack` or `RollbackFailed`; any other comes out as it is.
 */
export async function runSteps(work: Work, from: string = steps[0]?.name ?? ""): Promise<void> {
  const { host, log, cluster, specHash } = work.environment;
  const sequence = steps.slice(steps.findIndex(({ name }) => name === from));
  // Taken up in its middle, the sequence is past its edit.
  let undo = sequence.some((step) => step.undo !== undefined) ? undefined : rollBack;
  for (const step of sequence) {
    if (!step.needed(work)) continue;
    const started = host.now().getTime();
    const handlers = cluster.reporter.served();
    const reason = `The step ${step.name} runs.`;
    cluster.reporter.report({ state: "working", code: step.name, reason, handlers, pods: [], specHash });
    try {
      await step.apply(work);
    } catch (error) {
      log.error("step-failed", { step: step.name, reason: sentence(error) });
      if (error instanceof FileChanged) throw error;
      undo = step.undo ?? undo;
      if (undo !== undefined) await undo(work, error, step.name);
      throw error;
    }
    undo = step.name === commitStep ? undefined : (step.undo ?? undo);
    const milliseconds = host.now().getTime() - started;
    cluster.metrics.stepSeconds[step.name] = milliseconds / 1000;
    log.info("step", { step: step.name, milliseconds });
  }
}
