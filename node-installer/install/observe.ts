import { Refusal } from "../../runtime/refusal.ts";
import type { InstallSpec, RuntimeSpec } from "../../runtime/spec.ts";
import { decode, parseDocument, sameDocument } from "../containerd/document.ts";
import { editConfiguration, ownedBy } from "../containerd/edit.ts";
import type { HandlerEntry } from "../containerd/entry.ts";
import { editContext, type Located } from "../containerd/locate.ts";
import type { OnDisk } from "../containerd/pending.ts";
import { afterRestart, type ServingState } from "../containerd/serving.ts";
import { digestOf, readIfThere } from "../host/files.ts";
import type { Host } from "../host/host.ts";
import { type Journal, pristinePath, type Transaction } from "../host/journal.ts";
import type { Daemon } from "./daemon.ts";
import type { Environment } from "./environment.ts";

/** The host as it is now, read once per plan. */
export interface Observation {
  located: Located;
  /** The file that we edit, and the one that containerd reads (the same for most distributions). */
  edited: Buffer | undefined;
  configuration: Buffer | undefined;
  /** Handlers in our block of the file. */
  present: string[];
  journal: Journal;
  /** undefined: the CRI does not answer; `notServing` says why. */
  serving: ServingState | undefined;
  notServing: string;
  /** Pods by handler, for handlers that the spec does not list. */
  users: Map<string, string[]>;
}

/** What the daemon served before the change; undefined: it did not answer. */
const servedBefore = (transaction: Transaction): ServingState | undefined =>
  (transaction.servedBefore ?? undefined) as ServingState | undefined;

export const entryOf = ({ handler, containerd }: RuntimeSpec): HandlerEntry => ({ handler, entry: containerd });

export async function observeHost(
  environment: Pick<Environment, "daemon" | "spec">,
  journal: Journal,
  options: { criTimeoutMs: number },
): Promise<Observation> {
  const { daemon, spec } = environment;
  const located = await locateFile(daemon, journal, spec);
  const { edited, configuration } = await daemon.read(located);
  const present = ownedBy(edited, located.file).handlers;
  let serving: ServingState | undefined;
  let notServing = "";
  try {
    serving = await daemon.serving(located, options.criTimeoutMs);
  } catch (error) {
    notServing = error instanceof Error ? error.message : String(error);
  }
  const users = new Map<string, string[]>();
  if (serving !== undefined) {
    const listed = new Set(spec.runtimes.map(({ handler }) => handler));
    const known = new Set([...present, ...journal.runtimes.map(({ runtime }) => runtime.handler)]);
    for (const handler of known) {
      if (listed.has(handler)) continue;
      const pods = await daemon.sandboxesUsing(located, handler);
      if (pods.length > 0) users.set(handler, pods);
    }
  }
  return { located, edited, configuration, present, journal, serving, notServing, users };
}

/** What a restart of containerd would load, whoever restarts it. */
export interface Disk {
  /** What containerd's files would make it serve if it started now. */
  onDisk: OnDisk;
  /** How that differs from what it has loaded, apart from our own change: sentences without a full stop. */
  pending: string[];
}

/** How the files on disk differ from what the daemon has loaded; asked only if it is to be restarted. */
export async function observeDisk(
  { host, daemon, spec }: Pick<Environment, "host" | "daemon" | "spec">,
  observation: Observation,
): Promise<Disk> {
  const { located, configuration, serving } = observation;
  const onDisk = await daemon.onDisk(located, configuration);
  if (serving === undefined) return { onDisk, pending: [] };
  const editedIsOurs = await isOurs(host, observation);
  const ours = ownHandlers(observation, spec);
  return { onDisk, pending: await daemon.pending(located, { serving, onDisk, configuration, ours, editedIsOurs }) };
}

/** Whether the file means, our block aside, what it meant when our last change was loaded. */
async function isOurs(host: Host, seen: Observation): Promise<boolean> {
  const { edited, located, journal } = seen;
  if (journal.file === undefined || journal.file.path !== located.file) return false;
  if ((digestOf(edited) ?? null) === journal.file.written) return true;
  const meaning = (bytes: Buffer | undefined) => parseDocument(decode(bytes ?? Buffer.alloc(0), "file"), "file");
  try {
    const before = journal.file.pristine === null ? undefined : await readIfThere(host, pristinePath);
    return sameDocument(meaning(edit(seen, [])), meaning(before));
  } catch {
    return false;
  }
}

/** Handlers that are in our hands: in the file, in the journal, or in the spec. */
export const ownHandlers = ({ present, journal }: Pick<Observation, "present" | "journal">, spec: InstallSpec) =>
  new Set([
    ...present,
    ...journal.runtimes.map(({ runtime }) => runtime.handler),
    ...spec.runtimes.map(({ handler }) => handler),
  ]);

/**
 * What the gate must find after a restart, our handlers aside. A file that containerd reads as it is was compared, before
 * the change, with what it became by it: from then on, every difference in it is somebody else's.
 */
export async function expectedNow(
  { daemon, spec }: Pick<Environment, "daemon" | "spec">,
  observation: Observation,
  transaction: Transaction,
): Promise<ServingState | undefined> {
  const before = servedBefore(transaction);
  const { located } = observation;
  if (before === undefined || located.kind !== "root") return before;
  const { configuration } = await daemon.read(located);
  const { runtimes } = await daemon.onDisk(located, configuration);
  const { handlersBefore, handlersAfter } = transaction;
  const ours = new Set([...ownHandlers(observation, spec), ...handlersBefore, ...handlersAfter]);
  return afterRestart(before, runtimes, ours);
}

/** A file that we changed stays the one that we edit, until our block is removed from it. */
async function locateFile(daemon: Daemon, journal: Journal, spec: InstallSpec): Promise<Located> {
  const located = await daemon.locate();
  const owned = journal.file;
  if (owned === undefined || owned.path === located.file) return located;
  if (spec.runtimes.length > 0) {
    throw new Refusal(
      "file-moved",
      `This node's containerd is configured by ${located.file} now, but the runtimes were installed into ${owned.path}. ` +
        "Uninstall them first (with an empty list of runtimes), then install them again.",
    );
  }
  // The block is removed from a file that containerd does not read: compare that file before and after.
  return { ...located, file: owned.path, ...(located.kind === "root" && { configuration: owned.path }) };
}

/** The file with exactly these handlers. */
export const edit = (
  observation: Pick<Observation, "edited" | "configuration" | "located">,
  entries: HandlerEntry[],
): Buffer | undefined => editConfiguration(observation.edited, entries, editContext(observation.located, observation));
