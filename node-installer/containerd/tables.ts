import { Refusal } from "../../runtime/refusal.ts";
import { at, dotted, isTable, renderTable, type Table, tableAt } from "./document.ts";
import { type HandlerEntry, toToml } from "./entry.ts";
import { criPlugins, imagesPlugin, legacyPlugin, version2Plugin, version3Plugin } from "./plugins.ts";
import type { ContainerdVersion } from "./version.ts";

/** Where a file keeps its runtimes: decided by the tables that it has, then by its version. */
export interface Dialect {
  /** Path of the table of runtimes. */
  runtimes: readonly string[];
  /** Path of the table of snapshotters with which each runtime's images are pulled; containerd 1.7 has none. */
  runtimePlatforms: readonly string[] | undefined;
  /** containerd 1.7 drops its built-in runc once a file names any runtime: write runc too if the file names none. */
  needsRunc: boolean;
}

const runtimesOf = (plugin: readonly string[]): string[] => [...plugin, "containerd", "runtimes"];

/** The `version` of a file; a file without one is read as version 1. */
export function fileVersion(document: Table, containerd: ContainerdVersion, file: string): number {
  const version = Object.hasOwn(document, "version") ? document.version : 1n;
  if (typeof version !== "bigint" || version < 0n) {
    throw new Refusal(
      "configuration-version-type",
      `${file}: version is ${JSON.stringify(String(version))}, but must be a whole number such as 2. containerd does not load this file: correct it first.`,
    );
  }
  if (version > containerd.newestConfiguration) {
    throw new Refusal(
      "configuration-version-newer",
      `${file} has version = ${version}, but containerd ${containerd.text} reads versions up to ${containerd.newestConfiguration}. Correct the file, or distribution.containerdVersion if the node runs a newer one.`,
    );
  }
  return version === 0n ? 1 : Number(version);
}

/**
 * Which tables this containerd reads in this file. containerd migrates a file of an older version: tables under the older
 * id move to the newer one, but `runtimes` under the newer id, if present, hides `runtimes` under the older one entirely.
 * containerd 2.0 to 2.2 do not migrate version 1, and so ignore its CRI section.
 */
export function dialect(document: Table, containerd: ContainerdVersion, file: string): Dialect {
  const version = fileVersion(document, containerd, file);
  const has = (path: readonly string[]): boolean => tableAt(document, path) !== undefined;
  if (containerd.newestConfiguration === 2) {
    const runtimes = runtimesOf(version === 1 ? legacyPlugin : version2Plugin);
    const named = Object.keys(tableAt(document, runtimes) ?? {});
    return { runtimes, runtimePlatforms: undefined, needsRunc: named.length === 0 };
  }
  const found = (plugin: readonly string[]): Dialect => ({
    runtimes: runtimesOf(plugin),
    runtimePlatforms: [...imagesPlugin, "runtime_platforms"],
    needsRunc: false,
  });
  if (version === 1) {
    const [older, another] = [legacyPlugin, version2Plugin].filter(has);
    if (older !== undefined && containerd.newestConfiguration === 3) {
      throw new Refusal(
        "configuration-version-ignored",
        `${file} has no version, or version 1, and containerd ${containerd.text} ignores its table ${dotted(older)}. Convert the file with "containerd config migrate", check the result, then run again.`,
      );
    }
    if (another !== undefined) {
      throw new Refusal(
        "configuration-ambiguous",
        `${file} has no version, or version 1, and both ${dotted(legacyPlugin)} and ${dotted(version2Plugin)}: containerd picks one of them unpredictably. Merge them under version = 2, then run again.`,
      );
    }
    if (older !== undefined && !has(runtimesOf(version3Plugin))) return found(older);
    return found(version3Plugin);
  }
  if (version === containerd.newestConfiguration) return found(version3Plugin);
  if (has(runtimesOf(version3Plugin))) return found(version3Plugin);
  if (has(runtimesOf(version2Plugin))) return found(version2Plugin);
  if (has(version3Plugin) || has(imagesPlugin)) return found(version3Plugin);
  if (has(version2Plugin)) return found(version2Plugin);
  return found(version === 2 ? version2Plugin : version3Plugin);
}

