import { dotted, isTable, parseDocument, sameDocument, type Table, tableAt, withoutZeros } from "./document.ts";
import { type Owned, subtract } from "./edit.ts";
import { type HandlerEntry, inDump } from "./entry.ts";
import { imagesPlugin, runtimeSectionOf, version2Plugin } from "./plugins.ts";
import { proxyPluginsOf } from "./tables.ts";

/** What should differ between two configurations: these entries appear, and what was owned before disappears. */
export interface Change {
  entries: readonly HandlerEntry[];
  removed: Owned;
}

/**
 * Compares two outputs of `containerd config dump`. Empty: only our keys differ, and every entry is as wanted. A dump
 * includes all defaults, and is in the newest version that the binary knows, whatever the file's version.
 */
export function compareDumps(before: string, after: string, { entries, removed }: Change): string[] {
  const [old, next] = [parseDump(before), parseDump(after)];
  const ours: Owned = {
    handlers: [...removed.handlers, ...entries.map(({ handler }) => handler)],
    proxyPlugins: [...removed.proxyPlugins, ...proxyPluginsOf(entries).keys()],
  };
  const foreign = differences(withoutZeros(subtract(old, ours)), withoutZeros(subtract(next, ours)), []);
  return [
    ...foreign,
    ...entries.flatMap((entry) => missing(next, entry)),
    ...leftOver(next, ours, entries),
    ...fatalIn(next),
  ];
}

/** In 1.7 the list of imports contains the file itself, and a candidate has another name. */
function parseDump(text: string): Table {
  const { imports: _, ...document } = parseDocument(text, "containerd config dump");
  return document;
}

/** Sentences, one for each key that differs. */
export function differences(before: unknown, after: unknown, path: readonly string[]): string[] {
  if (isTable(before) && isTable(after)) {
    const keys = [...new Set([...Object.keys(before), ...Object.keys(after)])].sort();
    return keys.flatMap((key) => differences(before[key], after[key], [...path, key]));
  }
  if (sameDocument(before, after)) return [];
  return [`${dotted(path)} would change from ${show(before)} to ${show(after)}`];
}

const show = (value: unknown): string =>
  value === undefined
    ? "nothing"
    : JSON.stringify(value, (_, item) => (typeof item === "bigint" ? Number(item) : item)).slice(0, 200);

const runtimesIn = (dump: Table): Table => tableAt(runtimeSectionOf(dump), ["runtimes"]) ?? {};

function missing(document: Table, { handler, entry }: HandlerEntry): string[] {
  const runtime = tableAt(runtimesIn(document), [handler]);
  if (runtime === undefined) {
    return [`handler ${handler} would not be served: an import or another section replaces the table that holds it`];
  }
  const problems = inDump(entry)
    .filter(([key, value]) => !sameDocument(withoutZeros(runtime[key]), withoutZeros(value)))
    .map(([key, value]) => `${key} of handler ${handler} would be ${show(runtime[key])} instead of ${show(value)}`);
  const images = tableAt(document, imagesPlugin);
  const pulled = tableAt(images, ["runtime_platforms", handler])?.snapshotter;
  if (images !== undefined && (pulled || undefined) !== (entry.snapshotter || undefined)) {
    problems.push(
      `images of handler ${handler} would be pulled with ${show(pulled)} instead of ${show(entry.snapshotter)}`,
    );
  }
  const { proxyPlugin } = entry;
  if (proxyPlugin !== undefined) {
    const address = tableAt(document, ["proxy_plugins", proxyPlugin.name])?.address;
    if (address !== proxyPlugin.address) {
      problems.push(`proxy plugin ${proxyPlugin.name} would be at ${show(address)} instead of ${proxyPlugin.address}`);
    }
  }
  return problems;
}

function leftOver(document: Table, ours: Owned, entries: readonly HandlerEntry[]): string[] {
  const wanted = new Set(entries.map(({ handler }) => handler));
  const runtimes = runtimesIn(document);
  return ours.handlers
    .filter((handler) => !wanted.has(handler) && Object.hasOwn(runtimes, handler))
    .map((handler) => `handler ${handler} would still be served`);
}

function badRegistry(document: Table): string[] {
  const sections = [imagesPlugin, version2Plugin].map((plugin) => tableAt(document, [...plugin, "registry"]));
  return sections.some((one) => one !== undefined && !!one.config_path && !isEmptyTable(one.mirrors))
    ? ["registry.mirrors and registry.config_path are both set, with which containerd's CRI plugin does not start"]
    : [];
}

const isEmptyTable = (value: unknown): boolean => !isTable(value) || Object.keys(value).length === 0;

/** What `config dump` prints without a word, and the CRI plugin does not start with. */
export const fatalIn = (dump: Table): string[] => [...badDefault(dump), ...badRegistry(dump)];

/** containerd accepts a default runtime that does not exist, but then serves no kubelet. */
function badDefault(document: Table): string[] {
  const name = runtimeSectionOf(document)?.default_runtime_name;
  if (typeof name !== "string" || name === "" || Object.hasOwn(runtimesIn(document), name)) return [];
  return [`default_runtime_name is "${name}", but there would be no such runtime`];
}
