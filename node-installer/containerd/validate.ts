import { dirname, posix } from "node:path";
import { stringify } from "smol-toml";
import { Refusal } from "../../runtime/refusal.ts";
import { readIfThere } from "../host/files.ts";
import type { Host } from "../host/host.ts";
import { at, decode, dotted, isTable, parseDocument, type Table, tableAt, union, withValue } from "./document.ts";
import { compareDumps } from "./dumps.ts";
import { editConfiguration, type Owned, oursIn, ownedBy, ownedIn, subtract } from "./edit.ts";
import type { HandlerEntry } from "./entry.ts";
import { importedFiles, readImports } from "./imports.ts";
import { editContext, type Located, readConfiguration } from "./locate.ts";
import { criPlugins, runtimeNamesIn } from "./plugins.ts";
import { type Known, nothingKnown } from "./separate.ts";
import { dialect, fileVersion } from "./tables.ts";
import { parseContainerdVersion } from "./version.ts";

export interface ValidationContext {
  known?: Known;
  /** Files that need not be there yet: they are placed before containerd reads the configuration. */
  toCome?: ReadonlySet<string>;
  /** For a plan: nothing is written but a candidate in /run, and that only if it can. */
  dryRun?: boolean;
}

/** How long the node's containerd may take to read a configuration. */
const dumpTimeoutMs = 30_000;

/**
 * Lets the node's own containerd read the configuration that would result from `next` (the new bytes of the edited file;
 * `undefined`: no file), before anything is replaced. Refuses if containerd does not load it, if anything but our keys
 * differs, or if files that the entries name are missing. Without a containerd binary, only the last is checked.
 */
export async function validateConfiguration(
  host: Host,
  located: Located,
  next: Buffer | undefined,
  entries: readonly HandlerEntry[],
  { known = nothingKnown, toCome = new Set(), dryRun = false }: ValidationContext = {},
): Promise<void> {
  const { configuration, edited } = await readConfiguration(host, located);
  const context = { ...editContext(located, { configuration, edited }), known };
  const removed = ownedBy(edited, context);
  await validateImports(host, located, configuration, entries, removed.handlers);
  refuse(located, await checkFiles(host, entries, toCome));
  const { binary } = located;
  if (binary === undefined) return;

  let before = await presentDump(host, binary, located.configuration, configuration);
  const isWhole = located.kind === "root" || located.kind === "imported";
  if (before.error !== undefined && isWhole && removed.handlers.length > 0) {
    // If what is ours is why, everything else must be as it is without that.
    const others = await dumpOf(host, binary, located, editConfiguration(edited, [], context), dryRun);
    if (others !== undefined && others.error === undefined) before = others;
  }
  if (before.error !== undefined) {
    throw brokenBefore(located, before.error);
  }
  const candidate = await candidateOf(host, located, { configuration, next }, entries, removed, known);
  const after = await dumpOf(host, binary, located, candidate, dryRun);
  if (after === undefined) return;
  if (after.error !== undefined) refuse(located, [`containerd ${located.version} does not load it: ${after.error}`]);
  refuse(located, compareDumps(before.text, after.text, { entries, removed }));
}

/** Whether the node's containerd reads its configuration as it is; without a binary to ask, nothing says that it does not. */
export async function loadsConfiguration(host: Host, { binary, configuration }: Located): Promise<boolean> {
  if (binary === undefined || (await host.stat(configuration)) === undefined) return true;
  return (await dump(host, binary, configuration)).error === undefined;
}

export const brokenBefore = ({ version, configuration }: Located, error: string): Refusal =>
  new Refusal(
    "configuration-broken-before",
    `containerd ${version} does not load ${configuration} as it is now: ${error}. Correct it first; nothing was changed.`,
  );

/**
 * The part that works in a plan on any file tree: it only reads files, and needs no payload.
 *
 * @param owned our handlers in the edited file: those without an entry are taken out of it
 */
export async function validateImports(
  host: Host,
  located: Located,
  configuration: Buffer | undefined,
  entries: readonly HandlerEntry[],
  owned: readonly string[],
): Promise<void> {
  if (configuration === undefined) return;
  const document = parseDocument(decode(configuration, located.configuration), located.configuration);
  const removed = owned.filter((handler) => !entries.some((one) => one.handler === handler));
  refuse(located, await checkImports(host, located, document, entries, removed));
}

function refuse({ file }: Located, problems: readonly string[]): void {
  if (problems.length === 0) return;
  const shown = problems.slice(0, 5);
  const more = problems.length > shown.length ? ` (and ${problems.length - shown.length} more)` : "";
  throw new Refusal(
    "validation-failed",
    `The new configuration of containerd was not put into ${file}: ${shown.join("; ")}${more}. Correct this on the node, then run again.`,
  );
}

