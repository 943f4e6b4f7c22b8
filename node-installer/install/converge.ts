import { serves } from "../containerd/serving.ts";
import type { HandlerEntry } from "../containerd/tables.ts";
import { digestOf, FileChanged, lockPath } from "../host/files.ts";
import { guardIsThere } from "../host/guard.ts";
import { type Journal, readJournal } from "../host/journal.ts";
import { Refusal } from "../runtime/refusal.ts";
import { type Environment, entryOf, type Observation, observeHost } from "./observe.ts";
import { isEmpty, makePlan, type Plan } from "./plan.ts";
import { recover } from "./recover.ts";
import { runSteps } from "./steps.ts";
import { recordWithout, type Work } from "./work.ts";

export interface Outcome {
  changed: boolean;
  /** Taken from the node by this change, because the spec lists them no longer. */
  removed: string[];
  /** Served with our options, sorted. */
  handlers: string[];
  /** No longer listed, but used. */
  blocked: Plan["blocked"];
}

export interface ConvergeOptions {
  /** A person asks for another attempt at content that failed. */
  retry?: boolean;
  /** The same, by a token: another one than the journal has is a request that was not acted upon yet. */
  retryToken?: string;
  /** false: drift is put right only as far as containerd need not be restarted. */
  mayRestart?: boolean;
  /** Uninstall: nothing at all changes while a pod uses one of the handlers. */
  refuseBlocked?: boolean;
}

/** As often is a file planned anew that others keep changing. */
const maximumRounds = 5;
/** Longer than the guard's script, shorter than a person's patience. */
const lockTimeoutMs = 30_000;

/**
 * Brings the node to the spec, or finds that it is there: then nothing is written, locked or restarted. Throws
 * `Refusal` (nothing changed), `RolledBack`, `RollbackFailed`, or what the machine did wrong.
 */
export async function converge(environment: Environment, options: ConvergeOptions = {}): Promise<Outcome> {
  const { host, spec } = environment;
  const journal = await readJournal(host, spec.group);
  if (journal.transaction === undefined && !(await guardIsThere(host))) {
    const { observation, plan } = await look(environment, journal);
    if (isDone(observation, plan)) {
      refuseIfBlocked(plan, options);
      return finish(environment, observation, plan);
    }
    // A runtime whose last pod ended leaves by the spec's wish, which is no drift.
    const drifted = plan.removed.length === 0 && (plan.edit || plan.restart);
    if (options.mayRestart === false && drifted) refuseRestart(observation);
  }
  environment.log.keep();
  const lock = await host.lock(lockPath, lockTimeoutMs);
  try {
    await recover(environment, await readJournal(host, spec.group));
    return await rounds(environment, options);
  } finally {
    await lock.release();
    await environment.log.flush();
  }
}

async function rounds(environment: Environment, options: ConvergeOptions): Promise<Outcome> {
  const { host, spec, log, cluster } = environment;
  let done: Plan | undefined;
  for (let round = 0; round < maximumRounds; round += 1) {
    let journal = await readJournal(host, spec.group);
    let { observation, plan } = await look(environment, journal);
    if (isDone(observation, plan)) {
      refuseIfBlocked(plan, options);
      return finish(environment, observation, plan, done);
    }
    requireServing(observation);
    // First no new pods, then a look whether there are any.
    await cluster.reporter.setServed(without(servedHandlers(observation, plan.entries), plan.removed));
    if (plan.removed.length > 0) ({ observation, plan } = await look(environment, journal));
    requireServing(observation);
    refuseIfBlocked(plan, options);
    journal = await resetBreaker(environment, journal, options);
    refuseFailed(plan, journal, environment.specHash);
    const stat = await host.stat(observation.located.file);
    const attributes = stat ?? journal.file?.attributes ?? { mode: 0o644, uid: 0, gid: 0 };
    const { mode, uid, gid } = attributes;
    const work: Work = { environment, observation, plan, journal, attributes: { mode, uid, gid }, backup: undefined };
    try {
      await runSteps(work);
      done = plan;
    } catch (error) {
      if (!(error instanceof FileChanged)) throw error;
      log.warn("planned-anew", { reason: error.message });
    }
  }
  throw new Refusal(
    "file-contested",
    `Another program kept changing containerd's configuration on this node: it was planned ${maximumRounds} times. ` +
      "Find out which one (configuration management, another installer) and stop it while runtimes are installed.",
  );
}

