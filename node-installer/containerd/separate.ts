import { printable } from "../../runtime/printable.ts";
import { Refusal } from "../../runtime/refusal.ts";
import { handlerName } from "../../runtime/spec.ts";
import {
  at,
  dotted,
  isTable,
  lineAt,
  parseDocument,
  sameDocument,
  type Table,
  tableAt,
  union,
  withValue,
} from "./document.ts";
import { type HandlerEntry, sameSettings, toToml } from "./entry.ts";
import { type Block, blocksIn, headLine, spansIn, withoutMarks } from "./fence.ts";
import { type Statement, statementsOf } from "./statements.ts";
import { runcNote, runcTable } from "./tables.ts";

/** By what tables are known as ours outside of a block that is as we wrote it. */
export interface Known {
  /** Handlers that were placed on this node: their names are ours, whatever their tables say. */
  placed: readonly string[];
  /** Handlers that shall be here: a table with the name of one is ours if it says what ours says. */
  wanted: readonly HandlerEntry[];
}

export const nothingKnown: Known = { placed: [], wanted: [] };

/** A text split into what is ours and what is not. `before + after` is what is not; our block goes between them. */
export interface Separated {
  before: string;
  after: string;
  /** Our tables; of one that is there twice, the first. */
  ours: Table;
  /** In our tables, sorted. */
  handlers: string[];
  /** The `version` line of the block, by which it shows that we created the file. */
  head: string[];
  /** All that is ours is in one block that is as we wrote it. */
  isFenced: boolean;
}

/**
 * Finds what is ours. The names of our handlers tell, because each is made of a hash; the fence tells the same as long as
 * nobody has written the file anew, but tools that do so drop comments, change plugin ids, and order tables as they like.
 * A template is no TOML: there, only what is written line by line is found.
 */
export function separate(text: string, file: string, known: Known, isTemplate = false): Separated {
  const blocks = blocksIn(text);
  const tables = blocks.map(({ lines }) => parseDocument(lines.join("\n"), file));
  const parts = cut(text, blocks);
  const rest = parts.before + parts.after;
  const fenced = tables.flatMap(handlersIn);
  const names = new Set([...known.placed, ...fenced, ...namesInSpans(rest)]);
  if (!isTemplate) for (const name of sameAsWanted(rest, file, known.wanted, names)) names.add(name);
  const [before, after] = [take(parts.before, names, file), take(parts.after, names, file)];
  const separated = { before: before.rest, after: after.rest };
  const still = left(separated, names, file, isTemplate);
  if (still !== undefined) throw still;
  const found = [...tables.map(({ version: _, ...below }) => below), before.ours, after.ours];
  return {
    ...separated,
    ours: found.reduce((all, one) => union(all, one) ?? all, {}),
    handlers: [...new Set(found.flatMap(handlersIn))].sort(),
    head: blocks.flatMap(({ lines }) => lines.filter((line) => headLine.test(line))).slice(0, 1),
    isFenced: blocks.length <= 1 && separated.before + separated.after === rest,
  };
}

/** The handlers with a runtime's table in the document; runc is in it for containerd 1.7. */
export function handlersIn(document: Table): string[] {
  const plugins = Object.values(tableAt(document, ["plugins"]) ?? {});
  const names = plugins.flatMap((plugin) => Object.keys(tableAt(plugin, ["containerd", "runtimes"]) ?? {}));
  return names.filter((name) => name !== "runc");
}

function cut(text: string, blocks: readonly Block[]): { before: string; after: string } {
  const [first] = blocks;
  if (first === undefined) return { before: text, after: "" };
  let after = "";
  blocks.forEach(({ end }, index) => {
    after += text.slice(end, blocks[index + 1]?.start);
  });
  const before = text.slice(0, first.start);
  return { before: first.joined && after === "" ? before.replace(/\r?\n$/, "") : before, after };
}

/** Of a block that was edited, what is named like a handler. */
const namesInSpans = (text: string): string[] =>
  spansIn(text)
    .flatMap(({ body }) => statementsOf(body).map(({ path }) => placeOf(path)?.handler))
    .filter((name) => name !== undefined)
    .filter((name) => handlerName.safeParse(name).success);