/** The bytes that containerd will read; if a distribution renders them, a prediction used for the dump only. */
async function candidateOf(
  host: Host,
  located: Located,
  { configuration, next }: Record<"configuration" | "next", Buffer | undefined>,
  entries: readonly HandlerEntry[],
  removed: Owned,
  known: Known,
): Promise<Buffer | undefined> {
  if (located.kind === "root" || located.kind === "imported") return next;
  const file = located.configuration;
  if (located.kind === "template") {
    // The block is at the end of the template, and so also at the end of what is rendered from it.
    return editConfiguration(configuration, entries, { file, kind: "root", containerdVersion: located.version, known });
  }
  const tables = oursIn(next, { ...editContext(located, { configuration, edited: next }), known });
  const rendered = subtract(parseDocument(decode(configuration ?? Buffer.alloc(0), file), file), removed);
  const imports = await importedFiles(host, rendered, file);
  const others = { ...rendered, imports: imports.filter((path) => path !== located.file) };
  // Where containerd itself imports our file, it also reads what others wrote into it.
  const theirs = imports.includes(located.file) ? othersIn(next, located.file, tables) : {};
  const all = union(merged(others, theirs), tables);
  if (all === undefined) {
    throw new Refusal(
      "handler-exists",
      `${file} already has a table of ${located.file}. Delete it where it comes from.`,
    );
  }
  return Buffer.from(stringify(all));
}

function othersIn(next: Buffer | undefined, file: string, ours: Table): Table {
  if (next === undefined) return {};
  const { version: _, imports: __, ...tables } = subtract(parseDocument(decode(next, file), file), ownedIn(ours));
  return tables;
}

export interface Dump {
  text: string;
  error: string | undefined;
  /** There is no such program here. */
  unanswered: boolean;
}

/** What the node's own containerd makes of its files as they are; `configuration`: the bytes of the one that it reads. */
export const presentDump = (host: Host, binary: string, file: string, configuration: Buffer | undefined) =>
  configuration === undefined ? defaults(host, binary) : dump(host, binary, file);

async function dump(host: Host, binary: string, file: string): Promise<Dump> {
  return outcome(await host.run(binary, ["-c", file, "config", "dump"], { timeoutMs: dumpTimeoutMs }));
}

const dumpOf = async (
  host: Host,
  binary: string,
  located: Located,
  bytes: Buffer | undefined,
  dryRun: boolean,
): Promise<Dump | undefined> =>
  bytes === undefined ? defaults(host, binary) : dumpCandidate(host, binary, located, bytes, dryRun);

/** Without a file containerd runs with its defaults, but 1.7 refuses to dump a missing file. */
async function defaults(host: Host, binary: string): Promise<Dump> {
  return outcome(await host.run(binary, ["config", "default"], { timeoutMs: dumpTimeoutMs }));
}

function outcome({ code, stdout, stderr }: { code: number; stdout: string; stderr: string }): Dump {
  const reason = stderr.trim().split("\n").at(-1);
  return { text: stdout, error: code === 0 ? undefined : reason || `exit code ${code}`, unanswered: code === 127 };
}

/** undefined: in a dry run, nothing could be written. */
async function dumpCandidate(
  host: Host,
  binary: string,
  located: Located,
  next: Buffer,
  dryRun: boolean,
): Promise<Dump | undefined> {
  const edited = located.kind === "imported" ? located.file : located.configuration;
  const trial = await trialOf(host, edited, dryRun);
  const trials = [{ path: trial, instead: edited, bytes: await importable(host, edited, trial, next) }];
  if (edited !== located.configuration) {
    const instead = located.configuration;
    // Both may have one name, and one folder in a dry run.
    const path = await trialOf(host, instead, dryRun, "-root");
    const root = await readIfThere(host, instead);
    const imported = { file: edited, trial };
    trials.push({ path, instead, bytes: await importable(host, instead, path, root ?? Buffer.alloc(0), imported) });
  }
  const read = trials.at(-1)?.path ?? trial;
  for (const { path } of trials) await host.remove(path);
  try {
    for (const { path, bytes } of trials) await host.createFile(path, bytes, { mode: 0o600, uid: 0, gid: 0 });
    const { error, ...answer } = await dump(host, binary, read);
    return { ...answer, error: trials.reduce((said, one) => said?.replaceAll(one.path, one.instead), error) };
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (dryRun && code !== undefined) return undefined;
    if (code !== "EROFS" && code !== "EACCES" && code !== "EPERM") throw error;
    throw new Refusal(
      "configuration-read-only",
      `Nothing can be written to ${dirname(read)} (${code}), the folder of containerd's configuration. Make the folder writable, or use a node image where it is.`,
    );
  } finally {
    for (const { path } of trials) await host.remove(path);
  }
}

/**
 * In the file's own folder, for relative imports, under a name that no import of *.toml matches. A node without a
 * configuration may not have its folder either; then there is nothing to import from it.
 */
async function trialOf(host: Host, file: string, dryRun: boolean, which = ""): Promise<string> {
  const purpose = dryRun ? `plan-${host.now().getTime()}` : "candidate";
  const isBeside = !dryRun && (await host.stat(dirname(file))) !== undefined;
  const name = `.${posix.basename(file)}.contrast-runtime-${purpose}${which}`;
  return posix.join(isBeside ? dirname(file) : "/run", name);
}

