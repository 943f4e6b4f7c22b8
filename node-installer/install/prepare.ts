import { posix } from "node:path";
import { Refusal } from "../../runtime/refusal.ts";
import { runtimeDirectory } from "../../runtime/spec.ts";
import type { Located } from "../containerd/locate.ts";
import { noticesOf } from "../containerd/notices.ts";
import { requireReplaceable } from "../containerd/replaceable.ts";
import { requireSystemd } from "../containerd/restart.ts";
import { rootOwned, writeFileAtomically } from "../host/files.ts";
import { notRoots } from "../host/owners.ts";
import { reportServing } from "../kubernetes/reporter.ts";
import { waitForTicket } from "../kubernetes/tickets.ts";
import { type Attempt, makeOwnDirectory, record, withRuntime } from "./attempt.ts";
import { backUp } from "./backup.ts";
import { placePayload, removeStaged } from "./payload.ts";
import { bytesToCopy } from "./plan.ts";
import { requireRoomForChange, requireRoomForPayloads } from "./space.ts";
import type { StepName } from "./step-names.ts";

/*
 * The steps before the edit. They touch nothing that exists: a failure leaves at most files that nothing refers to, and
 * the journal knows them.
 */

export async function checkHost({ environment, observation, plan }: Attempt): Promise<void> {
  const { host } = environment;
  const { located } = observation;
  if (plan.untrusted.length > 0) throw notRoots(plan.untrusted);
  await requireSystemd(host, located);
  if (plan.edit) {
    for (const reason of noticesOf(located)) environment.log.warn("notice", { reason });
    requireBinary(located);
    await requireReplaceable(host, located.file);
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

export async function placePayloads(attempt: Attempt): Promise<void> {
  const { host, payloads, cluster } = attempt.environment;
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
}

/** The node's own containerd reads the new configuration before the file gets it. */
export async function validateCandidate({ environment, observation, plan }: Attempt): Promise<void> {
  await environment.daemon.validate(observation.located, plan.next, plan.entries);
}

/** Nodes of a group take turns from here to the commit; a node that fails keeps its ticket. */
export async function takeTicket({ environment }: Attempt): Promise<void> {
  const { cluster, host, log, signal, specHash } = environment;
  signal?.throwIfAborted();
  await cluster.confinement.require(true);
  await waitForTicket(cluster.tickets, {
    async delay(ms) {
      await host.delay(ms);
      signal?.throwIfAborted();
    },
    onWait(waitingFor) {
      const reason = `Waiting for its turn to restart containerd: ${waitingFor}.`;
      log.info("waiting", { reason });
      const code: StepName = "take-ticket";
      reportServing(cluster.reporter, { state: "waiting", code, reason, specHash });
    },
  });
}

export async function backUpFile(attempt: Attempt): Promise<void> {
  const { located, edited } = attempt.observation;
  if (edited === undefined) return;
  const { host } = attempt.environment;
  attempt.backup = await backUp(host, located.file, edited, attempt.attributes);
}
