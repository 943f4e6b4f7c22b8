import type { InstallSpec } from "../../runtime/spec.ts";
import type { ServingState } from "../containerd/serving.ts";
import { brokenBefore, validateImports } from "../containerd/validate.ts";
import { type Bundle, named } from "../host/bundle.ts";
import type { Host } from "../host/host.ts";
import { readJournal } from "../host/journal.ts";
import type { Daemon } from "./daemon.ts";
import { observeDisk, observeHost } from "./observe.ts";
import { changesOf, makePlan } from "./plan.ts";

/** A dry run: the plan for a host as it is now. Only reads. */
export async function planFor(host: Host, daemon: Daemon, spec: InstallSpec) {
  const journal = await readJournal(host, spec.group);
  try {
    const observation = await observeHost({ daemon, spec }, journal, { criTimeoutMs: 2_000 });
    const plan = await makePlan(host, spec, observation);
    const changes = await changesOf(host, plan, observation);
    // The only part of the validation that writes nothing: the node's own containerd reads a candidate file later.
    if (plan.edit || plan.restart)
      await validateImports(host, observation.located, observation.configuration, plan.entries);
    const disk = plan.edit || plan.restart ? await observeDisk({ host, daemon, spec }, observation) : undefined;
    if (disk?.onDisk.error !== undefined) throw brokenBefore(observation.located, disk.onDisk.error);
    return { plan, changes, pending: disk?.pending ?? [], servingKnown: observation.serving !== undefined };
  } finally {
    daemon.close();
  }
}

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
    sandboxesUsing: async (_located, handler) => named(bundle.users, handler, "pod"),
  };
}
