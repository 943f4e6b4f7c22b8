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
import type { HandlerEntry } from "./entry.ts";
import { type Fenced, joinFence, splitAtFence } from "./fence.ts";
import { checkDocument, type Dialect, dialect, proxyPluginsOf, renderEntries } from "./tables.ts";
import { type ContainerdVersion, parseContainerdVersion } from "./version.ts";

/** Everything besides the bytes and the entries that decides how a file is edited. */
export interface EditContext {
  /** The edited file, for messages. */
  file: string;
  kind: "root" | "template" | "drop-in";
  /** "1.7.24" */
  containerdVersion: string;
  /** For a template or a drop-in: what the distribution rendered for containerd. */
  rendered?: { file: string; bytes: Uint8Array | undefined };
  /** First line of a template that does not exist yet. */
  templateBase?: string | undefined;
}

/** What a block holds. */
export interface Owned {
  handlers: string[];
  proxyPlugins: string[];
}

/**
 * The file with exactly these handlers in its fenced block, and every other byte unchanged. No handlers: no block. A
 * missing file is created with the minimum that containerd needs; `undefined` is returned when nothing is left of a file
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
      : context.kind === "root"
        ? editRoot(text, entries, context)
        : editRendered(text, entries, context);
  return next === undefined ? undefined : Buffer.from(next);
}

/** The handlers and proxy plugins in the block of these bytes. */
export function ownedBy(bytes: Uint8Array | undefined, file: string): Owned {
  const block = bytes === undefined ? undefined : splitAtFence(decode(bytes, file), file).block;
  return ownedIn(block === undefined ? {} : parseBlock(block, file));
}

function ownedIn(block: Table): Owned {
  const plugins = Object.values(tableAt(block, ["plugins"]) ?? {});
  const handlers = plugins.flatMap((plugin) => Object.keys(tableAt(plugin, ["containerd", "runtimes"]) ?? {}));
  return {
    handlers: handlers.filter((name) => name !== "runc").sort(),
    proxyPlugins: Object.keys(tableAt(block, ["proxy_plugins"]) ?? {}).sort(),
  };
}

export const parseBlock = (lines: readonly string[], file: string): Table => parseDocument(lines.join("\n"), file);

function withoutEntries(text: string | undefined, { file, kind, templateBase }: EditContext): string | undefined {
  if (text === undefined) return undefined;
  const fenced = splitAtFence(text, file);
  if (fenced.block === undefined) return text;
  if (kind !== "template") withoutBlock(text, fenced, file);
  else if (fenced.before + fenced.after === `${templateBase}\n`) return undefined;
  return withBlock(fenced, headOf(fenced), []);
}

function editRoot(
  text: string | undefined,
  entries: readonly HandlerEntry[],
  context: EditContext,
): string | undefined {
  const { file } = context;
  const containerd = parseContainerdVersion(context.containerdVersion);
  if (text === undefined) {
    // Every 2.x reads version 3, so the file survives upgrades and downgrades.
    const head = [`version = ${containerd.newestConfiguration === 2 ? 2 : 3}`];
    return withBlock(emptyText, head, renderEntries(entries, dialect(parseBlock(head, file), containerd, file)));
  }
  if (text.startsWith("\ufeff") && containerd.newestConfiguration > 2) {
    throw new Refusal(
      "configuration-byte-order-mark",
      `${file} starts with a byte order mark, so containerd ${containerd.text} does not load it. Save it as UTF-8 without one first.`,
    );
  }
  const fenced = splitAtFence(text, file);
  const base = withoutBlock(text, fenced, file);
  const head = headOf(fenced);
  const target = checked({ ...base, ...parseBlock(head, file) }, entries, containerd, file);
  const next = withBlock(fenced, head, renderEntries(entries, target));
  assertOnlyOurs(next, base, target, file);
  return next;
}

