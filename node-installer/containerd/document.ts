import { isDeepStrictEqual } from "node:util";
import { parse, TomlError } from "smol-toml";
import { Refusal } from "../../runtime/refusal.ts";
import { tomlProblem, tomlString } from "../../runtime/toml.ts";

/** A parsed TOML table. Integers are bigint, dates are `TomlDate`. */
export type Table = { [key: string]: unknown };

export const isTable = (value: unknown): value is Table =>
  typeof value === "object" && value !== null && !Array.isArray(value) && !(value instanceof Date);

/**
 * The text of a configuration file. Refuses what no containerd reads, or what releases read differently: zero bytes (left
 * by a power loss), encodings other than UTF-8, and carriage returns without a line feed.
 */
export function decode(bytes: Uint8Array, file: string): string {
  if (bytes.includes(0)) {
    throw new Refusal(
      "configuration-zero-bytes",
      `${file} contains zero bytes, as files do after a power loss. Restore it from a backup; containerd cannot read it.`,
    );
  }
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw new Refusal(
      "configuration-not-utf8",
      `${file} is not UTF-8, as TOML must be: containerd 2.x does not load such a file, even if 1.7 does. Save it as UTF-8.`,
    );
  }
  const lone = /\r(?!\n)/.exec(text);
  if (lone !== null) {
    throw new Refusal(
      "configuration-lone-carriage-return",
      `${file}, line ${lineAt(text, lone.index)}: a carriage return without a line feed. containerd 2.x does not load such a file: end the lines with LF or CRLF.`,
    );
  }
  return text;
}

export const lineAt = (text: string, offset: number): number => text.slice(0, offset).split("\n").length;

/** Accepts TOML 1.0 and 1.1; the node's own containerd decides which of them is valid there. */
export function parseDocument(text: string, file: string): Table {
  try {
    return parse(text, { integersAsBigInt: true }) as Table;
  } catch (error) {
    if (!(error instanceof TomlError)) throw error;
    throw new Refusal(
      "configuration-invalid",
      `${file}, line ${error.line}, column ${error.column}: ${tomlProblem(error)}. That is not valid TOML, and containerd 2.x does not load such a file (1.7 takes some mistakes): correct it first.`,
    );
  }
}

/** The value at a path, or undefined. */
export function at(document: unknown, path: readonly string[]): unknown {
  let value = document;
  for (const key of path) {
    if (!isTable(value) || !Object.hasOwn(value, key)) return undefined;
    value = value[key];
  }
  return value;
}

export function tableAt(document: unknown, path: readonly string[]): Table | undefined {
  const value = at(document, path);
  return isTable(value) ? value : undefined;
}

/** The document with the value at the path; missing tables on the way are created. */
export function withValue(document: Table, path: readonly string[], value: unknown): Table {
  const [key, ...rest] = path;
  if (key === undefined) throw new Error("a path has at least one key");
  const child = Object.hasOwn(document, key) ? document[key] : undefined;
  return { ...document, [key]: rest.length === 0 ? value : withValue(isTable(child) ? child : {}, rest, value) };
}

/** Both documents merged; undefined if they disagree on a value, because then no text can mean both. */
export function union(left: Table, right: Table): Table | undefined {
  let result: Table = { ...left };
  for (const [key, value] of Object.entries(right)) {
    if (!Object.hasOwn(left, key)) {
      result = { ...result, [key]: value };
      continue;
    }
    const [a, b] = [left[key], value];
    if (!isTable(a) || !isTable(b)) return undefined;
    const both = union(a, b);
    if (both === undefined) return undefined;
    result = { ...result, [key]: both };
  }
  return result;
}

export const sameDocument = (left: unknown, right: unknown): boolean => isDeepStrictEqual(plain(left), plain(right));

/** Neither key order nor a parser's table prototype makes a difference. */
function plain(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(plain);
  if (!isTable(value)) return value;
  return Object.fromEntries(
    Object.keys(value)
      .sort()
      .map((key) => [key, plain(value[key])]),
  );
}

/**
 * Go's zero values mean the same as an absent key: 1.7 prints every option of its built-in runc, but none for a runc that
 * a file names.
 */
export function withoutZeros(value: unknown): unknown {
  if (Array.isArray(value)) return value.length === 0 ? undefined : value.map((item) => withoutZeros(item) ?? item);
  if (!isTable(value)) return value === "" || value === false || value === 0n || value === 0 ? undefined : value;
  const kept = Object.entries(value)
    .map(([key, child]) => [key, withoutZeros(child)] as const)
    .filter(([, child]) => child !== undefined);
  return kept.length === 0 ? undefined : Object.fromEntries(kept);
}

const bareKey = /^[A-Za-z0-9_-]+$/;

/** A dotted key as TOML writes it: `plugins."io.containerd.grpc.v1.cri".containerd`. */
export const dotted = (path: readonly string[]): string =>
  path.map((key) => (bareKey.test(key) ? key : tomlString(key))).join(".");

export type Scalar = string | number | bigint | boolean | readonly string[];

/** One table as lines: its header, then its keys. */
export function renderTable(path: readonly string[], keys: Readonly<Record<string, Scalar>>): string[] {
  const value = (scalar: Scalar): string =>
    typeof scalar === "string"
      ? tomlString(scalar)
      : typeof scalar === "object"
        ? `[${scalar.map(tomlString).join(", ")}]`
        : String(scalar);
  return [`[${dotted(path)}]`, ...Object.entries(keys).map(([key, scalar]) => `${dotted([key])} = ${value(scalar)}`)];
}
