import { dirname, posix } from "node:path";
import { Refusal } from "../../runtime/refusal.ts";
import { readIfThere } from "../host/files.ts";
import type { Host } from "../host/host.ts";
import { at, decode, parseDocument, type Table } from "./document.ts";

/** The imports of a file as absolute paths: relative ones are relative to its folder. */
export function importsOf(document: unknown, file: string): string[] {
  const imports = at(document, ["imports"]);
  const patterns = Array.isArray(imports) ? imports.filter((path) => typeof path === "string") : [];
  return patterns.map((pattern) => posix.resolve(dirname(file), pattern));
}

/** containerd treats a path as a pattern only if it contains a star. */
const isPattern = (path: string): boolean => path.includes("*");

/** Whether an entry of `imports` stands for the path. */
export const importMatches = (pattern: string, path: string): boolean => {
  if (!isPattern(pattern)) return pattern === path;
  const [matchers, names] = [pattern.split("/").map(matcher), path.split("/")];
  return matchers.length === names.length && names.every((name, index) => matchers[index]?.(name));
};

/**
 * Go's patterns for one name, in which a star also matches a leading dot, and braces are literal. Only the last star is
 * ever tried again, so that no pattern takes longer than its length times the name's.
 */
function matcher(pattern: string): (name: string) => boolean {
  const parts = pattern.match(/\\.|\[\^?(?:\\.|[^\]\\])+\]|[\s\S]/gu) ?? [];
  const tokens = parts.map((part): "*" | ((char: string) => boolean) => {
    if (part === "*") return "*";
    if (part === "?") return () => true;
    if (!/^\[.+\]$/s.test(part)) return (char) => char === part.replace(/^\\(?=.)/s, "");
    try {
      const one = new RegExp(`^${part}$`, "s");
      return (char) => one.test(char);
    } catch {
      throw new Refusal(
        "imports-pattern",
        `"${pattern}" in the imports of containerd's configuration is not a valid pattern, so containerd does not load it. Correct it first.`,
      );
    }
  });
  return (name) => {
    const chars = [...name];
    let star: { token: number; char: number } | undefined;
    let token = 0;
    for (let char = 0; char < chars.length; ) {
      const [expected, actual] = [tokens[token], chars[char]];
      if (expected === "*") star = { token: token++, char };
      else if (actual !== undefined && expected?.(actual)) [token, char] = [token + 1, char + 1];
      else if (star !== undefined) [token, char] = [star.token + 1, ++star.char];
      else return false;
    }
    return tokens.slice(token).every((rest) => rest === "*");
  };
}

/** The files that the imports of a document stand for; a file named without a pattern need not exist. */
export async function importedFiles(host: Host, document: Table, file: string): Promise<string[]> {
  const files: string[] = [];
  for (const path of importsOf(document, file)) files.push(...(isPattern(path) ? await expand(host, path) : [path]));
  return files;
}

/** The directories in which the patterns among a document's imports look for files. */
export const searchedBy = (document: unknown, file: string): string[] =>
  importsOf(document, file)
    .filter(isPattern)
    .map((pattern) => pattern.replace(/\/[^/]*[*?[\\].*$/, "") || "/");

async function expand(host: Host, pattern: string): Promise<string[]> {
  let found = ["/"];
  for (const segment of pattern.split("/").filter((part) => part !== "")) {
    const next: string[] = [];
    for (const folder of found) {
      const names = /[*?[\\]/.test(segment) ? (await host.readDirectory(folder)).filter(matcher(segment)) : [segment];
      next.push(...names.map((name) => posix.join(folder, name)));
    }
    found = next;
  }
  const stats = await Promise.all(found.map((path) => host.stat(path)));
  return found.filter((_, index) => stats[index] !== undefined);
}

export interface Import {
  /** The file that imports it. */
  by: string;
  path: string;
  /** undefined: the file does not exist. */
  document: Table | undefined;
}

/** What containerd merges over a document, in its order, each file once: imports may have imports, even circular ones. */
export async function readImports(host: Host, document: Table, file: string): Promise<Import[]> {
  const imports: Import[] = [];
  const known = new Set<string>();
  const pending = [{ document, file }];
  for (let next = pending.shift(); next !== undefined; next = pending.shift()) {
    for (const path of await importedFiles(host, next.document, next.file)) {
      if (known.has(path) || (path === file && next.file !== file)) continue;
      known.add(path);
      const bytes = path === file ? undefined : await readIfThere(host, path);
      const read = bytes === undefined ? undefined : parseDocument(decode(bytes, path), path);
      imports.push({ by: next.file, path, document: read });
      if (read !== undefined) pending.push({ document: read, file: path });
    }
  }
  return imports;
}
