import { parse, stringify } from "smol-toml";
import { isTable, type Table, tableAt } from "../../node-installer/containerd/document.ts";
import type { RunResult } from "../../node-installer/host/host.ts";
import { configDump } from "./containerd-dump.ts";
import type { MemoryHost } from "./memory-host.ts";

const seen = new Map<string, Partial<RunResult>>();

/**
 * `config dump` of a file with its imports: relative ones, and those that end in a pattern for names. containerd 2.x merges
 * them; 1.7 takes each plugin's section from the last file that has it.
 */
export function dumpWithImports(host: MemoryHost, file: string, version: string): Partial<RunResult> {
  const is17 = version.startsWith("1.7.");
  const newest = is17 ? 2 : /^2\.[0-2]\./.test(version) ? 3 : 4;
  const own = host.text(file);
  const texts = [own, ...(own === undefined ? [] : importsOf(host, own, file).map((path) => host.text(path)))];
  // What a file means does not change, and there are many trials.
  const key = JSON.stringify([newest, file, texts]);
  const known = seen.get(key);
  if (known !== undefined) return known;
  const dumps = texts.map((text) => configDump(is17 ? asVersion2(text) : text, file, newest));
  const failed = dumps.find(({ code }) => code !== undefined);
  const first = dumps[0] ?? {};
  const result =
    failed ??
    (dumps.length === 1
      ? first
      : { stdout: stringify(dumps.map(({ stdout = "" }): Table => parse(stdout)).reduce(merged(is17))) });
  seen.set(key, result);
  return result;
}

function importsOf(host: MemoryHost, text: string, file: string): string[] {
  const folder = file.slice(0, file.lastIndexOf("/"));
  const [, list = ""] = /^imports\s*=\s*\[([^\]]*)\]/m.exec(text) ?? [];
  return [...list.matchAll(/"([^"]+)"/g)].flatMap(([, pattern = ""]) => {
    const path = pattern.startsWith("/") ? pattern : `${folder}/${pattern}`;
    if (!path.endsWith("/*.toml")) return [path];
    const below = path.slice(0, -"*.toml".length);
    return [...host.nodes.keys()]
      .filter((name) => name.startsWith(below) && name.endsWith(".toml") && !name.slice(below.length).includes("/"))
      .sort();
  });
}

/** containerd 1.7 reads version 1 as well, and prints version 2. */
const asVersion2 = (text: string | undefined): string | undefined =>
  text === undefined || /^version\s*=/m.test(text)
    ? text
    : `version = 2\n${text.replaceAll(/^(\s*\[plugins\.)"?cri"?(?=[.\]])/gm, '$1"io.containerd.grpc.v1.cri"')}`;

const merged =
  (replacesPlugins: boolean) =>
  (left: Table, right: Table): Table => {
    const both = deep(left, right);
    if (!replacesPlugins) return both;
    return { ...both, plugins: { ...tableAt(left, ["plugins"]), ...tableAt(right, ["plugins"]) } };
  };

function deep(left: Table, right: Table): Table {
  const entries = Object.entries(right).map(([key, value]) => {
    const known = left[key];
    return [key, isTable(known) && isTable(value) ? deep(known, value) : value];
  });
  return { ...left, ...Object.fromEntries(entries) };
}