function sameAsWanted(
  text: string,
  file: string,
  wanted: readonly HandlerEntry[],
  names: ReadonlySet<string>,
): string[] {
  const unknown = wanted.filter(({ handler }) => !names.has(handler) && text.includes(handler));
  if (unknown.length === 0) return [];
  const document = parseDocument(withoutMarks(text), file);
  const plugins = Object.values(tableAt(document, ["plugins"]) ?? {});
  const same = ({ handler, entry }: HandlerEntry): boolean => {
    const { scalars, subtables } = toToml(entry);
    const runtimes = plugins.map((plugin) => at(plugin, ["containerd", "runtimes", handler]));
    const pulled = plugins.map((plugin) => at(plugin, ["runtime_platforms", handler]));
    const { name = handler, address } = entry.proxyPlugin ?? {};
    const proxy = at(document, ["proxy_plugins", name]);
    return (
      runtimes.some((table) => table !== undefined) &&
      runtimes.every((table) => table === undefined || sameSettings(table, { ...scalars, ...subtables })) &&
      pulled.every((table) => table === undefined || sameSettings(table, { snapshotter: entry.snapshotter })) &&
      (proxy === undefined || sameSettings(proxy, { type: "snapshot", address }))
    );
  };
  return unknown.filter(same).map(({ handler }) => handler);
}

interface Place {
  handler: string;
  /** Of the handler's table. */
  depth: number;
  /** Of all releases of containerd. A key that is none of these was meant for another table. */
  keys: ReadonlySet<string>;
}

/** Which handler's table a path is in; undefined: in no handler's. Proxy plugins end with their handler's name. */
function placeOf([root, plugin, third, fourth, fifth]: readonly string[]): Place | undefined {
  if (root === "plugins" && third === "containerd" && fourth === "runtimes" && fifth !== undefined)
    return { handler: fifth, depth: 5, keys: runtimeKeys };
  if (root === "plugins" && third === "runtime_platforms" && fourth !== undefined)
    return { handler: fourth, depth: 4, keys: platformKeys };
  const named = root === "proxy_plugins" && /-(contrast-(?:cc|insecure)-[a-z0-9-]+)$/.exec(plugin ?? "");
  return named && named[1] !== undefined ? { handler: named[1], depth: 2, keys: proxyKeys } : undefined;
}

const runtimeKeys = new Set([
  ...["runtime_type", "runtime_path", "runtime_engine", "runtime_root", "pod_annotations", "container_annotations"],
  ...["privileged_without_host_devices", "privileged_without_host_devices_all_devices_allowed", "base_runtime_spec"],
  ...["cni_conf_dir", "cni_max_conf_num", "snapshotter", "sandbox_mode", "sandboxer", "io_type", "cgroup_writable"],
  ...["options", "disable_pause_image_pull"],
]);
const platformKeys = new Set(["snapshotter", "platform"]);
const proxyKeys = new Set(["type", "address", "platform", "exports", "capabilities"]);

/** What we write into a handler's table; anybody may know it. */
const ourKeys = new Set([
  ...["runtime_type", "runtime_path", "pod_annotations", "privileged_without_host_devices", "snapshotter"],
  ...["ConfigPath", "type", "address"],
]);