/**
 * The bytes of a file as they can be tried under another name: a file that imports itself would import its old bytes over
 * the new ones, and relative imports are relative to the folder.
 *
 * @param imported of what it imports, the file that is tried under another name, too
 */
async function importable(
  host: Host,
  file: string,
  trial: string,
  bytes: Buffer,
  imported?: { file: string; trial: string },
): Promise<Buffer> {
  const document = parseDocument(decode(bytes, file), file);
  const imports = await importedFiles(host, document, file);
  const isBeside = dirname(trial) === dirname(file);
  if (imported === undefined && !imports.includes(file) && (isBeside || document.imports === undefined)) return bytes;
  const names = await Promise.all(
    imports
      .filter((path) => path !== file)
      .map(async (path) =>
        imported !== undefined && (await host.realpath(path)) === imported.file ? imported.trial : path,
      ),
  );
  return Buffer.from(stringify({ ...document, imports: names }));
}

/** What `config dump` accepts but the daemon does not survive, and what hides our tables if there are to be any. */
async function checkImports(
  host: Host,
  located: Located,
  document: Table,
  entries: readonly HandlerEntry[],
  removed: readonly string[],
): Promise<string[]> {
  const problems: string[] = [];
  const imported = new Map<string, Table>();
  for (const { by, path, document: read } of await readImports(host, document, located.configuration)) {
    if (path === located.configuration) continue;
    if (read === undefined) {
      problems.push(`${by} imports ${path}, which is not there`);
    } else {
      imported.set(path, read);
      if ((await host.realpath(path)) !== located.file) problems.push(...copied(located, path, read, removed));
    }
  }
  return located.kind === "drop-in" || located.kind === "imported" || entries.length === 0
    ? problems
    : [...problems, ...hidden(located, document, imported)];
}

/** nvidia-ctk, among others, copies all of the CRI plugin's section into a drop-in of its own, our tables included. */
function copied({ unit }: Located, path: string, document: Table, removed: readonly string[]): string[] {
  const there = runtimeNamesIn(document);
  return removed
    .filter((handler) => there.includes(handler))
    .map(
      (handler) =>
        `handler ${handler} would still be served, because ${path} has a copy of its table: delete the copy and restart ${unit}`,
    );
}

/**
 * containerd 1.7 lets an import replace a plugin's whole section. 2.0 to 2.2 merge first and migrate older versions after
 * that, so the version and the plugin ids of an import change how they read the file itself.
 */
function hidden({ configuration, version }: Located, document: Table, imported: ReadonlyMap<string, Table>): string[] {
  const containerd = parseContainerdVersion(version);
  for (const [path, each] of imported) fileVersion(each, containerd, path);
  if (containerd.newestConfiguration === 2) {
    return [...imported].flatMap(([path, { plugins }]) => {
      const cri = [criPlugins.version2, criPlugins.legacy].find((id) => at(plugins, [id]) !== undefined);
      return cri === undefined
        ? []
        : `the import ${path} has a table plugins."${cri}", which in containerd ${version} replaces the one of ${configuration}: move its keys into ${configuration} and out of that file, or upgrade the node to containerd 2, which merges both`;
    });
  }
  if (containerd.newestConfiguration === 4) return [];
  const { runtimes } = dialect(document, containerd, configuration);
  const edited = withValue(document, runtimes, tableAt(document, runtimes) ?? {});
  const all = [...imported.values()].reduce(merged, edited);
  // Version 1 is not migrated at all.
  if (fileVersion(all, containerd, configuration) === 1) return [];
  const [own, read] = [dotted(runtimes), dotted(dialect(all, containerd, configuration).runtimes)];
  return own === read
    ? []
    : [
        `because of its imports, containerd ${version} looks for the runtimes of ${configuration} in ${read} instead of ${own}: give the file and its imports one version and the same plugin ids`,
      ];
}

const merged = (left: Table, right: Table): Table => ({
  ...left,
  ...Object.fromEntries(
    Object.entries(right).map(([key, value]) => {
      const known = left[key];
      return [key, isTable(known) && isTable(value) ? merged(known, value) : value];
    }),
  ),
});

async function checkFiles(
  host: Host,
  entries: readonly HandlerEntry[],
  toCome: ReadonlySet<string>,
): Promise<string[]> {
  const problems: string[] = [];
  const fileAt = async (path: string) => {
    const stat = await host.stat(path);
    return stat?.kind === "file" ? stat : undefined;
  };
  for (const { handler, entry } of entries) {
    const { runtimePath, options } = entry;
    if (!toCome.has(runtimePath) && (((await fileAt(runtimePath))?.mode ?? 0) & 0o111) === 0)
      problems.push(`the shim ${runtimePath} of handler ${handler} is not there, or not executable`);
    const config = options?.ConfigPath;
    if (config !== undefined && !toCome.has(config) && (await fileAt(config)) === undefined)
      problems.push(`the Kata configuration ${config} of handler ${handler} is not there`);
  }
  return problems;
}