async function look(environment: Environment, journal: Journal) {
  const observation = await observeHost(environment, journal, { criTimeoutMs: 5_000 });
  return { observation, plan: await makePlan(environment.host, environment.spec, observation) };
}

/** Of a daemon that does not answer nothing is known, which is enough where it shall serve nothing. */
const isDone = ({ serving }: Observation, plan: Plan): boolean =>
  isEmpty(plan) && (serving !== undefined || plan.entries.length === 0);

async function finish(environment: Environment, observation: Observation, plan: Plan, done?: Plan): Promise<Outcome> {
  const handlers = servedHandlers(observation, plan.entries);
  const listed = new Set(environment.spec.runtimes.map(({ handler }) => handler));
  // A handler that is on its way out takes no new pods.
  await environment.cluster.reporter.setServed(handlers.filter((handler) => listed.has(handler)));
  // A node that failed keeps its ticket; when the spec went back to what it serves, there is nothing left to do for it.
  await environment.cluster.tickets.release();
  if (done !== undefined) environment.log.info("converged", { handlers, blocked: plan.blocked });
  return { changed: done !== undefined, removed: done?.removed ?? [], handlers, blocked: plan.blocked };
}

const without = (handlers: string[], removed: string[]) => handlers.filter((handler) => !removed.includes(handler));

function servedHandlers({ serving }: Observation, entries: HandlerEntry[]): string[] {
  if (serving === undefined) return [];
  return entries
    .filter((entry) => serves(serving, [entry]).length === 0)
    .map(({ handler }) => handler)
    .sort();
}

function requireServing({ serving, notServing, located }: Observation): void {
  if (serving !== undefined) return;
  throw new Refusal(
    "cri-broken-before",
    `containerd's CRI on this node (${located.socket}) did not answer before anything was changed: ${notServing}. ` +
      `The node is left alone. Repair the unit ${located.unit} first; the installer then goes on by itself. ` +
      "If containerd listens elsewhere (grpc.address in its configuration), set distribution.socket.",
  );
}

function refuseIfBlocked(plan: Plan, { refuseBlocked }: ConvergeOptions): void {
  const [first] = plan.blocked;
  if (!refuseBlocked || first === undefined) return;
  const users = plan.blocked.map(({ handler, pods }) => `${handler} (${pods.join(", ")})`);
  throw new Refusal(
    "runtime-in-use",
    `Pods on this node still use ${users.join("; ")}. Nothing was removed. Delete those pods, or move them to other nodes, then uninstall again.`,
  );
}

function refuseFailed(plan: Plan, { failure }: Journal, specHash: string): void {
  if (failure === undefined || !failure.final || !(plan.edit || plan.restart)) return;
  if (failure.specHash !== specHash || failure.content !== (digestOf(plan.next) ?? null)) return;
  throw new Refusal(
    "failed-before",
    `This very change failed on this node at ${failure.at} and was taken back: ${failure.reason}. ` +
      "It is not tried again by itself. Change the spec, or ask for another attempt (--retry).",
  );
}

/** Forgets a failure when a person asks for another attempt; what was asked before a failure is no answer to it. */
async function resetBreaker(
  environment: Environment,
  journal: Journal,
  { retry, retryToken }: ConvergeOptions,
): Promise<Journal> {
  const isNews = retryToken !== undefined && retryToken !== journal.retryToken;
  if (!isNews && !(retry && journal.failure !== undefined)) return journal;
  const changed = { environment, journal };
  await recordWithout(changed, "failure", isNews ? { retryToken } : {});
  return changed.journal;
}

function refuseRestart({ located }: Observation): never {
  throw new Refusal(
    "drift-again",
    `${located.file} or the running containerd drifted from the spec again soon after it was put right. ` +
      "Another program seems to change it: find out which one. The installer tries again later.",
  );
}

/** The listed handlers that the daemon serves at this moment; none where that cannot be told. */
export async function servedNow(environment: Environment): Promise<string[]> {
  try {
    const journal = await readJournal(environment.host, environment.spec.group);
    const observation = await observeHost(environment, journal, { criTimeoutMs: 5_000 });
    return servedHandlers(observation, environment.spec.runtimes.map(entryOf));
  } catch {
    return [];
  }
}