export const runcNote = "# containerd 1.7 drops its built-in runc where a file names any runtime";
export const runcTable = { runtime_type: "io.containerd.runc.v2", sandbox_mode: "podsandbox" };

export const renderRunc = (runtimes: readonly string[]): string[] => [
  runcNote,
  ...renderTable([...runtimes, "runc"], runcTable),
];

/** The tables of the entries in canonical order, each as lines. */
export function renderEntries(entries: readonly HandlerEntry[], dialect: Dialect): string[][] {
  if (entries.length === 0) return [];
  const tables: string[][] = [];
  if (dialect.needsRunc) {
    tables.push(renderRunc(dialect.runtimes));
  }
  const sorted = entries.toSorted((a, b) => (a.handler < b.handler ? -1 : 1));
  for (const { handler, entry } of sorted) {
    const path = [...dialect.runtimes, handler];
    const { scalars, subtables } = toToml(entry);
    tables.push(renderTable(path, scalars));
    for (const [name, keys] of Object.entries(subtables)) tables.push(renderTable([...path, name], keys));
    if (entry.snapshotter !== undefined && dialect.runtimePlatforms !== undefined) {
      tables.push(renderTable([...dialect.runtimePlatforms, handler], { snapshotter: entry.snapshotter }));
    }
  }
  for (const [name, address] of proxyPluginsOf(entries)) {
    tables.push(renderTable(["proxy_plugins", name], { type: "snapshot", address }));
  }
  return tables;
}

/** Name → socket. Entries may share a proxy plugin if they agree on its socket. */
export function proxyPluginsOf(entries: readonly HandlerEntry[]): Map<string, string> {
  const plugins = new Map<string, string>();
  for (const { handler, entry } of entries) {
    if (entry.proxyPlugin === undefined) continue;
    const { name, address } = entry.proxyPlugin;
    const known = plugins.get(name);
    if (known !== undefined && known !== address) {
      throw new Refusal(
        "proxy-plugin-conflict",
        `Handler ${handler} needs the proxy plugin ${name} at ${address}, but another handler needs it at ${known}. Give each its own name.`,
      );
    }
    plugins.set(name, address);
  }
  return new Map([...plugins].sort(([a], [b]) => (a < b ? -1 : 1)));
}

/** Refuses settings with which none of our handlers could be served, whatever is added. */
export function checkDocument(document: Table, file: string): void {
  const disabled = at(document, ["disabled_plugins"]);
  const cri = Array.isArray(disabled) ? disabled.find((id) => criIds.has(String(id))) : undefined;
  if (cri !== undefined) {
    throw new Refusal(
      "cri-disabled",
      `${file}: disabled_plugins contains "${cri}", so containerd serves no kubelet. Remove it from the list and restart containerd first.`,
    );
  }
  const imports = at(document, ["imports"]);
  if (imports !== undefined && !(Array.isArray(imports) && imports.every((path) => typeof path === "string"))) {
    throw new Refusal(
      "imports-type",
      `${file}: imports must be a list of strings. containerd does not load this file: correct it first.`,
    );
  }
  const misplaced = misplacedImports(document, []);
  if (misplaced !== undefined) {
    throw new Refusal(
      "imports-misplaced",
      `${file}: imports stands below the header of ${dotted(misplaced)}, so containerd ignores it. Move it above the first table header, or delete it.`,
    );
  }
}

const criIds = new Set<string>(Object.values(criPlugins));

/** No plugin of containerd has a key of this name. */
function misplacedImports(table: Table, path: readonly string[]): string[] | undefined {
  for (const [key, value] of Object.entries(table)) {
    if (key === "imports" && path.length > 0 && Array.isArray(value)) return [...path];
    const below = isTable(value) ? misplacedImports(value, [...path, key]) : undefined;
    if (below !== undefined) return below;
  }
  return undefined;
}
