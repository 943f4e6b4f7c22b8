import { posix } from "node:path";
import type { FileAttributes, Host } from "../host/host.ts";
import { type Journal, type OwnedRuntime, writeJournal } from "../host/journal.ts";
import type { RuntimeSpec } from "../runtime/spec.ts";
import type { Environment, Observation } from "./observe.ts";
import type { Plan } from "./plan.ts";

/** One run of the sequence: what is given, what was seen, what shall be done, and the journal as it grows. */
export interface Work {
  environment: Environment;
  observation: Observation;
  plan: Plan;
  journal: Journal;
  /** Of containerd's file, for what takes its place. */
  attributes: FileAttributes;
  /** Copy of the old bytes beside the file; undefined where there was no file or nothing is edited. */
  backup: string | undefined;
}

/** Changes the journal on disk, then in memory: what a run believes is what the next one will read. */
export async function record(work: { environment: Environment; journal: Journal }, change: Partial<Journal>) {
  const journal = { ...work.journal, ...change };
  await writeJournal(work.environment.host, journal);
  work.journal = journal;
}

/** The journal's field is left out, which `undefined` would not say. */
export function without<Key extends keyof Journal>(journal: Journal, key: Key): Omit<Journal, Key> {
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

/** Makes a directory and remembers, before it does, which of its parents are ours to remove one day. */
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

export const bootId = async (host: Host): Promise<string> =>
  (await host.readFile("/proc/sys/kernel/random/boot_id").catch(() => Buffer.from("unknown"))).toString().trim();
