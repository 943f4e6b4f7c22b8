import { posix } from "node:path";
import { listed } from "../../runtime/printable.ts";
import { Refusal } from "../../runtime/refusal.ts";
import { type InstallSpec, type RuntimeSpec, runtimeDirectory } from "../../runtime/spec.ts";
import type { HandlerEntry } from "../containerd/entry.ts";
import type { Located } from "../containerd/locate.ts";
import { mismatches } from "../containerd/serving.ts";
import { brokenBefore } from "../containerd/validate.ts";
import { digestOf, readIfThere } from "../host/files.ts";
import type { Host } from "../host/host.ts";
import { journalPath, type OwnedRuntime, pristinePath } from "../host/journal.ts";
import { distrusted } from "../host/owners.ts";
import { type Disk, edit, entryOf, type Observation, withoutOurs } from "./observe.ts";
import { type PayloadPlan, payloadDirectories, planPayload, runtimesDirectory } from "./payload.ts";

/** A file that an installation creates, changes or deletes. */
export interface Change {
  path: string;
  action: "create" | "edit" | "delete";
  before: Buffer | undefined;
  /** undefined for deleted files, and for payload files because they are not text. */
  content: Buffer | undefined;
}

/** What must be done to bring the host in line with the spec; pure data, made without changing anything. */
export interface Plan {
  payloads: PayloadPlan[];
  /** Sentences: why what lies in our directories cannot be trusted. Nothing is changed as long as there are any. */
  untrusted: string[];
  kataConfigurations: { runtime: RuntimeSpec; path: string; before: Buffer | undefined; content: Buffer }[];
  /** What guests are told about registries: secrets, of which nothing is said but where they are. */
  guestRegistries: { path: string; isNew: boolean; content: Buffer }[];
  /** The handlers that containerd's file should hold, and its resulting bytes. */
  entries: HandlerEntry[];
  next: Buffer | undefined;
  edit: boolean;
  restart: boolean;
  /** Our handlers that should no longer be served. */
  removed: string[];
  /** Runtimes whose directories are removed after the commit. */
  retired: OwnedRuntime[];
  /** Files that containerd does not read any more, from which our tables are removed after the commit. */
  left: string[];
  /** Only our own state is left on the host, and is removed. */
  removeState: boolean;
  /** No longer listed, but still used. */
  blocked: { handler: string; pods: string[] }[];
}

const kataConfigurationPath = ({ handler, kataConfig }: RuntimeSpec): string =>
  posix.join(runtimeDirectory(handler), kataConfig.path);

