import { readFile } from "node:fs/promises";
import { listed } from "../../runtime/printable.ts";
import { Refusal } from "../../runtime/refusal.ts";
import type { HandlerEntry } from "../containerd/entry.ts";
import type { Located } from "../containerd/locate.ts";
import { serves } from "../containerd/serving.ts";
import { digestOf, FileChanged } from "../host/files.ts";
import { guardIsThere } from "../host/guard.ts";
import { type Journal, readJournal, takeOver } from "../host/journal.ts";
import { lockNode } from "../host/node-lock.ts";
import { allowAnotherHour } from "../host/restart-budget.ts";
import type { NodeStatus } from "../kubernetes/status.ts";
import { type Attempt, type JournalHolder, recordWithout } from "./attempt.ts";
import type { Environment } from "./environment.ts";
import { labelled } from "./labelled.ts";
import { type Observation, observeDisk, observeHost } from "./observe.ts";
import { isEmpty, makePlan, mayBeDrift, type Plan, refuseBroken, refusePending } from "./plan.ts";
import { UsedMeanwhile } from "./prepare.ts";
import { recover } from "./recover.ts";
import { requireRestart, suspects } from "./restarts.ts";
import { removeStale } from "./stale.ts";
import { runSteps } from "./steps.ts";
import { PutBack } from "./transaction.ts";

export interface Outcome {
  changed: boolean;
  /** Removed from the node by this change, because the spec no longer lists them. */
  removed: string[];
  /** Served with our options, sorted. */
  handlers: string[];
  /** No longer listed, but still used. */
  blocked: Plan["blocked"];
}

export type StatusOf = (outcome: Outcome) => Promise<NodeStatus>;

export interface ConvergeOptions {
  /** A person asks for another attempt at content that failed. */
  retry?: boolean;
  /** The same, by a token: one that differs from the journal's is a request that was not acted on yet. */
  retryToken?: string;
  /** What differs from the spec is drift: the node served it before. */
  isDrift?: boolean;
  /** false: drift is repaired only if containerd need not be restarted. */
  mayRestart?: boolean;
  /** What to report of a change that succeeded; it is written together with the labels. */
  statusOf?: StatusOf;
  /** For uninstall: nothing at all is changed while a pod uses one of the handlers. */
  refuseBlocked?: boolean;
}

/** How often a change is planned if other programs keep changing the file. */
const maximumRounds = 5;
/** How often a file is given to containerd that another program replaces at once: twice is no chance. */
const maximumPutBack = 2;
/** Longer than the guard's script, shorter than a person's patience. */
const lockTimeoutMs = 30_000;

/**
 * Brings the node in line with the spec. If it already is, nothing is written, locked or restarted. Throws `Refusal`
 * (nothing changed), `RolledBack`, `RollbackFailed`, or an error of the machine.
 */
export async function converge(environment: Environment, options: ConvergeOptions = {}): Promise<Outcome> {
  const { host, spec } = environment;
  const journal = await readJournal(host, spec);
  if (journal.group === spec.group && journal.transaction === undefined && !(await guardIsThere(host))) {
    const { observation, plan } = await look(environment, journal);
    // What only processes use may be a sandbox of ours, which is looked for with the lock held.
    const isHeld = plan.blocked.some(({ handler }) => !observation.users.has(handler));
    if (isDone(observation, plan) && !isHeld) {
      refuseIfBlocked(plan, options);
      const { outcome, labels } = await finish(environment, observation, plan);
      // A host may lose after an installation what it needs: its TEE with a new BIOS or kernel, its devices, a mount.
      if (spec.runtimes.some(({ handler }) => !labels.includes(handler)))
        await environment.checkHost(observation.located);
      return outcome;
    }
    const drifted = mayBeDrift(plan) && (plan.edit || plan.restart);
    if (options.mayRestart === false && drifted) throw await driftAgain(environment, observation);
  }
  environment.log.keep();
  const lock = await lockNode(host, lockTimeoutMs);
  try {
    await begin(environment);
    return await rounds(environment, options);
  } finally {
    await lock.release();
    await environment.log.flush();
  }
}

/** With the lock held: the node is the group's under its name of now, and what an earlier run left open is closed. */
async function begin(environment: Environment): Promise<void> {
  const { host, spec, log } = environment;
  const found = await readJournal(host, spec);
  const journal = await takeOver(host, spec, found);
  if (journal !== found) log.info("taken-over", { formerly: found.group });
  await recover(environment, journal);
}

