import { posix } from "node:path";
import { type Host, unlessSlow } from "../host/host.ts";
import { decode, parseDocument } from "./document.ts";
import { fatalIn } from "./dumps.ts";
import { fromToml } from "./entry.ts";
import { importMatches, importsOf, readImports, searchedBy } from "./imports.ts";
import type { Located } from "./locate.ts";
import { runtimeNamesIn, runtimesIn } from "./plugins.ts";
import { startTimeOf, unitState } from "./restart.ts";
import { foreignChanges, type Runtimes, type ServingState } from "./serving.ts";
import { presentDump } from "./validate.ts";

/** What the files on disk would make of a containerd that starts now; undefined: unknown. */
export interface OnDisk {
  runtimes: Runtimes | undefined;
  /** Why they would not load. */
  error: string | undefined;
}

/** Reads containerd's files as it would itself: by its own binary, which prints what they mean with all imports. */
export async function readOnDisk(host: Host, located: Located, configuration: Buffer | undefined): Promise<OnDisk> {
  const nothing = { runtimes: undefined, error: undefined };
  if (located.binary === undefined) return nothing;
  const { binary, configuration: file } = located;
  const { text, error, unanswered } = await presentDump(host, binary, file, configuration);
  if (unanswered) return nothing;
  if (error !== undefined) return { ...nothing, error };
  try {
    const document = parseDocument(text, "containerd config dump");
    const fatal = fatalIn(document)[0];
    if (fatal !== undefined) return { ...nothing, error: fatal };
    const section = runtimesIn(document);
    if (section === undefined) return nothing;
    const handlers = Object.entries(section.runtimes).map(([name, runtime]) => [name, fromToml(runtime)] as const);
    return { ...nothing, runtimes: { handlers: Object.fromEntries(handlers), defaultRuntime: section.defaultRuntime } };
  } catch {
    return nothing;
  }
}

/** The runtimes of all files that containerd reads besides our drop-in; undefined: it does not read that one itself. */
export async function runtimesOfOthers(
  host: Host,
  { file, configuration }: Located,
  bytes: Buffer | undefined,
): Promise<string[] | undefined> {
  if (bytes === undefined) return undefined;
  try {
    const root = parseDocument(decode(bytes, configuration), configuration);
    if (!importsOf(root, configuration).some((pattern) => importMatches(pattern, file))) return undefined;
    const imports = await readImports(host, root, configuration);
    const others = imports.filter(({ path }) => path !== file).map(({ document }) => document);
    return [root, ...others].flatMap(runtimeNamesIn);
  } catch {
    // Whether containerd loads what somebody has broken, it says itself.
    return undefined;
  }
}

/** What is known of the files that are ours, so that our own writing is not taken for somebody's change. */
export interface PendingContext {
  serving: ServingState;
  onDisk: OnDisk;
  configuration: Buffer | undefined;
  /** Handlers that are ours: what becomes of them is planned, not pending. */
  ours: ReadonlySet<string>;
  /** The edited file holds nothing but what a restart of ours has loaded before. */
  editedIsOurs: boolean;
}

/**
 * What our restart would load apart from our own change, because nobody has restarted containerd since: sentences without
 * a full stop. Runtimes are compared as such; of everything else in the files, only their times tell.
 */
export async function pendingChanges(host: Host, located: Located, context: PendingContext): Promise<string[]> {
  const { serving, onDisk, ours } = context;
  const upgrade = upgraded(located, serving.version);
  const unit = await unitState(host, located.unit).catch(unlessSlow);
  const started = unit && startTimeOf(host, unit);
  const since =
    started === undefined ? "" : ` was started at ${new Date(Math.round(started / 1000) * 1000).toISOString()} and`;
  const files = started === undefined ? [] : await changedSince(host, located, context, started);
  const changed = files.map(({ path, how }) => `${path} ${says[how]}`);
  const runtimes = runtimeChanges(serving, onDisk.runtimes, ours, located);
  const unloaded = [...changed, ...runtimes];
  const isCertain = runtimes.length > 0 || files.some(({ how }) => how === "written");
  const hasNot = isCertain ? "has not" : "may not have";
  return [
    ...upgrade,
    ...(unloaded.length > 0
      ? [`${located.unit}${since} ${hasNot} loaded what is on disk now (${unloaded.join("; ")})`]
      : []),
  ];
}

