import type { RuntimeSpec } from "../../runtime/spec.ts";
import { editConfiguration, ownedBy } from "../containerd/edit.ts";
import type { HandlerEntry } from "../containerd/entry.ts";
import { editContext, type Located } from "../containerd/locate.ts";
import type { ServingState } from "../containerd/serving.ts";
import type { Journal, Transaction } from "../host/journal.ts";
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
  /** As it was read, but for a file that containerd does not read any more: see left.ts. */
  journal: Journal;
  /** undefined: the CRI does not answer; `notServing` says why. */
  serving: ServingState | undefined;
  notServing: string;
  /** Pods by handler, for handlers that the spec does not list. */
  users: Map<string, string[]>;
}

/** What the daemon served before the change; undefined: it did not answer. */
export const servedBefore = (transaction: Transaction): ServingState | undefined =>
  (transaction.servedBefore ?? undefined) as ServingState | undefined;

export const entryOf = ({ handler, containerd }: RuntimeSpec): HandlerEntry => ({ handler, entry: containerd });

export async function observeHost(
  environment: Pick<Environment, "daemon" | "spec">,
  read: Journal,
  options: { criTimeoutMs: number },
): Promise<Observation> {
  const { daemon, spec } = environment;
  const located = await locateFile(daemon, read);
  const journal = settled(read, located);
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
  const others = [...left, ...(moved ? [{ path: file.path, backups: file.backups }] : [])].filter(
    (one) => one.path !== path,
  );
  return {
    ...rest,
    ...(file !== undefined && !moved && { file }),
    ...(others.length > 0 && { left: others }),
  };
}

/** The file with exactly these handlers. */
export const edit = (observation: Observation, entries: HandlerEntry[]): Buffer | undefined =>
  editConfiguration(observation.edited, entries, editContext(observation.located, observation));
