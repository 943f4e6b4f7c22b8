import { Refusal } from "../../runtime/refusal.ts";
import {
  at,
  decode,
  dotted,
  isTable,
  parseDocument,
  renderTable,
  sameDocument,
  type Table,
  tableAt,
  union,
} from "./document.ts";
import { type HandlerEntry, sameSettings } from "./entry.ts";
import { joinFence } from "./fence.ts";
import { handlersIn, type Known, nothingKnown, type Separated, separate } from "./separate.ts";
import {
  checkDocument,
  type Dialect,
  dialect,
  proxyPluginsOf,
  renderEntries,
  renderRunc,
  runcTable,
} from "./tables.ts";
import { type ContainerdVersion, parseContainerdVersion } from "./version.ts";

/** Everything besides the bytes and the entries that decides how a file is edited. */
export interface EditContext {
  /** The edited file, for messages. */
  file: string;
  /** `imported`: a file of which containerd reads everything as of its own, but must be there for the one that imports it. */
  kind: "root" | "imported" | "template" | "drop-in";
  /** "1.7.24" */
  containerdVersion: string;
  /** For a template or a drop-in: what the distribution rendered for containerd. */
  rendered?: { file: string; bytes: Uint8Array | undefined };
  /** First line of a template that does not exist yet. */
  templateBase?: string | undefined;
  /** By what tables are known as ours where the fence does not tell. */
  known?: Known;
}

/** What of a file is ours. */
export interface Owned {
  handlers: string[];
  proxyPlugins: string[];
}

/**
 * The file with exactly these handlers, in its fenced block, and every byte that is not ours unchanged. No handlers: no
 * block. A file that holds exactly what is wanted stays as it is, also if another program wrote it anew without the fence.
 * A missing file is created with the minimum that containerd needs; `undefined` is returned when nothing is left of a file
 * created this way. Throws `Refusal` if this cannot be done safely, before anything is written.
 */
export function editConfiguration(
  bytes: Uint8Array | undefined,
  entries: readonly HandlerEntry[],
  context: EditContext,
): Buffer | undefined {
  const text = bytes === undefined ? undefined : decode(bytes, context.file);
  const next =
    entries.length === 0
      ? withoutEntries(text, context)
      : context.kind === "root" || context.kind === "imported"
        ? editRoot(text, entries, context)
        : editRendered(text, entries, context);
  return next === undefined ? undefined : Buffer.from(next);
}

/** The handlers and proxy plugins in these bytes that are ours. */
export const ownedBy = (bytes: Uint8Array | undefined, context: EditContext): Owned => ownedIn(oursIn(bytes, context));

/** Our tables in these bytes. */
export function oursIn(bytes: Uint8Array | undefined, { file, kind, known = nothingKnown }: EditContext): Table {
  return bytes === undefined ? {} : separate(decode(bytes, file), file, known, kind === "template").ours;
}

