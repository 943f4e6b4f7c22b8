import { posix } from "node:path";
import type { HandlerEntry } from "../containerd/tables.ts";
import { digestOf, readIfThere } from "../host/files.ts";
import type { Host } from "../host/host.ts";
import { journalPath, type OwnedRuntime, pristinePath } from "../host/journal.ts";
import { Refusal } from "../runtime/refusal.ts";
import { type InstallSpec, type RuntimeSpec, runtimeDirectory } from "../runtime/spec.ts";
import { edit, entryOf, mismatches, type Observation } from "./observe.ts";
import { type PayloadPlan, planPayload, processesBelow } from "./payload.ts";

/** A file that an installation creates, changes or deletes. */
export interface Change {
  path: string;
  action: "create" | "edit" | "delete";
  before: Buffer | undefined;
  /** undefined for deleted files and for payload files, which are not text. */
  content: Buffer | undefined;
}

/** What has to be done so that the host is as the spec says; pure data, made by reading alone. */
export interface Plan {
  payloads: PayloadPlan[];
  kataConfigurations: { runtime: RuntimeSpec; path: string; before: Buffer | undefined; content: Buffer }[];
  /** Handlers that containerd's file shall hold, and the bytes that it then has. */
  entries: HandlerEntry[];
  next: Buffer | undefined;
  edit: boolean;
  restart: boolean;
  /** Handlers of ours that shall not be served any more. */
  removed: string[];
  /** Runtimes whose directories go after the commit. */
  retired: OwnedRuntime[];
  /** Nothing is left but our own state on the host: it goes. */
  leave: boolean;
  /** Not listed any more, but pods use them. */
  blocked: { handler: string; pods: string[] }[];
}

export const kataConfigurationPath = ({ handler, kataConfig }: RuntimeSpec): string =>
  posix.join(runtimeDirectory(handler), kataConfig.path);

export async function makePlan(host: Host, spec: InstallSpec, observation: Observation): Promise<Plan> {
  const { journal, users } = observation;
  const payloads: PayloadPlan[] = [];
  const kataConfigurations: Plan["kataConfigurations"] = [];
  for (const runtime of spec.runtimes) {
    payloads.push(await planPayload(host, runtime, journal));
    const path = kataConfigurationPath(runtime);
    const content = Buffer.from(runtime.kataConfig.content);
    const before = await readIfThere(host, path);
    if (before === undefined || !before.equals(content)) kataConfigurations.push({ runtime, path, before, content });
  }

  const listed = new Set(spec.runtimes.map(({ handler }) => handler));
  const unlisted = journal.runtimes.filter(({ runtime }) => !listed.has(runtime.handler));
  const isUsed = ({ runtime }: OwnedRuntime) => users.has(runtime.handler);
  // A journal that was lost and made anew does not know what had been configured before.
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
  const served = serving === undefined || mismatches(serving, { entries, removed }).length === 0;
  const blocked = kept.map(({ runtime }) => ({ handler: runtime.handler, pods: users.get(runtime.handler) ?? [] }));
  const retired: OwnedRuntime[] = [];
  for (const owned of unlisted) {
    if (kept.includes(owned)) continue;
    const { handler } = owned.runtime;
    const processes = await processesBelow(host, runtimeDirectory(handler));
    // Out of containerd's file it can go, but its files stay as long as something runs from them.
    if (processes.length > 0) blocked.push({ handler, pods: processes.map((command) => `process ${command}`) });
    else retired.push(owned);
  }
  const leave =
    spec.runtimes.length === 0 && journal.runtimes.length === 0 && (await host.stat(journalPath)) !== undefined;
  const restart = changed || !served;
  return { payloads, kataConfigurations, entries, next, edit: changed, restart, removed, retired, leave, blocked };
}

/**
 * With the last handler the pristine bytes come back, if the file still is what we wrote. If somebody edited it, only
 * our block goes.
 */
async function nextBytes(host: Host, observation: Observation, entries: HandlerEntry[]): Promise<Buffer | undefined> {
  const { file } = observation.journal;
  if (entries.length === 0 && file !== undefined && file.written === (digestOf(observation.edited) ?? null)) {
    if (file.pristine === null) return undefined;
    const pristine = await readIfThere(host, pristinePath);
    if (digestOf(pristine) === file.pristine) return pristine;
  }
  return edit(observation, entries);
}

/** A handler in our block that pods use, but whose runtime neither spec nor journal describe: it must not vanish. */
function refuseUnknownUsers(observation: Observation, kept: OwnedRuntime[]): void {
  const known = new Set(kept.map(({ runtime }) => runtime.handler));
  for (const [handler, pods] of observation.users) {
    if (known.has(handler) || !observation.present.includes(handler)) continue;
    throw new Refusal(
      "unknown-handler-in-use",
      `The handler ${handler} is in ${observation.located.file} and used by ${pods.join(", ")}, but this node's journal does not know it ` +
        "and the spec does not list it. List its runtime again, or delete those pods.",
    );
  }
}

export const isEmpty = (plan: Plan): boolean =>
  !plan.edit &&
  !plan.restart &&
  plan.kataConfigurations.length === 0 &&
  plan.payloads.every(({ missing, recorded }) => missing.length === 0 && recorded) &&
  plan.retired.length === 0 &&
  !plan.leave;

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
  if (plan.edit) {
    const { edited, located } = observation;
    const action = edited === undefined ? "create" : plan.next === undefined ? "delete" : "edit";
    changes.push({ path: located.file, action, before: edited, content: plan.next });
  }
  for (const { runtime } of plan.retired) {
    for (const path of [...runtime.files.map((file) => file.path), runtime.kataConfig.path]) {
      const target = posix.join(runtimeDirectory(runtime.handler), path);
      if ((await host.stat(target)) === undefined) continue;
      changes.push({ path: target, action: "delete", before: undefined, content: undefined });
    }
  }
  return changes.sort((a, b) => (a.path < b.path ? -1 : 1));
}
