import { Refusal } from "../../runtime/refusal.ts";
import type { InstallSpec, RuntimeSpec } from "../../runtime/spec.ts";
import { decode, parseDocument, sameDocument, withoutZeros } from "../containerd/document.ts";
import { differences } from "../containerd/dumps.ts";
import { editConfiguration, holdsNothing, oursIn, ownedBy, ownedIn } from "../containerd/edit.ts";
import type { HandlerEntry } from "../containerd/entry.ts";
import { editContext, type Located } from "../containerd/locate.ts";
import { type OnDisk, runtimesOfOthers } from "../containerd/pending.ts";
import type { Known } from "../containerd/separate.ts";
import { afterRestart, type ServingState } from "../containerd/serving.ts";
import { digestOf, readIfThere } from "../host/files.ts";
import { type Host, ifInTime } from "../host/host.ts";
import { type Journal, pristinePath, type Transaction } from "../host/journal.ts";
import type { Daemon } from "./daemon.ts";
import type { Environment } from "./environment.ts";

/** The host as it is now, read once per plan. */
export interface Observation {
  located: Located;
  /** The file that we edit, and the one that containerd reads (the same for most distributions). */
  edited: Buffer | undefined;
  configuration: Buffer | undefined;
  /** By what tables in the file are known as ours, and the handlers that have some. */
  known: Known;
  present: string[];
  /** As it was read, but for a file that containerd does not read any more: see left.ts. */
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
  read: Journal,
  options: {
    criTimeoutMs: number;
    /** Pods that are bound to this node; those that wait for a volume have no sandbox yet. */
    podsUsing?: (handler: string) => Promise<string[]>;
  },
): Promise<Observation> {
  const { daemon, spec } = environment;
  const located = await locateFile(daemon, read);
  const journal = settled(read, located);
  const { edited, configuration } = await daemon.read(located);
  const known = knownBy(journal, spec);
  const present = ownedBy(edited, { ...editContext(located, { edited, configuration }), known }).handlers;
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
      const pods = await usersOf(daemon, located, handler, options.podsUsing);
      if (pods.length > 0) users.set(handler, pods);
    }
  }
  return { located, edited, configuration, known, present, journal, serving, notServing, users };
}

/** Who uses a handler: pods with a sandbox, or, if there is none, pods that will have one. */
export async function usersOf(
  daemon: Daemon,
  located: Located,
  handler: string,
  podsUsing: (handler: string) => Promise<string[]> = async () => [],
): Promise<string[]> {
  const pods = await daemon.sandboxesUsing(located, handler);
  return pods.length > 0 ? pods : await podsUsing(handler);
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
 * What the gate must find after a restart, our handlers aside: what containerd's files say now, as the distribution rendered
 * them for that restart. In one file our change only adds tables, so that every further difference is somebody else's. How
 * drop-ins are merged is not ours to say: there a runtime may be missing only if no other file has it any more, and of those
 * that a distribution merges itself, none. A rollback must not wait for a node that is too slow to say: then it is what the
 * daemon served before the change.
 */
export async function expectedNow(
  { host, daemon, spec }: Pick<Environment, "host" | "daemon" | "spec">,
  observation: Observation,
  transaction: Transaction,
): Promise<ServingState | undefined> {
  const before = servedBefore(transaction);
  const { located } = observation;
  if (before === undefined) return before;
  const { configuration } = await daemon.read(located);
  const others = located.kind === "drop-in" ? await runtimesOfOthers(host, located, configuration) : [];
  if (others === undefined) return before;
  const onDisk = await ifInTime(daemon.onDisk(located, configuration));
  if (onDisk === undefined) return before;
  const { runtimes } = onDisk;
  const { handlersBefore, handlersAfter } = transaction;
  const ours = new Set([...ownHandlers(observation, spec), ...handlersBefore, ...handlersAfter]);
  const now = afterRestart(before, runtimes, ours);
  const kept = Object.entries(before.handlers).filter(
    ([name]) => located.kind === "drop-in" && (others.includes(name) || name === now.defaultRuntime),
  );
  return { ...now, handlers: { ...Object.fromEntries(kept), ...now.handlers } };
}

/** By what our tables are known. */
export const knownBy = (journal: Journal, spec: InstallSpec): Known => ({
  placed: journal.runtimes.map(({ runtime }) => runtime.handler),
  wanted: spec.runtimes.map(entryOf),
});

/** Which of these handlers, which are ours, containerd would read from these bytes of the edited file. */
export function tablesIn(observation: Observation, bytes: Buffer | undefined, handlers: readonly string[]): string[] {
  const context = editContext(observation.located, observation);
  try {
    const found = ownedBy(bytes, { ...context, known: { placed: handlers, wanted: [] } }).handlers;
    return handlers.filter((handler) => found.includes(handler));
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    // Not even containerd can read it as it is, but whoever corrects it may leave what is in it.
    const text = bytes?.toString("utf8").replaceAll(/^[ \t]*#.*$/gm, "") ?? "";
    return handlers.filter((handler) => text.includes(handler));
  }
}

/** The handlers by which a change shows in the file: those that it adds; if it adds none, all that it writes. */
export function signsOf({ handlersBefore, handlersAfter }: Transaction): string[] {
  const added = handlersAfter.filter((handler) => !handlersBefore.includes(handler));
  return added.length > 0 ? added : handlersAfter;
}

/** A change that is open is finished or undone where it was made, even if containerd reads another file by now. */
async function locateFile(daemon: Daemon, { file, transaction }: Journal): Promise<Located> {
  const located = await daemon.locate(file?.path);
  if (transaction === undefined || file === undefined || file.path === located.file) return located;
  const { path } = file;
  return located.kind === "root"
    ? { ...located, file: path, configuration: path }
    : { ...located, file: path, kind: "template" };
}

/** The journal with a file that is not the located one among those that were left. */
function settled(journal: Journal, { file: path }: Located): Journal {
  const { file, left = [], ...rest } = journal;
  const moved = file !== undefined && file.path !== path && journal.transaction === undefined;
  const old = moved && {
    path: file.path,
    backups: file.backups,
    ...(file.pristine === null && { created: true }),
  };
  const others = [...left, ...(old ? [old] : [])].filter((one) => one.path !== path);
  return {
    ...rest,
    ...(file !== undefined && !moved && { file }),
    ...(others.length > 0 && { left: others }),
  };
}

/** The file with exactly these handlers. */
export const edit = (observation: Observation, entries: HandlerEntry[]): Buffer | undefined =>
  editConfiguration(observation.edited, entries, {
    ...editContext(observation.located, observation),
    known: observation.known,
  });

/** What the change sets right in tables that are there already: nobody but us has any business there. */
export function driftIn(observation: Observation, next: Buffer | undefined): string[] {
  const context = { ...editContext(observation.located, observation), known: observation.known };
  const [now, then] = [observation.edited, next].map((bytes) => oursIn(bytes, context));
  const both = ownedIn(then ?? {}).handlers.filter((handler) => observation.present.includes(handler));
  const all = differences(withoutZeros(now), withoutZeros(then), []);
  return all.filter((one) => both.some((handler) => one.includes(`${handler}.`)));
}

/** The file without anything of ours. One that was not there before us goes, if nobody has written anything into it. */
export function withoutOurs(observation: Observation): Buffer | undefined {
  const bytes = edit(observation, []);
  const { located, journal } = observation;
  const mayGo = located.kind === "root" || located.kind === "drop-in";
  if (bytes === undefined || journal.file?.pristine !== null || !mayGo) return bytes;
  return holdsNothing(bytes, located.file) ? undefined : bytes;
}