/** Of such settings, words that anybody may know: names of containerd's and Kata's, and what has the handler's name in it. */
const publicWords = /^["'](?:snapshot|(?:io\.(?:containerd|katacontainers)\.|cdi\.k8s\.io\/)[a-z0-9._*-]{1,80})["']$/;

/** Whether a path is in a table that is named as ours are; if so, whether its value can be one that we write. */
export function settingOf(path: readonly string[], value: string): "ours" | "another" | undefined {
  const place = placeOf(path);
  if (place === undefined || !handlerName.safeParse(place.handler).success) return undefined;
  const isNamed = /^["'][a-z0-9./-]{1,200}["']$/.test(value) && value.includes(place.handler);
  return ourKeys.has(path.at(-1) ?? "") && (isNamed || publicWords.test(value)) ? "ours" : "another";
}

/** Takes the tables of these handlers, the fences, and what a fence holds besides for containerd 1.7, out of a text. */
function take(text: string, names: ReadonlySet<string>, file: string): { rest: string; ours: Table } {
  if (withoutMarks(text) === text && ![...names].some((name) => text.includes(name))) return { rest: text, ours: {} };
  const spans = spansIn(text);
  const isRunc = ({ path, start }: Statement): boolean =>
    path[3] === "runtimes" && path[4] === "runc" && spans.some((span) => span.start < start && start < span.end);
  const statements = statementsOf(text).filter((one) => names.has(placeOf(one.path)?.handler ?? "") || isRunc(one));
  const runc = documentOf(statements.filter(isRunc), file);
  const isOurRunc = handlerTables(runc).every((table) => sameDocument(table, runcTable));
  const ours = statements.filter((one) => !isRunc(one) || isOurRunc);
  for (const one of ours) refuseForeignKey(one, text, file);
  let rest = "";
  let from = 0;
  for (const { kind, start, end, comment } of ours) {
    const kept = text.slice(from, start);
    rest += kind === "header" ? withoutGap(kept, rest === "" && from === 0) : kept;
    // Somebody may have written a remark beside it.
    if (comment !== "") rest += `${comment}\n`;
    from = end;
  }
  return { rest: withoutMarks(rest + text.slice(from)), ours: documentOf(ours, file) };
}

const handlerTables = (document: Table): unknown[] =>
  Object.values(tableAt(document, ["plugins"]) ?? {}).flatMap((plugin) =>
    Object.values(tableAt(plugin, ["containerd", "runtimes"]) ?? {}),
  );

/** Without the empty line, and the note of ours, above a table that is taken out. */
const withoutGap = (text: string, isFirst: boolean): string => {
  const plain = text.replace(new RegExp(`(^|\\n)[ \\t]*${runcNote}\\r?\\n$`), "$1");
  return isFirst && plain.trim() === "" ? plain : plain.replace(/(^|\n)[ \t]*\r?\n$/, "$1");
};

/** The statements as a document of their own; of keys that are there twice, the first. */
const documentOf = (statements: readonly Statement[], file: string): Table =>
  statements.reduce<Table>((document, { kind, path, value }) => {
    if (at(document, path) !== undefined) return document;
    return withValue(document, path, kind === "header" ? {} : parseDocument(`value = ${value}`, file).value);
  }, {});

/** Somebody's words for another table, which would be lost with ours: such as a key that was appended to the file. */
function refuseForeignKey({ kind, path, value, start }: Statement, text: string, file: string): void {
  const place = placeOf(path);
  const below = place === undefined ? [] : path.slice(place.depth);
  if (kind === "header" || place === undefined || below.length === 0 || isZero(value)) return;
  const [key = "", option] = below;
  if (place.keys.has(key) && (key !== "options" || option === undefined || option === "ConfigPath")) return;
  throw new Refusal(
    "key-misplaced",
    `${file}, line ${lineAt(text, start)}: ${dotted(below)} stands in the table of the handler ${place.handler}, but is none of the settings that the installer writes there. Move it above the first table header or to the table where it belongs, or delete it; then run again.`,
  );
}

/** Tools spell out defaults, also of settings that are newer than this program. */
export const isZero = (value: string): boolean => /^(?:""|''|0|false|\[\s*\]|\{\s*\})$/.test(value);

/** What is ours but cannot be taken out line by line. */
function left(
  { before, after }: Pick<Separated, "before" | "after">,
  names: ReadonlySet<string>,
  file: string,
  isTemplate: boolean,
): Refusal | undefined {
  const text = before + after;
  const there = [...names].filter((name) => text.includes(name));
  if (there.length === 0) return undefined;
  if (isTemplate) {
    const lines = text.split("\n").filter((line) => !/^[ \t]*#/.test(line));
    const [line] = lines.filter((one) => there.some((name) => one.includes(name)));
    if (line === undefined) return undefined;
    const name = there.find((one) => line.includes(one));
    return new Refusal(
      "template-unclear",
      `${file} names the handler ${name} in a line that cannot be taken out of it safely: ${printable(line.trim(), 400)}\nDelete that line, and what belongs to it, then run again. The handler's own tables may stay.`,
    );
  }
  const document = parseDocument(text, file);
  const inline = Object.entries(tableAt(document, ["plugins"]) ?? {}).flatMap(([plugin, table]) =>
    isTable(table)
      ? [["containerd", "runtimes"], ["runtime_platforms"]].flatMap((path) =>
          there.some((name) => at(table, [...path, name]) !== undefined) ? [["plugins", plugin, ...path]] : [],
        )
      : [],
  );
  const [path] = inline;
  if (path === undefined) return undefined;
  return new Refusal(
    "configuration-inline-table",
    `${file}: ${dotted(path)} holds a handler of ours as an inline table ({ … }), of which no part can be taken out. Write each runtime in it as a table of its own, [${dotted(path)}.…], then run again.`,
  );
}