async function rounds(environment: Environment, options: ConvergeOptions): Promise<Outcome> {
  const { host, spec, log } = environment;
  let done: Plan | undefined;
  let putBack = 0;
  let located: Located | undefined;
  for (let round = 0; round < maximumRounds; round += 1) {
    let journal = await readJournal(host, spec);
    let { observation, plan } = await look(environment, journal);
    if (round === 0) {
      await removeStale(environment, observation);
      if (plan.blocked.length > 0) ({ observation, plan } = await look(environment, journal));
    }
    if (isDone(observation, plan)) {
      refuseIfBlocked(plan, options);
      return (await finish(environment, observation, plan, { done, statusOf: options.statusOf })).outcome;
    }
    located = observation.located;
    await requireServing(environment, observation, plan, options);
    if (round === 0) {
      await label(environment, observation);
      // New pods may be kept away only now, so whether there are any is looked up again.
      if (plan.removed.length > 0) {
        ({ observation, plan } = await look(environment, journal));
        await requireServing(environment, observation, plan, options);
      }
    }
    journal = observation.journal;
    refuseIfBlocked(plan, options);
    journal = await resetBreaker(environment, journal, options);
    refuseFailed(plan, journal, environment.specHash);
    const disk = plan.edit || plan.restart ? await observeDisk(environment, observation) : undefined;
    if (disk !== undefined) {
      refuseBroken(observation, plan, disk);
      refusePending(observation.located, disk.pending, spec);
      await requireRestart(environment, observation, plan.entries);
    }
    const stat = await host.stat(observation.located.file);
    const { mode, uid, gid } = stat ?? journal.file?.attributes ?? { mode: 0o644, uid: 0, gid: 0 };
    const attributes = { mode, uid, gid };
    const purpose = options.isDrift && mayBeDrift(plan) ? "repair" : "change";
    const attempt: Attempt = { environment, observation, plan, disk, journal, attributes, purpose, backup: undefined };
    try {
      await runSteps(attempt);
      done = plan;
    } catch (error) {
      if (!(error instanceof FileChanged || error instanceof UsedMeanwhile)) throw error;
      log.warn("planned-anew", { reason: error.message });
      if (error instanceof PutBack) putBack += 1;
      if (putBack >= maximumPutBack) break;
    }
  }
  const writers = located === undefined ? [] : await environment.daemon.writers(located);
  const what =
    putBack >= maximumPutBack
      ? `another program replaced it as soon as containerd was restarted, ${putBack} times`
      : `the change was planned anew ${maximumRounds} times`;
  throw new Refusal(
    "file-contested",
    `Another program kept changing containerd's configuration ${located?.file ?? ""} on this node: ${what}. ${suspects(writers)}` +
      "Find out which one it is (configuration management, another installer) and stop it while runtimes are installed, or let it write what contrast-runtime adds.",
  );
}

async function look(environment: Environment, journal: Journal) {
  const { podsUsing } = environment.cluster.reporter;
  const observation = await observeHost(environment, journal, { criTimeoutMs: 5_000, podsUsing });
  const registry = await guestRegistry(environment);
  return { observation, plan: await makePlan(environment.host, environment.spec, observation, registry) };
}

/** What guests are told about registries, where a runtime's are told anything. */
async function guestRegistry({ spec, guestRegistry: path }: Environment): Promise<Buffer | undefined> {
  const runtime = spec.runtimes.find(({ imagePuller }) => imagePuller !== undefined);
  if (runtime === undefined) return undefined;
  try {
    if (path !== undefined) return await readFile(path);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code !== "ENOENT") throw error;
  }
  throw new Refusal(
    "guest-registry-missing",
    `The guests of ${runtime.handler} are to be told how to reach registries, but ${path === undefined ? "no file says how: give it with --guest-registry" : `there is no ${path}, which the Secret of the stack's registry.guest brings`}.`,
  );
}

/** Nothing is known about a daemon that does not answer, which is enough if it should serve nothing. */
const isDone = ({ serving }: Observation, plan: Plan): boolean =>
  isEmpty(plan) && (serving !== undefined || plan.entries.length === 0);

async function finish(
  environment: Environment,
  observation: Observation,
  plan: Plan,
  { done, statusOf }: { done?: Plan | undefined; statusOf?: StatusOf | undefined } = {},
): Promise<{ outcome: Outcome; labels: string[] }> {
  const handlers = servedHandlers(observation, plan.entries);
  const outcome = { changed: done !== undefined, removed: done?.removed ?? [], handlers, blocked: plan.blocked };
  const labels = await label(environment, observation, await statusOf?.(outcome));
  // A failed node keeps its ticket; if the spec was set back to what the node serves, nothing is left to do for it.
  await environment.cluster.tickets.release();
  if (done !== undefined) environment.log.info("converged", { handlers, blocked: plan.blocked });
  return { outcome, labels };
}