/** @param guestRegistry what guests are told about registries; absent: files of it are not looked at */
export async function makePlan(
  host: Host,
  spec: InstallSpec,
  observation: Observation,
  guestRegistry?: Buffer,
): Promise<Plan> {
  const { journal, users } = observation;
  const payloads: PayloadPlan[] = [];
  const kataConfigurations: Plan["kataConfigurations"] = [];
  for (const runtime of spec.runtimes) {
    payloads.push(await planPayload(host, runtime, journal));
    const path = kataConfigurationPath(runtime);
    const content = Buffer.from(runtime.kataConfig.content);
    const before = await readIfThere(host, path);
    const stat = await host.stat(path);
    const isOurs = stat !== undefined && stat.mode === 0o644 && stat.uid === 0 && stat.gid === 0;
    if (before === undefined || !before.equals(content) || !isOurs)
      kataConfigurations.push({ runtime, path, before, content });
  }

  const guestRegistries = guestRegistry === undefined ? [] : await registriesOf(host, spec, guestRegistry);
  const listed = new Set(spec.runtimes.map(({ handler }) => handler));
  const unlisted = journal.runtimes.filter(({ runtime }) => !listed.has(runtime.handler));
  const running = new Map<string, string[]>();
  for (const { runtime } of unlisted)
    running.set(runtime.handler, await host.runningBelow(runtimeDirectory(runtime.handler)));
  const processesOf = (handler: string) => running.get(handler) ?? [];
  // Without a CRI, pods cannot be asked for; their shims can.
  const usersOf = (handler: string) =>
    users.get(handler) ?? (observation.serving === undefined ? processesOf(handler) : []);
  const isUsed = ({ runtime }: OwnedRuntime) => usersOf(runtime.handler).length > 0;
  // A journal that was lost and recreated does not know what was configured before.
  const isConfigured = ({ runtime, configured }: OwnedRuntime) =>
    configured || observation.present.includes(runtime.handler);
  const kept = unlisted.filter((owned) => isConfigured(owned) && isUsed(owned));
  refuseUnknownUsers(observation, kept);

  const entries = [...spec.runtimes, ...kept.map(({ runtime }) => runtime)].map(entryOf);
  const next = await nextBytes(host, observation, entries);
  const changed = digestOf(next) !== digestOf(observation.edited);
  const wanted = new Set(entries.map(({ handler }) => handler));
  const ours = new Set([...observation.present, ...journal.runtimes.map(({ runtime }) => runtime.handler)]);
  const removed = [...ours].filter((handler) => !wanted.has(handler)).sort();
  const { serving } = observation;
  const isServed = serving === undefined || mismatches(serving, { entries, removed }).length === 0;
  const blocked = kept.map(({ runtime }) => ({ handler: runtime.handler, pods: usersOf(runtime.handler) }));
  const retired: OwnedRuntime[] = [];
  for (const owned of unlisted) {
    if (kept.includes(owned)) continue;
    const { handler } = owned.runtime;
    const processes = processesOf(handler);
    // It can be removed from containerd's file, but its own files stay as long as something runs from them.
    if (processes.length > 0) blocked.push({ handler, pods: processes });
    else retired.push(owned);
  }
  // One that pods still use is served as before, so who may change its files matters as much.
  const runtimes = [...spec.runtimes, ...unlisted.map(({ runtime }) => runtime)];
  const untrusted = await distrusted(host, runtimes.flatMap(payloadDirectories), runtimesDirectory);
  const removeState =
    spec.runtimes.length === 0 && journal.runtimes.length === 0 && (await host.stat(journalPath)) !== undefined;
  const restart = changed || !isServed;
  return {
    payloads,
    untrusted,
    kataConfigurations,
    guestRegistries,
    entries,
    next,
    edit: changed,
    restart,
    removed,
    retired,
    left: (journal.left ?? []).map(({ path }) => path),
    removeState,
    blocked,
  };
}

/** On a node that served the spec before. Removing a runtime after its last pod ended is what the spec asks for, not drift. */
export const mayBeDrift = ({ removed }: Pick<Plan, "removed">): boolean => removed.length === 0;

/**
 * Removing the last handler restores the pristine bytes if the file is still what we wrote. If somebody edited it, only
 * what is ours is removed.
 */
async function nextBytes(host: Host, observation: Observation, entries: HandlerEntry[]): Promise<Buffer | undefined> {
  const { file } = observation.journal;
  if (entries.length === 0 && file !== undefined && file.written === (digestOf(observation.edited) ?? null)) {
    if (file.pristine === null) return withoutOurs(observation);
    const pristine = await readIfThere(host, pristinePath);
    if (digestOf(pristine) === file.pristine) return pristine;
  }
  return entries.length === 0 ? withoutOurs(observation) : edit(observation, entries);
}

/** Refuses to remove a handler of ours that pods use, but whose runtime neither spec nor journal describes. */
function refuseUnknownUsers(observation: Observation, kept: OwnedRuntime[]): void {
  const known = new Set(kept.map(({ runtime }) => runtime.handler));
  for (const [handler, pods] of observation.users) {
    if (known.has(handler) || !observation.present.includes(handler)) continue;
    throw new Refusal(
      "unknown-handler-in-use",
      `The handler ${handler} is in ${observation.located.file} and is used by ${listed(pods)}, but this node's journal does not know it ` +
        "and the spec does not list it. List its runtime again, or delete those pods.",
    );
  }
}

