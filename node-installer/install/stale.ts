import type { Environment } from "./environment.ts";
import { sentence } from "./log.ts";
import type { Observation } from "./observe.ts";

/**
 * With the lock held, so that no proof is under way: removes the sandboxes of ours that earlier runs left, whose shims would
 * keep their runtime's directory on the node. One that cannot be removed is in nobody's way, and only gets a line in the log.
 */
export async function removeStale({ daemon, log }: Environment, { located, serving }: Observation): Promise<void> {
  // A CRI that is down has nothing to be asked.
  if (serving === undefined) return;
  const reasons = await daemon.removeStaleSandboxes(located).catch((error: unknown) => [sentence(error)]);
  if (reasons.length > 0) log.warn("sandbox-left-over", { reasons });
}