/** The startup taint goes with the last label: a node that serves only some of the list is still being set up. */
async function label(
  environment: Environment,
  { located, serving, journal }: Observation,
  status?: NodeStatus,
): Promise<string[]> {
  const { runtimes, startupTaint } = environment.spec;
  const handlers = await labelled(environment, located, serving, journal);
  const isComplete = runtimes.every(({ handler }) => handlers.includes(handler));
  await environment.cluster.reporter.setServed(handlers, { lifted: isComplete ? startupTaint : undefined, status });
  return handlers;
}

function servedHandlers({ serving }: Observation, entries: HandlerEntry[]): string[] {
  if (serving === undefined) return [];
  return entries
    .filter((entry) => serves(serving, [entry]).length === 0)
    .map(({ handler }) => handler)
    .sort();
}

/**
 * A daemon that does not serve is left alone, unless what is ours may be why: if nothing of ours shall be left, or if
 * containerd does not load its file (the validation then proves that it does without our tables).
 */
async function requireServing(
  { daemon }: Environment,
  { serving, notServing, located, present }: Observation,
  plan: Plan,
  options: ConvergeOptions,
): Promise<void> {
  if (serving !== undefined || plan.entries.length === 0) return;
  refuseIfBlocked(plan, options);
  if (plan.edit && present.length > 0 && !(await daemon.loads(located))) return;
  const why = await daemon.whyDown(located);
  throw new Refusal(
    "cri-broken-before",
    `containerd's CRI on this node (${located.socket}) did not answer before anything was changed: ${notServing}. ` +
      `${why === undefined ? "" : `The reason seems to be: ${why}. `}` +
      `The node is left alone. Repair the unit ${located.unit} first; the installer then continues automatically. ` +
      "If containerd listens elsewhere (grpc.address in its configuration), set distribution.socket.",
  );
}

function refuseIfBlocked(plan: Plan, { refuseBlocked }: ConvergeOptions): void {
  const [first] = plan.blocked;
  if (!refuseBlocked || first === undefined) return;
  const users = plan.blocked.map(({ handler, pods }) => `${handler} (${listed(pods)})`);
  throw new Refusal(
    "runtime-in-use",
    `Still used on this node: ${users.join("; ")}. Nothing was removed. Delete those pods, or move them to other nodes, and end those processes; then uninstall again.`,
  );
}

function refuseFailed(plan: Plan, { failure }: Journal, specHash: string): void {
  if (failure === undefined || !failure.final || !(plan.edit || plan.restart)) return;
  if (failure.specHash !== specHash || failure.content !== (digestOf(plan.next) ?? null)) return;
  throw new Refusal(
    "failed-before",
    `The same change failed on this node at ${failure.at} and was rolled back: ${failure.reason}. ` +
      "It is not retried automatically. Change the spec, or ask for another attempt (--retry).",
  );
}

/** Forgets a failure if a person asks for another attempt; a request from before the failure does not count. */
async function resetBreaker(
  environment: Environment,
  journal: Journal,
  { retry, retryToken }: ConvergeOptions,
): Promise<Journal> {
  const isNews = retryToken !== undefined && retryToken !== journal.retryToken;
  if (isNews || retry) await allowAnotherHour(environment.host);
  if (!isNews && !(retry && journal.failure !== undefined)) return journal;
  const holder: JournalHolder = { environment, journal };
  await recordWithout(holder, "failure", isNews ? { retryToken } : {});
  return holder.journal;
}

async function driftAgain({ daemon }: Environment, { located }: Observation): Promise<Refusal> {
  return new Refusal(
    "drift-again",
    `${located.file} or the running containerd drifted from the spec again soon after it was repaired. ` +
      `Another program seems to change it. ${suspects(await daemon.writers(located))}The installer tries again later.`,
  );
}

/**
 * Finishes or undoes a change that an earlier run left open, which needs no API server: it may be away because this very
 * node is broken.
 */
export async function recoverFirst(environment: Environment): Promise<void> {
  const { host, spec, log } = environment;
  const { transaction } = await readJournal(host, spec);
  if (transaction === undefined && !(await guardIsThere(host))) return;
  log.keep();
  const lock = await lockNode(host, lockTimeoutMs);
  try {
    await begin(environment);
  } finally {
    await lock.release();
    await log.flush();
  }
}
