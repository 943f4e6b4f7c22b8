import { posix } from "node:path";
import { isDeepStrictEqual } from "node:util";
import { listed } from "../../runtime/printable.ts";
import { Refusal } from "../../runtime/refusal.ts";
import { runtimeDirectory } from "../../runtime/spec.ts";
import type { Located } from "../containerd/locate.ts";
import { noticesOf } from "../containerd/notices.ts";
import { requireSystemd, unitState } from "../containerd/restart.ts";
import { requireKeepable } from "../host/access.ts";
import { digestOf, FileChanged, rootOwned, stagedPath, writeFileAtomically } from "../host/files.ts";
import { notRoots } from "../host/owners.ts";
import { reportServing } from "../kubernetes/reporter.ts";
import { waitForTicket } from "../kubernetes/tickets.ts";
import { requireReplaceable } from "../requirements/replaceable.ts";
import { type Attempt, makeOwnDirectory, record, withRuntime } from "./attempt.ts";
import { adoptBackups, backUp } from "./backup.ts";
import { type Disk, type Observation, observeDisk, observeHost, usersOf } from "./observe.ts";
import { findSources, placePayload, removeStaged } from "./payload.ts";
import { bytesToCopy, filesToCome } from "./plan.ts";
import { requireRoomForChange, requireRoomForPayloads } from "./space.ts";
import type { StepName } from "./step-names.ts";

/*
 * The steps before the edit. They touch nothing that exists: a failure leaves at most files that nothing refers to, and
 * the journal knows them.
 */

export async function checkHost({ environment, observation, plan, attributes }: Attempt): Promise<void> {
  const { host } = environment;
  const { located } = observation;
  if (plan.untrusted.length > 0) throw notRoots(plan.untrusted);
  await requireSystemd(host, located);
  if (plan.edit) {
    for (const reason of noticesOf(located)) environment.log.warn("notice", { reason });
    requireBinary(located);
    await requireReplaceable(host, located.file);
    // Whoever loads what appears in a directory would load the trial.
    if (located.restart === "systemctl")
      await requireKeepable(host, located.file, stagedPath(located.file), attributes);
  }
  await environment.checkHost(located);
  for (const payload of plan.payloads) await removeStaged(host, payload);
  await requireRoomForPayloads(host, plan.payloads);
  await requireRoomForChange(host, located.file);
}

/** For a plan, a version in the spec is enough; but before a daemon gets a file, its binary must have read it. */
function requireBinary({ binary, file, unit, version }: Located): void {
  if (binary !== undefined) return;
  throw new Refusal(
    "containerd-missing",
    `No containerd program was found through the unit ${unit}, only the version ${version} in the install spec, so a change of ${file} cannot be tried before it is made. ` +
      "Set distribution.unit to the unit that starts containerd by the program's own path.",
  );
}

/** The node's own containerd reads the new configuration, which only names the payload, before that is copied. */
export async function validateCandidate(attempt: Attempt): Promise<void> {
  await validate(attempt, filesToCome(attempt.plan));
}

async function validate({ environment, observation, plan }: Attempt, toCome: ReadonlySet<string>): Promise<void> {
  const { daemon, host, log } = environment;
  const { located, serving, known } = observation;
  try {
    await daemon.validate(located, plan.next, plan.entries, { known, toCome });
  } catch (error) {
    if (!(error instanceof Refusal) || error.code !== "configuration-broken-before") throw error;
    // What is ours can be removed nevertheless, if no restart can make anything worse.
    const isDown = serving === undefined && (await unitState(host, located.unit)).active !== "active";
    if (plan.entries.length > 0 || !isDown) throw error;
    log.warn("not-validated", { reason: error.message });
  }
}

export async function placePayloads(attempt: Attempt): Promise<void> {
  const { host, payloads, cluster } = attempt.environment;
  for (const plan of attempt.plan.payloads) await findSources(host, plan, payloads);
  for (const plan of attempt.plan.payloads) {
    const { handler } = plan.runtime;
    if (plan.missing.length === 0 && plan.recorded) continue;
    // Recorded before the first byte is copied, so that what a kill leaves behind is removed later.
    const isKnown = attempt.journal.runtimes.some(({ runtime }) => runtime.handler === handler);
    if (!isKnown) await record(attempt, { runtimes: withRuntime(attempt.journal.runtimes, plan.runtime, {}) });
    await makeOwnDirectory(attempt, posix.dirname(runtimeDirectory(handler)));
    const files = await placePayload(host, plan, payloads);
    await record(attempt, { runtimes: withRuntime(attempt.journal.runtimes, plan.runtime, { files }) });
  }
  cluster.metrics.bytesCopied += bytesToCopy(attempt.plan);
}

