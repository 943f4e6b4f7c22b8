import { posix } from "node:path";
import type { RuntimeSpec } from "../../runtime/spec.ts";
import type { FileAttributes } from "../host/host.ts";
import { type Journal, type OwnedRuntime, writeJournal } from "../host/journal.ts";
import type { Environment, Observation } from "./observe.ts";
import type { Plan } from "./plan.ts";

/** One run of the sequence: what it was given, what was observed, what is planned, and the journal as it grows. */
export interface Work {
  environment: Environment;
  observation: Observation;
  plan: Plan;
  journal: Journal;
  /** The attributes of containerd's file, for its replacement. */
  attributes: FileAttributes;
  /** Copy of the old bytes beside the file; undefined if there was no file or nothing is edited. */
  backup: string | undefined;
}

/** Changes the journal on disk, then in memory, so that this run knows no more than the next one will read. */
export async function record(work: { environment: Environment; journal: Journal }, change: Partial<Journal>) {
  const journal = { ...work.journal, ...change };
  await writeJournal(work.environment.host, journal);
  work.journal = journal;
}

/** Leaves the field out, which setting it to `undefined` would not do. */
function without<Key extends keyof Journal>(journal: Journal, key: Key): Omit<Journal, Key> {
  const { [key]: _, ...rest } = journal;
  return rest;
}

export async function recordWithout(
  work: { environment: Environment; journal: Journal },
  key: "transaction" | "failure" | "file" | "committed",
  change: Partial<Journal> = {},
): Promise<void> {
  const journal = { ...without(work.journal, key), ...change } as Journal;
  await writeJournal(work.environment.host, journal);
  work.journal = journal;
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
export async function makeOwnDirectory(
  work: { environment: Environment; journal: Journal },
  path: string,
  mode = 0o755,
): Promise<void> {
  const missing: string[] = [];
  const { host } = work.environment;
  for (let current = path; (await host.stat(current)) === undefined; current = posix.dirname(current)) {
    missing.unshift(current);
  }
  if (missing.length === 0) return;
  const fresh = missing.filter((directory) => !work.journal.createdDirectories.includes(directory));
  if (fresh.length > 0) await record(work, { createdDirectories: [...work.journal.createdDirectories, ...fresh] });
  await host.makeDirectory(path, mode);
}