/** Whether a file says no more than what we write into a new one besides our handlers. */
export function holdsNothing(bytes: Uint8Array, file: string): boolean {
  const text = decode(bytes, file);
  if (/^[ \t]*#/m.test(text)) return false;
  const { version: _, ...said } = parseDocument(text, file);
  return isBare(said);
}

const isBare = (value: unknown): boolean =>
  isTable(value) &&
  Object.entries(value).every(([key, child]) => (key === "runc" && sameDocument(child, runcTable)) || isBare(child));

export const ownedIn = (ours: Table): Owned => ({
  handlers: handlersIn(ours).sort(),
  proxyPlugins: Object.keys(tableAt(ours, ["proxy_plugins"]) ?? {}).sort(),
});

function separated(text: string, { file, kind, known = nothingKnown }: EditContext): Separated {
  const parts = separate(text, file, known, kind === "template");
  if (kind !== "template") refuseDependence(text, parts, file);
  return parts;
}

function withoutEntries(text: string | undefined, context: EditContext): string | undefined {
  if (text === undefined) return undefined;
  const { file, kind, templateBase } = context;
  const parts = separated(text, context);
  if (parts.handlers.length === 0) return text;
  if (kind === "template")
    return parts.before + parts.after === `${templateBase}\n` ? undefined : parts.before + parts.after;
  const base = parseDocument(parts.before + parts.after, file);
  const kept = reliedOn(parts, base, kind).flatMap((path) => renderRunc(path));
  if (kind === "imported" && parts.before + parts.after === "") return `${[...parts.head, ...kept].join("\n")}\n`;
  if (kept.length === 0) return withBlock(parts, parts.head, []);
  const before = parts.before === "" || parts.before.endsWith("\n") ? parts.before : `${parts.before}\n`;
  return withBlock({ ...parts, before, after: `${kept.join("\n")}\n${parts.after}` }, parts.head, []);
}

/**
 * Where somebody added a runtime to the table for which we wrote containerd 1.7's runc: without it, runc would be gone. Of an
 * imported file, it also hides what the importing one says about runc, or about the whole plugin.
 */
function reliedOn({ ours }: Separated, base: Table, kind: EditContext["kind"]): string[][] {
  return Object.entries(tableAt(ours, ["plugins"]) ?? {}).flatMap(([plugin, table]) => {
    const path = ["plugins", plugin, "containerd", "runtimes"];
    const others = Object.keys(tableAt(base, path) ?? {});
    const hasRunc = tableAt(table, ["containerd", "runtimes", "runc"]) !== undefined;
    return hasRunc && (others.length > 0 || kind === "imported") && !others.includes("runc") ? [path] : [];
  });
}

function editRoot(
  text: string | undefined,
  entries: readonly HandlerEntry[],
  context: EditContext,
): string | undefined {
  const { file } = context;
  const containerd = parseContainerdVersion(context.containerdVersion);
  if (text?.startsWith("\ufeff") && containerd.newestConfiguration > 2) {
    throw new Refusal(
      "configuration-byte-order-mark",
      `${file} starts with a byte order mark, so containerd ${containerd.text} does not load it. Save it as UTF-8 without one first.`,
    );
  }
  const parts = text === undefined ? nothing : separated(text, context);
  const head = text === undefined ? [everyVersion] : readableHead(parts, containerd);
  const base = parseDocument(parts.before + parts.after, file);
  const whole = { ...base, ...parseDocument(head.join("\n"), file) };
  const found = checked(whole, entries, containerd, file);
  // What we created must do for every containerd that may read it one day.
  const isForAny = head.includes(everyVersion) && Object.keys(base).length === 0;
  const relied = reliedOn(parts, base, context.kind).some((path) => sameDocument(path, found.runtimes));
  const target = { ...found, needsRunc: found.needsRunc || isForAny || relied };
  const tables = renderEntries(entries, target);
  if (text !== undefined && isAsWanted(parts, tables, file)) return text;
  const next = withBlock(parts, head, tables);
  assertOnlyOurs(next, base, head, tables, target, file);
  return next;
}

/** Both 1.7 and 2.x read it, so that a file that we created outlives upgrades and downgrades of containerd. */
const everyVersion = "version = 2";

/** containerd 1.7 does not start with a newer version, which earlier releases of ours wrote on 2.x. */
const readableHead = ({ head }: Separated, { newestConfiguration }: ContainerdVersion): string[] =>
  newestConfiguration === 2 && head.length > 0 ? [everyVersion] : head;

/** Another program wrote the file anew and kept our tables: it is left as it is until something else has to change. */
const isAsWanted = ({ isFenced, ours }: Separated, tables: string[][], file: string): boolean =>
  !isFenced && sameSettings(ours, parseDocument(tables.flat().join("\n"), file));

/** Templates and drop-ins: the rendered file decides which tables are read, and which must not be repeated. */
function editRendered(text: string | undefined, entries: readonly HandlerEntry[], context: EditContext): string {
  const { file, kind, templateBase } = context;
  const containerd = parseContainerdVersion(context.containerdVersion);
  const parts = text === undefined ? nothing : separated(text, context);
  const rendered = renderedDocument(context, kind === "drop-in" ? parts : nothing);
  const target = checked(rendered, entries, containerd, context.rendered?.file ?? file);
  const tables = renderEntries(entries, target);
  if (kind === "template") {
    const made = text === undefined && templateBase !== undefined;
    return withBlock(made ? { ...nothing, before: `${templateBase}\n` } : parts, [], tables);
  }
  if (text !== undefined && isAsWanted(parts, tables, file)) return text;
  // containerd merges a drop-in correctly only if it has the version of the file that imports it.
  const version = at(rendered, ["version"]);
  const base = parseDocument(parts.before + parts.after, file);
  const head = version === undefined || "version" in base ? [] : [`version = ${version}`];
  const next = withBlock(parts, head, tables);
  assertOnlyOurs(next, base, head, tables, target, file);
  return next;
}

const nothing: Separated = { before: "", after: "", ours: {}, handlers: [], head: [], isFenced: true };

/** A file that we created is removed with its last table, unless somebody has added to it since: then its head stays. */
function withBlock(parts: Separated, head: string[], tables: string[][]): string;
function withBlock(parts: Separated, head: string[], tables: []): string | undefined;
function withBlock(parts: Separated, head: string[], tables: string[][]): string | undefined {
  const alone = parts.before === "" && parts.after === "";
  if (tables.length === 0 && head.length > 0 && alone) return undefined;
  return joinFence(parts, separatedBy(head.length === 0 ? tables : [head, ...tables]));
}

const separatedBy = (tables: readonly (readonly string[])[]): string[] =>
  tables.flatMap((table, index) => (index === 0 ? table : ["", ...table]));

/** Proves that the rest means the same with and without what is ours. */
function refuseDependence(text: string, { before, after, ours, head, isFenced }: Separated, file: string): void {
  if (isFenced && Object.keys(ours).length === 0) return;
  const base = parseDocument(before + after, file);
  let document: Table;
  try {
    document = parseDocument(text, file);
  } catch (error) {
    // containerd could not load it because something of ours is there twice; without that, it can.
    if (!isFenced) return;
    throw error;
  }
  if (sameDocument(document, union(base, union(ours, parseDocument(head.join("\n"), file)) ?? {}))) return;
  throw new Refusal(
    "fence-not-apart",
    `${file}: text around the contrast-runtime block depends on the block, such as a key after "# END contrast-runtime" without a table header of its own. Move that text above the block, then run again.`,
  );
}

/** The dialect of a document, after checking that nothing in it conflicts with the entries. */
function checked(
  document: Table,
  entries: readonly HandlerEntry[],
  containerd: ContainerdVersion,
  file: string,
): Dialect {
  checkDocument(document, file);
  const target = dialect(document, containerd, file);
  for (const path of [target.runtimes, target.runtimePlatforms ?? [], ["proxy_plugins"]]) {
    path.forEach((_, index) => {
      const prefix = path.slice(0, index + 1);
      const value = at(document, prefix);
      if (value === undefined || isTable(value)) return;
      throw new Refusal(
        "configuration-not-a-table",
        `${file}: ${dotted(prefix)} is ${Array.isArray(value) ? "a list" : `the value ${String(value)}`}, but must be a table. containerd does not load this file: correct it first.`,
      );
    });
  }
  const taken = [
    ...entries.flatMap(({ handler }) => [
      [...target.runtimes, handler],
      ...(target.runtimePlatforms === undefined ? [] : [[...target.runtimePlatforms, handler]]),
    ]),
    ...[...proxyPluginsOf(entries).keys()].map((name) => ["proxy_plugins", name]),
  ].find((path) => at(document, path) !== undefined);
  if (taken !== undefined) {
    throw new Refusal(
      "handler-exists",
      `${file} has ${dotted(taken)} already, with other content than ours, and this node's journal does not know it. Delete that table (the installer writes its own), then run again.`,
    );
  }
  return target;
}

/** The edited text must parse to what was there plus our head and tables, and nothing else. */
function assertOnlyOurs(
  text: string,
  base: Table,
  head: string[],
  tables: string[][],
  { runtimes, runtimePlatforms }: Dialect,
  file: string,
): void {
  let edited: Table;
  try {
    edited = parseDocument(text, file);
  } catch (error) {
    // The text parsed without our tables and has none of them, so the only cause left is a table closed to additions.
    const { before, after } = separate(text, file, nothingKnown);
    const closed = inlineTable(before + after, [runtimes, runtimePlatforms ?? [], ["proxy_plugins"]], file);
    if (closed === undefined) throw error;
    throw new Refusal(
      "configuration-inline-table",
      `${file}: ${dotted(closed)} is an inline table ({ … }), to which nothing can be added. Write it as a table of its own, [${dotted(closed)}], then run again.`,
    );
  }
  const ours = parseDocument([...head, ...tables.flat()].join("\n"), file);
  if (!sameDocument(edited, union(base, ours))) {
    throw new Error(`${file}: the edited configuration differs in more than the contrast-runtime block`);
  }
}

/** The first table on any of the paths to which no table can be added. */
function inlineTable(text: string, paths: readonly (readonly string[])[], file: string): string[] | undefined {
  for (const path of paths) {
    for (let length = 1; length <= path.length; length++) {
      const prefix = path.slice(0, length);
      if (at(parseDocument(text, file), prefix) === undefined) break;
      try {
        parseDocument([text, ...renderTable([...prefix, "contrast-runtime-probe"], {})].join("\n"), file);
      } catch {
        return prefix;
      }
    }
  }
  return undefined;
}

/** What the distribution rendered, without what our template or drop-in added to it. */
function renderedDocument(context: EditContext, dropIn: Separated): Table {
  const { file, rendered } = context;
  if (rendered?.bytes === undefined) {
    throw new Refusal(
      "configuration-not-rendered",
      `${rendered?.file ?? file} is not there: the distribution has not rendered containerd's configuration yet. Start it once, then run again.`,
    );
  }
  const text = decode(rendered.bytes, rendered.file);
  const { before, after } = separated(text, { ...context, file: rendered.file, kind: "root" });
  return subtract(parseDocument(before + after, rendered.file), ownedIn(dropIn.ours));
}

/** A document without these handlers and proxy plugins. */
export function subtract(document: Table, { handlers, proxyPlugins }: Owned): Table {
  const without = (value: unknown, path: readonly string[], names: readonly string[]): unknown => {
    if (!isTable(value)) return value;
    const [key, ...rest] = path;
    if (key === undefined) {
      return Object.fromEntries(Object.entries(value).filter(([name]) => !names.includes(name)));
    }
    return Object.fromEntries(
      Object.entries(value).map(([name, child]) =>
        key === "*" || name === key ? [name, without(child, rest, names)] : [name, child],
      ),
    );
  };
  let result: unknown = document;
  result = without(result, ["plugins", "*", "containerd", "runtimes"], handlers);
  result = without(result, ["plugins", "*", "runtime_platforms"], handlers);
  result = without(result, ["proxy_plugins"], proxyPlugins);
  return result as Table;
}