/** Templates and drop-ins: the rendered file decides which tables are read, and which must not be repeated. */
function editRendered(text: string | undefined, entries: readonly HandlerEntry[], context: EditContext): string {
  const { file, kind, templateBase } = context;
  const containerd = parseContainerdVersion(context.containerdVersion);
  const fenced = text === undefined ? emptyText : splitAtFence(text, file);
  const rendered = renderedDocument(context, kind === "drop-in" ? parseBlock(fenced.block ?? [], file) : {});
  const target = checked(rendered, entries, containerd, context.rendered?.file ?? file);
  const tables = renderEntries(entries, target);
  if (kind === "template") {
    const made = text === undefined && templateBase !== undefined;
    return withBlock(made ? { ...emptyText, before: `${templateBase}\n` } : fenced, [], tables);
  }
  // containerd merges a drop-in correctly only if it has the version of the file that imports it.
  const version = at(rendered, ["version"]);
  const base = text === undefined ? {} : withoutBlock(text, fenced, file);
  const next = withBlock(fenced, version === undefined || "version" in base ? [] : [`version = ${version}`], tables);
  assertOnlyOurs(next, base, target, file);
  return next;
}

const emptyText: Fenced = { before: "", block: undefined, after: "" };

/** The `version` line, by which a block shows that we created the file. */
const headOf = ({ block }: Fenced): string[] => (block ?? []).filter((line) => /^version = \d+$/.test(line));

/** A file that we created is removed with its last table, unless somebody has added to it since: then its head stays. */
function withBlock(fenced: Fenced, head: string[], tables: string[][]): string;
function withBlock(fenced: Fenced, head: string[], tables: []): string | undefined;
function withBlock(fenced: Fenced, head: string[], tables: string[][]): string | undefined {
  const alone = fenced.before === "" && fenced.after === "";
  if (tables.length === 0 && head.length > 0 && alone) return undefined;
  return joinFence(fenced, separated(head.length === 0 ? tables : [head, ...tables]));
}

const separated = (tables: readonly (readonly string[])[]): string[] =>
  tables.flatMap((table, index) => (index === 0 ? table : ["", ...table]));

/** The document without our block; proves that the rest means the same with and without the block. */
function withoutBlock(text: string, fenced: Fenced, file: string): Table {
  const base = parseDocument(fenced.before + fenced.after, file);
  if (fenced.block === undefined) return base;
  const document = parseDocument(text, file);
  if (!sameDocument(document, union(base, parseBlock(fenced.block, file)))) {
    throw new Refusal(
      "fence-not-apart",
      `${file}: text around the contrast-runtime block depends on the block, such as a key after "# END contrast-runtime" without a table header of its own. Move that text above the block, then run again.`,
    );
  }
  return base;
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
      `${file} has ${dotted(taken)} already, outside the contrast-runtime block. Delete that table, or remove the runtime from the install spec.`,
    );
  }
  return target;
}

/** The edited text must parse to what was there plus the block's tables, and nothing else. */
function assertOnlyOurs(text: string, base: Table, { runtimes, runtimePlatforms }: Dialect, file: string): void {
  const { block, before, after } = splitAtFence(text, file);
  const ours = parseBlock(block ?? [], file);
  let edited: Table;
  try {
    edited = parseDocument(text, file);
  } catch (error) {
    // The text parsed without our tables and has none of them, so the only cause left is a table closed to additions.
    const closed = inlineTable(before + after, [runtimes, runtimePlatforms ?? [], ["proxy_plugins"]], file);
    if (closed === undefined) throw error;
    throw new Refusal(
      "configuration-inline-table",
      `${file}: ${dotted(closed)} is an inline table ({ … }), to which nothing can be added. Write it as a table of its own, [${dotted(closed)}], then run again.`,
    );
  }
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
function renderedDocument({ file, rendered }: EditContext, dropIn: Table): Table {
  if (rendered?.bytes === undefined) {
    throw new Refusal(
      "configuration-not-rendered",
      `${rendered?.file ?? file} is not there: the distribution has not rendered containerd's configuration yet. Start it once, then run again.`,
    );
  }
  const text = decode(rendered.bytes, rendered.file);
  return subtract(withoutBlock(text, splitAtFence(text, rendered.file), rendered.file), ownedIn(dropIn));
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