/** A bundle of a node does not say which version answered. */
function upgraded({ binary, version, unit }: Located, serves: string): string[] {
  const plain = (text: string) => text.replace(/^v/, "");
  if (binary === undefined || serves === "" || plain(serves) === plain(version)) return [];
  return [`${unit} runs containerd ${plain(serves)}, but ${binary} is ${plain(version)} now`];
}

function runtimeChanges(
  serving: ServingState,
  onDisk: Runtimes | undefined,
  ours: ReadonlySet<string>,
  { configuration }: Located,
): string[] {
  if (onDisk === undefined) return [];
  const added = Object.keys(onDisk.handlers).filter((name) => !ours.has(name) && !(name in serving.handlers));
  // As the daemon would be after it, seen from what it is now.
  const changes = foreignChanges(serving, onDisk, ours);
  return [
    ...changes.map((change) => `in ${configuration}, ${change}`),
    ...added.map((name) => `in ${configuration}, handler ${name} is new`),
  ];
}

/** Clocks have a resolution, and some distributions write their files while they start. */
const marginMs = 2_000;

interface Changed {
  path: string;
  how: keyof typeof says;
}

const says = {
  written: "changed after it",
  touched: "was written before that, but its owner, mode or name changed after it, or an older file took its place",
  linked: "is a link that was made after it",
};

async function changedSince(
  host: Host,
  located: Located,
  context: PendingContext,
  started: number,
): Promise<Changed[]> {
  // Such a distribution loads them by itself.
  if (located.restart === "itself") return [];
  const { file, kind, configuration: root, templates, agentFiles } = located;
  const imports = context.configuration === undefined ? [] : await importedIn(host, context.configuration, root);
  // What a distribution renders is newer than its own start; what it is rendered from is not.
  const others = kind === "imported" ? [root, ...imports] : imports;
  const sources = [...new Set([file, ...templates, ...agentFiles, ...others])].filter(
    // Our own copies come and go beside our file.
    (path) => path !== posix.dirname(file) && !(path === file && context.editedIsOurs),
  );
  const isAfter = (timeNs: bigint) => isBetween(timeNs, started + marginMs, host.now().getTime());
  const changed: Changed[] = [];
  for (const path of sources) {
    const stat = await host.stat(path);
    if (stat === undefined) continue;
    // A file that was copied or moved into place has its old time of modification; that of its change nobody can set. But
    // agents give their own files their mode again now and then, unchanged, which is a change of the file to the kernel.
    if (isAfter(stat.mtimeNs)) changed.push({ path, how: "written" });
    else if (!agentFiles.includes(path) && isAfter(stat.ctimeNs)) changed.push({ path, how: "touched" });
  }
  // A link that leads elsewhere by now says nothing of the file there, which may be old.
  const isRead = kind === "imported" || (kind === "root" && !context.editedIsOurs);
  for (const path of new Set([...(isRead ? [root] : []), ...imports])) {
    const madeNs = await host.linkedAt(path);
    if (madeNs !== undefined && isAfter(madeNs)) changed.push({ path, how: "linked" });
  }
  return changed;
}

/** A time that has not come yet says nothing, and no restart would make it say less. */
function isBetween(timeNs: bigint, since: number, now: number): boolean {
  const time = Number(timeNs / 1_000_000n);
  return time > since && time <= now;
}

/** The files that are imported, and the directories that are searched for them: of a file that is gone, those tell. */
async function importedIn(host: Host, bytes: Buffer, file: string): Promise<string[]> {
  try {
    const root = parseDocument(decode(bytes, file), file);
    const imports = await readImports(host, root, file);
    const documents = [{ document: root, path: file }, ...imports];
    const searched = documents.flatMap(({ document, path }) => searchedBy(document, path));
    return [...imports.map(({ path }) => path), ...searched].filter((path) => path !== file);
  } catch {
    // What cannot be read is refused where it is validated.
    return [];
  }
}
