import { posix } from "node:path";
import { readIfThere, rootOwned, stagedPath, stateDirectory, writeFileAtomically } from "./files.ts";
import type { Host } from "./host.ts";

/**
 * How often containerd may be restarted on a node, whoever asks for it: an installation, its rollback, the repair of drift, a
 * recovery, the guard (guard.sh adds its own lines). Each restart is a line in one file, written before it happens, so that
 * neither a kill nor a reboot forgets it. Whatever makes the installer act again and again ends here.
 */
export const restartsPath = posix.join(stateDirectory, "restarts");

/** What a restart is for. */
export type RestartFor = "change" | "repair" | "recovery" | "rollback" | "guard";

export interface Restart {
  at: number;
  for: string;
  /** The first digits of the digest of what was written; the guard knows none. */
  content: string;
}

/**
 * In an hour: a change that fails, with its rollback and the guard's, and as much again for the corrected one. In a day:
 * twice that, which a program that spoils the file every half hour has used up after six hours.
 */
const limits = [
  { hours: 1, most: 6 },
  { hours: 24, most: 12 },
] as const;
/** A change begins only if its rollback can be paid for, too. */
export const forChange = 2;
const hourMs = 3_600_000;
const dayMs = 24 * hourMs;
/** Clocks are corrected by a little; a line that is far ahead was written by a clock that was wrong. */
const aheadMs = 60_000;

/** What the line is for that says that a person asked for another attempt. */
const asked = "asked";

/** The restarts of the last day, oldest first. */
export const restartsOf = async (host: Host): Promise<Restart[]> =>
  (await linesOf(host)).filter((line) => line.for !== asked);

/** How many restarts are left on this node, and when there will be more. */
export async function budgetOf(host: Host): Promise<Budget> {
  const lines = await linesOf(host);
  const askedAt = lines.findLast((line) => line.for === asked)?.at;
  return restartsLeft(
    lines.filter((line) => line.for !== asked),
    host.now().getTime(),
    askedAt,
  );
}

async function linesOf(host: Host): Promise<Restart[]> {
  const text = (await readIfThere(host, restartsPath))?.toString("utf8") ?? "";
  const now = host.now().getTime();
  return text
    .split("\n")
    .flatMap((line) => {
      const [time = "", purpose = "", content = ""] = line.split(" ");
      const at = Date.parse(time);
      return at > now - dayMs && at <= now + aheadMs ? [{ at, for: purpose, content }] : [];
    })
    .sort((a, b) => a.at - b.at);
}

export interface Budget {
  left: number;
  /** When there will be more. */
  more: Date | undefined;
  /** The day's are spent, so that asking for another attempt makes none. */
  isDaySpent: boolean;
}

/** @param askedAt when a person last asked for another attempt: the hour's budget begins anew there, the day's does not */
export function restartsLeft(restarts: readonly Restart[], now: number, askedAt = Number.NEGATIVE_INFINITY): Budget {
  const perLimit = limits.map(({ hours, most }) => {
    const since = hours === 1 ? askedAt : Number.NEGATIVE_INFINITY;
    const recent = restarts.filter(({ at }) => at > now - hours * hourMs && at > since);
    const oldest = recent[Math.max(0, recent.length - most + 1)];
    const more = oldest === undefined ? undefined : new Date(oldest.at + hours * hourMs);
    return { left: Math.max(0, most - recent.length), more };
  });
  const least = perLimit.reduce((a, b) => {
    if (a.left !== b.left) return a.left < b.left ? a : b;
    return (a.more?.getTime() ?? 0) > (b.more?.getTime() ?? 0) ? a : b;
  });
  return { ...least, isDaySpent: (perLimit.at(-1)?.left ?? 0) < forChange };
}

/** Records a restart that is about to happen. */
export async function countRestart(host: Host, purpose: RestartFor, content: string): Promise<void> {
  await addLine(host, await linesOf(host), { at: host.now().getTime(), for: purpose, content });
}

async function addLine(host: Host, known: readonly Restart[], line: Restart): Promise<void> {
  const lines = [...known, line].map(
    ({ at, for: reason, content: digits }) => `${new Date(at).toISOString()} ${reason} ${digits}\n`,
  );
  await host.makeDirectory(stateDirectory, 0o700);
  try {
    await writeFileAtomically(host, restartsPath, lines.join(""), rootOwned(0o600));
  } catch (error) {
    await removeStagedRestarts(host).catch(() => undefined);
    throw error;
  }
}

/** What a killed run may have left; there may be no other restart that would write it anew. */
export const removeStagedRestarts = (host: Host): Promise<void> => host.remove(stagedPath(restartsPath));

/**
 * A person asks for another attempt: the hour's budget begins anew. The day's stays, because what asks may be a program, too:
 * a pipeline that runs the update again and again.
 */
export async function allowAnotherHour(host: Host): Promise<void> {
  const lines = await linesOf(host);
  if (lines.length === 0) return;
  await addLine(
    host,
    lines.filter((line) => line.for !== asked),
    { at: host.now().getTime(), for: asked, content: "-" },
  );
}
