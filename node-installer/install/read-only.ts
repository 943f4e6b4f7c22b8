import type { ServingState } from "../containerd/serving.ts";
import type { Bundle } from "../host/bundle.ts";
import type { Host } from "../host/host.ts";
import { readJournal } from "../host/journal.ts";
import type { InstallSpec } from "../runtime/spec.ts";
import type { Daemon } from "./daemon.ts";
import { observeHost } from "./observe.ts";
import { changesOf, makePlan } from "./plan.ts";

/** The plan of a host as it is now; reads only. */
export async function planFor(host: Host, daemon: Daemon, spec: InstallSpec) {
  const journal = await readJournal(host, spec.group);
  try {
    const observation = await observeHost({ daemon, spec }, journal, { criTimeoutMs: 2_000 });
    const plan = await makePlan(host, spec, observation);
    const changes = await changesOf(host, plan, observation);
    // Proven as far as the tree allows it: with the host's own containerd, where there is one.
    if (plan.edit) await daemon.validate(observation.located, plan.next, plan.entries);
    return { plan, changes, servingKnown: observation.serving !== undefined };
  } finally {
    daemon.close();
  }
}

/** The validation writes a candidate beside the file; a plan writes nothing, so what it would say comes at the installation. */
export const readOnlyDaemon = (daemon: Daemon): Daemon => ({ ...daemon, validate: async () => undefined });

/** A daemon that answers what it answered when the bundle was taken. */
export function replayingDaemon(daemon: Daemon, bundle: Bundle): Daemon {
  return {
    ...daemon,
    validate: async () => undefined,
    async observe() {
      if (bundle.serving === undefined) throw new Error("nothing answered when the bundle was taken");
      return bundle.serving as unknown as ServingState;
    },
    sandboxesUsing: async (_located, handler) => bundle.users[handler] ?? [],
  };
}
