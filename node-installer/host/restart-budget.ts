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
const hourMs = 3_600_000;
const dayMs = 24 * hourMs;
/** Clocks are corrected by a little; a line that is far ahead was written by a clock that was wrong. */
const aheadMs = 60_000;

/** The restarts of the last day, oldest first. */
export async function restartsOf(host: Host): Promise<Restart[]> {
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

/** How many restarts are left, and when there will be more. */
export function restartsLeft(restarts: readonly Restart[], now: number): { left: number; more: Date | undefined } {
  const perLimit = limits.map(({ hours, most }) => {
    const recent = restarts.filter(({ at }) => at > now - hours * hourMs);
    const oldest = recent[Math.max(0, recent.length - most + 1)];
    const more = oldest === undefined ? undefined : new Date(oldest.at + hours * hourMs);
    return { left: Math.max(0, most - recent.length), more };
  });
  return perLimit.reduce((a, b) => {
    if (a.left !== b.left) return a.left < b.left ? a : b;
    return (a.more?.getTime() ?? 0) > (b.more?.getTime() ?? 0) ? a : b;
  });
}

/** Records a restart that is about to happen. */
export async function countRestart(host: Host, purpose: RestartFor, content: string): Promise<void> {
  const known = await restartsOf(host);
  const lines = [...known, { at: host.now().getTime(), for: purpose, content }].map(
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

/** A person asks for another attempt, and takes the responsibility. */
export const forgetRestarts = (host: Host): Promise<void> => host.remove(restartsPath);
