import type { InstallSpec } from "../../runtime/spec.ts";
import { noticesOf } from "../containerd/notices.ts";
import type { ServingState } from "../containerd/serving.ts";
import { validateConfiguration, validateImports } from "../containerd/validate.ts";
import { type Bundle, named } from "../host/bundle.ts";
import type { Host } from "../host/host.ts";
import { readJournal } from "../host/journal.ts";
import { requireReplaceable } from "../requirements/replaceable.ts";
import type { Daemon } from "./daemon.ts";
import { observeDisk, observeHost } from "./observe.ts";
import { changesOf, filesToCome, makePlan, refuseBroken } from "./plan.ts";

/**
 * A dry run: the plan for a host as it is now. Only reads.
 *
 * @param asked whether the node's own containerd is asked about the new configuration, if it is there to be asked
 */
export async function planFor(host: Host, daemon: Daemon, spec: InstallSpec, asked = false) {
  const journal = await readJournal(host, spec);
  const observation = await observeHost({ daemon, spec }, journal, { criTimeoutMs: 2_000 });
  const plan = await makePlan(host, spec, observation);
  const changes = await changesOf(host, plan, observation);
  const { located, configuration, serving, known } = observation;
  if (plan.edit) await requireReplaceable(host, located.file);
  if (plan.edit && asked)
    await validateConfiguration(host, located, plan.next, plan.entries, {
      known,
      toCome: filesToCome(plan),
      dryRun: true,
    });
  else if (plan.edit || plan.restart) await validateImports(host, located, configuration, plan.entries, plan.removed);
  const disk = plan.edit || plan.restart ? await observeDisk({ host, daemon, spec }, observation) : undefined;
  if (disk !== undefined) refuseBroken(observation, plan, disk);
  return {
    plan,
    changes,
    servingKnown: serving !== undefined,
    located,
    notices: noticesOf(located),
    pending: disk?.pending ?? [],
  };
}

const pendingInBundle =
  "Others have changed what containerd loads on this node, and it has not been restarted since (the installer's command plan, run there, says what)";

/** A daemon that repeats what it answered when the bundle was taken. */
export function replayingDaemon(daemon: Daemon, bundle: Bundle): Daemon {
  return {
    ...daemon,
    async serving(): Promise<ServingState> {
      if (bundle.serving === undefined) throw new Error("nothing answered when the bundle was taken");
      // What is left out decides nothing that a plan is about.
      return {
        version: "",
        runtimeReady: true,
        networkReady: true,
        messages: [],
        defaultRuntime: "",
        ...bundle.serving,
      };
    },
    pending: async () => (bundle.pending ? [pendingInBundle] : []),
    sandboxesUsing: async (_located, handler) => named(bundle.users, handler, "pod"),
  };
}
