import { Refusal } from "../../runtime/refusal.ts";
import type { InstallSpec, RuntimeSpec } from "../../runtime/spec.ts";
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
  journal: Journal,
  options: {
    criTimeoutMs: number;
    /** Pods that are bound to this node; those that wait for a volume have no sandbox yet. */
    podsUsing?: (handler: string) => Promise<string[]>;
  },
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
      const pods = await usersOf(daemon, located, handler, options.podsUsing);
      if (pods.length > 0) users.set(handler, pods);
    }
  }
  return { located, edited, configuration, present, journal, serving, notServing, users };
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
export const edit = (observation: Observation, entries: HandlerEntry[]): Buffer | undefined =>
  editConfiguration(observation.edited, entries, editContext(observation.located, observation));
