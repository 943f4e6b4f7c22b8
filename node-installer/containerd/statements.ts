/** One line of a TOML document that means something: a table's header, or a key with its value (which may span lines). */
export interface Statement {
  kind: "header" | "pair";
  /** From the document's root. */
  path: string[];
  /** Of the whole lines, with their end. */
  start: number;
  end: number;
  /** A pair's value as it is written. */
  value: string;
  /** What is written behind it on its last line, from the `#` on. */
  comment: string;
}

const blank = /[ \t]*/y;
const keyPart = /[A-Za-z0-9_-]+|"(?:[^"\\\r\n]|\\[^\r\n])*"|'[^'\r\n]*'/y;
const separator = /[ \t]*\.[ \t]*/y;
const afterHeader = /[ \t]*\]\]?[ \t]*(?=#|\r?\n|$)/y;
const assignment = /[ \t]*=[ \t]*/y;
const lineRest = /[^\n]*(?:\n|$)/y;

/**
 * The statements of a document, in order. Needs no valid document: lines that are no statement, such as those of a Go
 * template, belong to none.
 */
export function statementsOf(text: string): Statement[] {
  const found: Statement[] = [];
  let table: string[] = [];
  for (let start = 0; start < text.length; ) {
    const statement = statementAt(text, start, table);
    if (statement === undefined) {
      start += match(lineRest, text, start).length;
      continue;
    }
    if (statement.kind === "header") table = statement.path;
    found.push(statement);
    start = statement.end;
  }
  return found;
}

function statementAt(text: string, start: number, table: readonly string[]): Statement | undefined {
  let at = start + match(blank, text, start).length;
  const brackets = text.startsWith("[[", at) ? 2 : text.startsWith("[", at) ? 1 : 0;
  at += brackets;
  at += match(blank, text, at).length;
  const key = keyAt(text, at);
  if (key === undefined) return undefined;
  const rest = (from: number) => match(lineRest, text, from);
  if (brackets > 0) {
    const closing = match(afterHeader, text, key.end);
    if (closing.trim().length !== brackets) return undefined;
    const comment = rest(key.end + closing.length);
    const end = key.end + closing.length + comment.length;
    return { kind: "header", path: key.path, start, end, value: "", comment: comment.trimEnd() };
  }
  const equals = match(assignment, text, key.end);
  if (equals === "") return undefined;
  const from = key.end + equals.length;
  const to = valueEnd(text, from);
  const behind = rest(to);
  return {
    kind: "pair",
    path: [...table, ...key.path],
    start,
    end: to + behind.length,
    value: text.slice(from, to).trimEnd(),
    comment: behind.trimEnd(),
  };
}

function keyAt(text: string, start: number): { path: string[]; end: number } | undefined {
  const path: string[] = [];
  for (let at = start; ; ) {
    const part = match(keyPart, text, at);
    if (part === "") return undefined;
    path.push(/^["']/.test(part) ? part.slice(1, -1) : part);
    at += part.length;
    const dot = match(separator, text, at);
    if (dot === "") return { path, end: at };
    at += dot.length;
  }
}

/** Where the value that begins here ends: at its line's comment or end, outside of strings and brackets. */
function valueEnd(text: string, start: number): number {
  let depth = 0;
  for (let at = start; at < text.length; at += 1) {
    const char = text.charAt(at);
    if (char === '"' || char === "'") at = stringEnd(text, at) - 1;
    else if (char === "[" || char === "{") depth += 1;
    else if (char === "]" || char === "}") depth -= 1;
    else if (depth <= 0 && (char === "#" || char === "\n")) return at;
    else if (char === "#") at = text.indexOf("\n", at) === -1 ? text.length : text.indexOf("\n", at);
  }
  return text.length;
}

/** Behind the closing quotes of the string that begins here; of a multi-line one up to two quotes belong to its text. */
export function stringEnd(text: string, start: number): number {
  const quote = text.charAt(start);
  const closing = text.startsWith(quote.repeat(3), start) ? quote.repeat(3) : quote;
  for (let at = start + closing.length; at < text.length; at += 1) {
    if (text[at] === "\\" && quote === '"') at += 1;
    else if (text.startsWith(closing, at)) {
      let end = at + closing.length;
      while (closing.length === 3 && end < at + 5 && text[end] === quote) end += 1;
      return end;
    }
  }
  return text.length;
}

function match(pattern: RegExp, text: string, at: number): string {
  pattern.lastIndex = at;
  return pattern.exec(text)?.[0] ?? "";
}
