import type { Cri } from "./cri.ts";
import { sameDocument, tableAt } from "./document.ts";
import { asServed, fromStatus, type HandlerEntry, type ServedHandler } from "./entry.ts";

/** What a running containerd serves. Plain JSON, because it is stored in the journal. */
export interface ServingState {
  version: string;
  runtimeReady: boolean;
  networkReady: boolean;
  /** Why it is not ready, in containerd's words. */
  messages: string[];
  defaultRuntime: string;
  /** By name. */
  handlers: Record<string, ServedHandler>;
}

/**
 * Asks the running daemon over the CRI. The list of runtimes comes from the verbose status, because 1.7 has no other. It
 * proves what the daemon loaded, not that a shim works.
 */
export async function readServing(cri: Cri, timeoutMs: number): Promise<ServingState> {
  const { runtimeVersion } = await cri.version(timeoutMs);
  const { conditions, info } = await cri.status(timeoutMs);
  const config: unknown = JSON.parse(info.config ?? "{}");
  const runtimes = tableAt(config, ["containerd", "runtimes"]) ?? {};
  const required = conditions.filter(({ type }) => type === "RuntimeReady" || type === "NetworkReady");
  const holds = (type: string): boolean => required.some((one) => one.type === type && one.status);
  return {
    version: runtimeVersion,
    runtimeReady: holds("RuntimeReady"),
    networkReady: holds("NetworkReady"),
    messages: required.filter(({ status, message }) => !status && message !== "").map(({ message }) => message),
    defaultRuntime: text(tableAt(config, ["containerd"])?.defaultRuntimeName),
    handlers: Object.fromEntries(Object.entries(runtimes).map(([name, runtime]) => [name, fromStatus(runtime)])),
  };
}

const text = (value: unknown): string => (typeof value === "string" ? value : "");

/** Where the daemon differs from these entries; empty: a restart would change nothing for them. */
export function serves(state: ServingState, entries: readonly HandlerEntry[]): string[] {
  return entries.flatMap((one) => different(one.handler, asServed(one.entry), state.handlers[one.handler]));
}

/** The same for handlers that it should serve, and ours that it should no longer serve. */
export const mismatches = (
  state: ServingState,
  { entries, removed }: { entries: readonly HandlerEntry[]; removed: readonly string[] },
): string[] => [
  ...serves(state, entries),
  ...removed.filter((handler) => handler in state.handlers).map((handler) => `handler ${handler} is still served`),
];

/** The runtimes that a daemon has, or would have if it loaded the files as they are. */
export type Runtimes = Pick<ServingState, "defaultRuntime" | "handlers">;

/** What has changed about handlers that are not ours. One more than before is nobody's loss. */
export function foreignChanges(before: Runtimes, after: Runtimes, ours: ReadonlySet<string>): string[] {
  const foreign = Object.entries(before.handlers).filter(([name]) => !ours.has(name));
  return [
    ...foreign.flatMap(([name, settings]) => different(name, settings, after.handlers[name])),
    ...(before.defaultRuntime === after.defaultRuntime
      ? []
      : [`the default runtime is "${after.defaultRuntime}", but was "${before.defaultRuntime}"`]),
  ];
}

/** Empty: the network is as ready as it was. */
export const networkLoss = (before: ServingState, after: ServingState): string[] =>
  before.networkReady && !after.networkReady ? [`the network is no longer ready (${reasons(after)})`] : [];

/**
 * What a daemon that served `serving` must serve after a restart: our own handlers aside, what its files say now. Whoever
 * changed them meanwhile had reasons, which are no fault of our change.
 */
export function afterRestart(
  serving: ServingState,
  onDisk: Runtimes | undefined,
  ours: ReadonlySet<string>,
): ServingState {
  if (onDisk === undefined) return serving;
  const own = Object.entries(serving.handlers).filter(([name]) => ours.has(name));
  const foreign = Object.entries(onDisk.handlers).filter(([name]) => !ours.has(name));
  return { ...serving, defaultRuntime: onDisk.defaultRuntime, handlers: Object.fromEntries([...own, ...foreign]) };
}

export const reasons = ({ messages }: ServingState): string => messages.join("; ") || "no reason given";

function different(name: string, expected: ServedHandler, actual: ServedHandler | undefined): string[] {
  if (actual === undefined) return [`handler ${name} is not served`];
  const keys = Object.keys(expected) as (keyof ServedHandler)[];
  return keys
    .filter((key) => !sameDocument(expected[key], actual[key]))
    .map(
      (key) =>
        `${key} of handler ${name} is ${JSON.stringify(actual[key])} instead of ${JSON.stringify(expected[key])}`,
    );
}