export async function writeKataConfigurations({ environment, plan }: Attempt): Promise<void> {
  for (const { path, content } of plan.kataConfigurations) {
    await environment.host.makeDirectory(posix.dirname(path), 0o755);
    await writeFileAtomically(environment.host, path, content, rootOwned(0o644));
  }
  for (const { path, content } of plan.guestRegistries) {
    await environment.host.makeDirectory(posix.dirname(path), 0o755);
    await writeFileAtomically(environment.host, path, content, rootOwned(0o600));
  }
}

/**
 * A wait can last for hours, and so can the copying of payloads: what was observed before must still hold, or the change is
 * planned anew, with the ticket in hand.
 */
async function lookAgain(attempt: Attempt, waited: boolean): Promise<void> {
  const { environment, observation } = attempt;
  const { podsUsing } = environment.cluster.reporter;
  const now = await observeHost(environment, attempt.journal, { criTimeoutMs: 5_000, podsUsing });
  const disk = await observeDisk(environment, now);
  const changed = changedSince({ ...observation, disk: attempt.disk }, { ...now, disk });
  if (changed !== undefined) throw new FileChanged(`${changed} since the change was planned`);
  // What it imports may have changed and been loaded by a restart, and the payload must be there by now.
  if (waited || filesToCome(attempt.plan).size > 0) await validate(attempt, new Set());
}

type Seen = Observation & { disk: Disk | undefined };

function changedSince(before: Seen, now: Seen): string | undefined {
  const { located } = before;
  const served = ({ serving }: Observation) =>
    serving && { version: serving.version, defaultRuntime: serving.defaultRuntime, handlers: serving.handlers };
  const parts: [what: string, of: (seen: Seen) => unknown][] = [
    ["the place of containerd's configuration has changed", (one) => one.located],
    [`${located.file} has changed`, (one) => digestOf(one.edited)],
    [`${located.configuration} has changed`, (one) => digestOf(one.configuration)],
    ["what containerd's configuration means has changed", (one) => one.disk?.onDisk],
    ["what containerd serves has changed", served],
    ["files have changed that containerd has not loaded", (one) => (one.disk?.pending.length ?? 0) > 0],
    ["the pods that use a handler have changed", (one) => [...one.users]],
  ];
  return parts.find(([, of]) => !isDeepStrictEqual(of(before), of(now)))?.[0];
}

/** How soon a pod that waits for its turn ends when it is told to. */
const stopLookMs = 1_000;

/** Nodes of a group take turns from here to the commit; a node that fails keeps its ticket. */
export async function takeTicket(attempt: Attempt): Promise<void> {
  const { environment } = attempt;
  let waited = false;
  const { cluster, host, log, signal, specHash } = environment;
  signal?.throwIfAborted();
  await cluster.confinement.require(true);
  await waitForTicket(cluster.tickets, {
    async delay(ms) {
      for (let waited = 0; waited < ms; waited += stopLookMs) {
        await host.delay(Math.min(stopLookMs, ms - waited));
        signal?.throwIfAborted();
      }
    },
    onWait(waitingFor) {
      waited = true;
      const reason =
        waitingFor.what === "ticket"
          ? "Waiting for its turn to restart containerd. `contrast-runtime status` names the nodes that have a ticket."
          : `Waiting for its turn to restart containerd: the API server does not say whose it is: ${waitingFor.reason}.`;
      log.info("waiting", { reason });
      const code: StepName = "take-ticket";
      reportServing(cluster.reporter, { state: "waiting", code, reason, specHash });
    },
  });
  await lookAgain(attempt, waited);
}

/** A pod came to a handler that this change would remove. */
export class UsedMeanwhile extends Error {
  override readonly name = "UsedMeanwhile";
}

/**
 * Keeps new pods away from the handlers that go, then looks whether there are any: the wait for the ticket may have lasted
 * for hours. A pod that is bound later than this does not come: kubelet refuses pods whose node selector the node's labels
 * do not match.
 */
export async function cordon({ environment, observation, plan }: Attempt): Promise<void> {
  const { daemon, cluster } = environment;
  const { reporter } = cluster;
  await reporter.setServed(reporter.served().filter((handler) => !plan.removed.includes(handler)));
  // A CRI that is down takes no pods, and cannot be asked; the plan has looked for processes instead.
  if (observation.serving === undefined) return;
  for (const handler of plan.removed) {
    const pods = await usersOf(daemon, observation.located, handler, reporter.podsUsing);
    if (pods.length > 0) throw new UsedMeanwhile(`${handler} is used by ${listed(pods)} by now`);
  }
}

export async function backUpFile(attempt: Attempt): Promise<void> {
  const { located, edited } = attempt.observation;
  if (edited === undefined) return;
  const { host } = attempt.environment;
  const own = attempt.journal.file;
  const adopted = await adoptBackups(host, located.file, own?.backups ?? []);
  // By their names, they sort by their age. Before the first change, there is no record yet that could name them.
  if (own !== undefined && adopted.length > 0)
    await record(attempt, { file: { ...own, backups: [...own.backups, ...adopted].sort() } });
  attempt.backup = await backUp(host, located.file, edited, attempt.attributes);
}
