import { canonicalJson, sha256 } from "../../runtime/canonical.ts";
import { Refusal } from "../../runtime/refusal.ts";
import type { HandlerEntry } from "../containerd/entry.ts";
import {
  budgetOf,
  countRestart,
  forChange,
  type Restart,
  type RestartFor,
  restartsOf,
  restartsPath,
} from "../host/restart-budget.ts";
import type { Attempt } from "./attempt.ts";
import type { Environment } from "./environment.ts";
import type { Observation } from "./observe.ts";

/*
 * Every restart of containerd that the installer makes goes through `restart`, which counts it first. A change asks for
 * room for two beforehand: whatever comes of it, its rollback must not be the one that is refused.
 */

/**
 * What a restart is counted for: our own part of containerd's file. Neither what a spec says besides it nor what other
 * programs write into the file makes an attempt a new one.
 */
const contentOf = (entries: readonly HandlerEntry[]): string =>
  sha256(canonicalJson(entries.toSorted((a, b) => (a.handler < b.handler ? -1 : 1)))).slice(0, 8);

/** A restart for a change of containerd's file, or for its rollback. */
export async function restart({ environment, observation, plan }: Attempt, purpose: RestartFor): Promise<void> {
  const { host, daemon, cluster, log } = environment;
  const { located } = observation;
  // A systemd that does not answer this may still restart it.
  if (await daemon.isStarting(located).catch(() => false)) {
    log.info("still-starting", { unit: located.unit });
    return;
  }
  cluster.metrics.restarts += 1;
  const counted = countRestart(host, purpose, contentOf(plan.entries));
  // A full disk must not prevent a rollback.
  await (purpose === "rollback" ? counted.catch(() => undefined) : counted);
  await daemon.restart(located);
}

/** Whether a change may restart containerd now. Entries that this node has not tried yet are no repetition of anything. */
export async function mayRestart(
  { host }: Pick<Environment, "host">,
  entries: readonly HandlerEntry[],
): Promise<boolean> {
  const restarts = await restartsOf(host);
  const isNew = !restarts.some(({ content }) => content === contentOf(entries));
  return isNew || (await budgetOf(host)).left >= forChange;
}

/** Whether there is any restart left, for a rollback that has been tried before. */
export async function isSpent({ host }: Pick<Environment, "host">): Promise<boolean> {
  return (await budgetOf(host)).left === 0;
}

/** Called before a change that restarts containerd begins. */
export async function requireRestart(
  environment: Environment,
  { located }: Observation,
  entries: readonly HandlerEntry[],
): Promise<void> {
  if (await mayRestart(environment, entries)) return;
  const { host, daemon } = environment;
  const writers = await daemon.writers(located);
  const restarts = await restartsOf(host);
  const { more, isDaySpent } = await budgetOf(host);
  const earlier = isDaySpent
    ? `. Asking for it (--retry) does not help before: it begins a new hour's budget, and the day's is spent. Once the cause is gone, delete ${restartsPath} on the node to go on at once`
    : ", or earlier if somebody asks for it (--retry)";
  throw new Refusal(
    "restart-budget",
    `containerd was restarted ${restarts.length} times in the last 24 hours on this node (${purposes(restarts)}), so the installer leaves ${located.file} and containerd as they are now. ` +
      `${suspects(writers)}The next attempt is made at ${more?.toISOString() ?? "a later time"}${earlier}.`,
  );
}

/** A sentence with a space behind it. */
export const suspects = (writers: readonly string[]): string =>
  writers.length === 0 ? "" : `What was found about who writes it: ${writers.join("; ")}. `;

const purposes = (restarts: readonly Restart[]): string => {
  const counts = new Map<string, number>();
  for (const { for: purpose } of restarts) counts.set(purpose, (counts.get(purpose) ?? 0) + 1);
  return [...counts].map(([purpose, count]) => `${purpose}: ${count}`).join(", ");
};
