import { distributions } from "../../runtime/distributions.ts";
import { Refusal } from "../../runtime/refusal.ts";
import { decode, lineAt, parseDocument } from "./document.ts";
import { blocksIn, markOnly } from "./fence.ts";
import { isZero, settingOf } from "./separate.ts";
import { stringEnd } from "./statements.ts";

/**
 * A configuration file without what its administrator wrote into it: the same tables, keys and types on the same lines,
 * our tables as they are, and of everything else only what an edit asks for: the `version`, the `imports`, and which of
 * containerd's own plugins are disabled. An edit of the outline is refused, or adds the same block, as one of the file.
 *
 * Values and comments are replaced whatever they say, but for the line by which a distribution knows its own file. Names stay if they look like containerd's own (`config_path`,
 * `io.containerd.cri.v1.images`) or a runtime's; others, such as a registry's host, are numbered.
 */
export function outline(bytes: Uint8Array, file: string): Buffer {
  let text: string;
  try {
    text = decode(bytes, file);
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    return undecodable(bytes, error);
  }
  const blocks = blocksIn(text);
  const [block] = blocks.length === 1 ? blocks : [];
  const [start, end] = block === undefined ? [text.length, text.length] : [block.start, block.end];
  const rest = text.slice(0, start) + text.slice(end);
  try {
    // A file that has something twice is one that we can repair, if both are ours.
    if (blocks.length <= 1) parseDocument(rest, file);
    const { output, at } = withoutValues(rest, start);
    if (blocks.length <= 1) parseDocument(output, file);
    return Buffer.from(output.slice(0, at) + text.slice(start, end) + output.slice(at));
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    return Buffer.from(invalid(text, /line (\d+)/.exec(error.message)?.[1]));
  }
}

/** Bytes that are refused for the same reason, on the same line. */
function undecodable(bytes: Uint8Array, { code }: Refusal): Buffer {
  if (code === "configuration-zero-bytes") return Buffer.from([0]);
  if (code === "configuration-not-utf8") return Buffer.from([0xff]);
  const text = Buffer.from(bytes).toString("utf8");
  return Buffer.from(`${"\n".repeat(lineAt(text, text.search(/\r(?!\n)/)) - 1)}\r#`);
}

/** A text that containerd cannot load either, because of the same line. */
function invalid(text: string, line: string | undefined): string {
  const wrong = Number(line ?? 1) - 1;
  return text
    .split("\n")
    .map((content, index) => (index === wrong ? "=" : /^[ \t]*#/.test(content) ? comment(content.trim()) : ""))
    .join("\n");
}

/** Without the first line by which a distribution knows its own file, nothing is edited. */
const distributionsOwn = new Set(
  Object.values(distributions).flatMap(({ edited }) => (edited.kind === "drop-in" ? [edited.root.firstLine] : [])),
);
const comment = (text: string): string =>
  markOnly(text) ?? (distributionsOwn.has(text.trimEnd()) ? text.trimEnd() : "#");

const space = /[ \t\r\n]+/y;
const commentText = /#[^\r\n]*/y;
const bareKey = /[A-Za-z0-9_-]+/y;
const scalar = /[^\s,#[\]{}"'=]+(?: (?=\d\d:)[^\s,#\]}]+)?/y;
/** What containerd or we ourselves may have named; as keys in quotes only if they need no quotes, or are plugin ids. */
const plainName = /^(?:[A-Za-z0-9_-]{1,80}|io\.containerd\.[a-z0-9.-]{1,80})$/;
const pluginId = /^["'](?:cri|io\.containerd\.[a-z0-9.-]{1,80})["']$/;

/** Of a valid document, in one pass; `at` is where the output is when the input is at `mark`. */
function withoutValues(text: string, mark: number): { output: string; at: number } {
  const parts: string[] = [];
  let length = 0;
  let at: number | undefined;
  const renamed = new Map<string, string>();
  const nesting: ("[" | "{")[] = [];
  /** Whether no table header was seen yet, and the keys of the value at hand. */
  let root = true;
  let header = false;
  let inKey = true;
  let table: string[] = [];
  let keys: string[] = [];

  const name = (raw: string): string => {
    const inner = /^["']/.test(raw) ? raw.slice(1, -1) : raw;
    if (plainName.test(inner)) return raw;
    const known = renamed.get(inner) ?? `"(${renamed.size + 1})"`;
    renamed.set(inner, known);
    return known;
  };
  const value = (raw: string, quoted: boolean): string => {
    const setting = settingOf([...table, ...keys], raw);
    if (setting === "ours" || (setting === "another" && isZero(raw))) return raw;
    // An edit asks whether it is a zero.
    const number = setting === "another" ? "1" : "0";
    const [only, ...more] = root && nesting.length <= 1 ? keys : [];
    const key = more.length === 0 ? only : undefined;
    if (!quoted) {
      if (/^(?:true|false)$/.test(raw) || (key === "version" && /^[+-]?\d{1,4}$/.test(raw))) return raw;
      if (/^[+-]?(?:0x[\da-f_]+|0o[0-7_]+|0b[01_]+|[\d_]+)$/i.test(raw)) return number;
      return /^\d{4}-/.test(raw) ? "1970-01-01" : /^\d\d:/.test(raw) ? "00:00:00" : "0.0";
    }
    if (key === "imports" && raw.length <= 4096) return raw;
    if (key === "disabled_plugins" && pluginId.test(raw)) return raw;
    const lines = raw.replaceAll(/[^\n]/g, "");
    if (lines === "" && setting === "another") return '"-"';
    return lines === "" ? '""' : `"""${lines}"""`;
  };

  for (let position = 0; position < text.length; ) {
    if (position >= mark) at ??= length;
    const rest = (pattern: RegExp): string | undefined => {
      pattern.lastIndex = position;
      return pattern.exec(text)?.[0];
    };
    const char = text.charAt(position);
    const blank = rest(space);
    let read = blank ?? char;
    let written = read;
    if (blank !== undefined) {
      if (read.includes("\n") && nesting.length === 0) [inKey, keys] = [true, []];
      // Line by line, so that the mark is not inside.
      const cut = mark > position && mark < position + read.length ? mark - position : read.length;
      read = read.slice(0, cut);
      written = read;
    } else if (char === "#") {
      read = rest(commentText) ?? char;
      written = comment(read);
    } else if (char === '"' || char === "'") {
      read = text.slice(position, stringEnd(text, position));
      if (inKey && nesting.length === 0) (header ? table : keys).push(read.slice(1, -1));
      written = inKey ? name(read) : value(read, true);
    } else if (inKey && char === "[") {
      [header, root, table] = [true, false, []];
    } else if (header && char === "]") {
      if (text[position + 1] !== "]") header = false;
    } else if (inKey && char === "=") {
      inKey = false;
    } else if (char === "[" || char === "{") {
      nesting.push(char);
      inKey = char === "{";
    } else if (char === "]" || char === "}") {
      nesting.pop();
      inKey = false;
    } else if (char === ",") {
      inKey = nesting.at(-1) === "{";
    } else if (inKey && char !== ".") {
      read = rest(bareKey) ?? char;
      if (nesting.length === 0) (header ? table : keys).push(read);
      written = char === "\ufeff" ? char : name(read);
    } else if (!inKey) {
      read = rest(scalar) ?? char;
      written = value(read, false);
    }
    parts.push(written);
    length += written.length;
    position += read.length;
  }
  return { output: parts.join(""), at: at ?? length };
}
