import { posix } from "node:path";
import type { RuntimeSpec } from "../../runtime/spec.ts";
import type { FileAttributes } from "../host/host.ts";
import { type Journal, type OwnedRuntime, writeJournal } from "../host/journal.ts";
import type { RestartFor } from "../host/restart-budget.ts";
import type { Environment } from "./environment.ts";
import type { Disk, Observation } from "./observe.ts";
import type { Plan } from "./plan.ts";

/** One pass through the steps: what it was given, what was observed, what is planned, and the journal as it grows. */
export interface Attempt {
  environment: Environment;
  observation: Observation;
  plan: Plan;
  /** What containerd's restart loads; undefined: nothing is edited any more, or containerd is not restarted. */
  disk: Disk | undefined;
  journal: Journal;
  /** The attributes of containerd's file, for its replacement. */
  attributes: FileAttributes;
  /** What it restarts containerd for. */
  purpose: RestartFor;
  /** Copy of the old bytes beside the file; undefined if there was no file or nothing is edited. */
  backup: string | undefined;
}

/** Whoever has it may change the journal. */
export type JournalHolder = Pick<Attempt, "environment" | "journal">;

/** Changes the journal on disk, then in memory, so that this process knows no more than the next one will read. */
export async function record(holder: JournalHolder, change: Partial<Journal>): Promise<void> {
  await replaceJournal(holder, { ...holder.journal, ...change });
}

/** The same, and leaves a field out, which setting it to `undefined` would not do. */
export async function recordWithout(
  holder: JournalHolder,
  key: "transaction" | "failure",
  change: Partial<Journal> = {},
): Promise<void> {
  const { [key]: _, ...rest } = holder.journal;
  await replaceJournal(holder, { ...rest, ...change });
}

export async function replaceJournal(holder: JournalHolder, journal: Journal): Promise<void> {
  await writeJournal(holder.environment.host, journal);
  holder.journal = journal;
}

export function withRuntime(
  runtimes: OwnedRuntime[],
  runtime: RuntimeSpec,
  change: Partial<Omit<OwnedRuntime, "runtime">>,
): OwnedRuntime[] {
  const known = runtimes.find((owned) => owned.runtime.handler === runtime.handler);
  const changed = { files: known?.files ?? [], configured: known?.configured ?? false, ...change, runtime };
  return [...runtimes.filter((owned) => owned !== known), changed];
}

/** Creates a directory, and records beforehand which of its parents are ours to remove one day. */
export async function makeOwnDirectory(holder: JournalHolder, path: string, mode = 0o755): Promise<void> {
  const missing: string[] = [];
  const { host } = holder.environment;
  for (let current = path; (await host.stat(current)) === undefined; current = posix.dirname(current)) {
    missing.unshift(current);
  }
  if (missing.length === 0) return;
  const fresh = missing.filter((directory) => !holder.journal.createdDirectories.includes(directory));
  if (fresh.length > 0) await record(holder, { createdDirectories: [...holder.journal.createdDirectories, ...fresh] });
  await host.makeDirectory(path, mode);
}