/** Files that containerd would not load, unless something of ours in them is edited: then the validation finds out why. */
export function refuseBroken({ located, present }: Observation, plan: Plan, { onDisk }: Disk): void {
  const mayBeOurs = plan.edit && present.length > 0;
  if (onDisk.error !== undefined && !mayBeOurs) throw brokenBefore(located, onDisk.error);
}

/** What our restart would load besides our change is for others to load, unless the stack says otherwise. */
export function refusePending(located: Located, pending: readonly string[], spec: InstallSpec): void {
  if (pending.length === 0 || spec.loadPendingChanges) return;
  throw new Refusal(
    "pending-changes",
    `${pending.join("; ")}. The installer's restart would load that as well, so nothing was changed: restart ${located.unit} first and look whether it comes back, ` +
      "or set loadPendingChanges: true for the node group.",
  );
}

/** Those that are not as they should be; readable by root alone. */
async function registriesOf(host: Host, spec: InstallSpec, content: Buffer): Promise<Plan["guestRegistries"]> {
  const files: Plan["guestRegistries"] = [];
  for (const { handler, imagePuller } of spec.runtimes) {
    if (imagePuller === undefined) continue;
    const path = posix.join(runtimeDirectory(handler), imagePuller);
    const before = await readIfThere(host, path);
    const stat = await host.stat(path);
    const isOurs = stat?.mode === 0o600 && stat.uid === 0 && stat.gid === 0;
    if (before === undefined || !before.equals(content) || !isOurs)
      files.push({ path, isNew: before === undefined, content });
  }
  return files;
}

export const isEmpty = (plan: Plan): boolean =>
  !plan.edit &&
  !plan.restart &&
  plan.untrusted.length === 0 &&
  plan.kataConfigurations.length === 0 &&
  plan.guestRegistries.length === 0 &&
  plan.payloads.every(({ missing, recorded }) => missing.length === 0 && recorded) &&
  plan.retired.length === 0 &&
  plan.left.length === 0 &&
  !plan.removeState;

/** The files that are placed before containerd's is edited. */
export const filesToCome = ({ payloads, kataConfigurations }: Plan): ReadonlySet<string> =>
  new Set([
    ...payloads.flatMap(({ runtime, missing }) =>
      missing.map(({ path }) => posix.join(runtimeDirectory(runtime.handler), path)),
    ),
    ...kataConfigurations.map(({ path }) => path),
  ]);

export const bytesToCopy = (plan: Plan): number => plan.payloads.reduce((sum, { bytes }) => sum + bytes, 0);

/** Every file that changes, by path. */
export async function changesOf(host: Host, plan: Plan, observation: Observation): Promise<Change[]> {
  const changes: Change[] = [];
  for (const { runtime, missing } of plan.payloads) {
    for (const file of missing) {
      const path = posix.join(runtimeDirectory(runtime.handler), file.path);
      const action = (await host.stat(path)) === undefined ? "create" : "edit";
      changes.push({ path, action, before: undefined, content: undefined });
    }
  }
  for (const { path, before, content } of plan.kataConfigurations) {
    changes.push({ path, action: before === undefined ? "create" : "edit", before, content });
  }
  for (const { path, isNew } of plan.guestRegistries)
    changes.push({ path, action: isNew ? "create" : "edit", before: undefined, content: undefined });
  if (plan.edit) {
    const { edited, located } = observation;
    const action = edited === undefined ? "create" : plan.next === undefined ? "delete" : "edit";
    changes.push({ path: located.file, action, before: edited, content: plan.next });
  }
  for (const path of plan.left) changes.push({ path, action: "edit", before: undefined, content: undefined });
  for (const { runtime } of plan.retired) {
    for (const path of [...runtime.files.map((file) => file.path), runtime.kataConfig.path]) {
      const target = posix.join(runtimeDirectory(runtime.handler), path);
      if ((await host.stat(target)) === undefined) continue;
      changes.push({ path: target, action: "delete", before: undefined, content: undefined });
    }
  }
  return changes.sort((a, b) => (a.path < b.path ? -1 : 1));
}
