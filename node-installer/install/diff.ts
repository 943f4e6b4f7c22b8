/** Unchanged lines shown around a change. */
const context = 3;

/**
 * A unified diff of two texts, where `undefined` is no file; empty if they are equal. Equal lines at both ends are set
 * aside first, so the quadratic comparison only sees what is between them: for our edits, a block.
 */
export function unifiedDiff(path: string, before: string | undefined, after: string | undefined): string {
  if (before === after) return "";
  const [old, next] = [linesOf(before), linesOf(after)];
  const edits = compare(old, next);
  const hunks = group(edits).map(formatHunk);
  const name = (text: string | undefined) => (text === undefined ? "/dev/null" : path);
  return [`--- ${name(before)}`, `+++ ${name(after)}`, ...hunks, ""].join("\n");
}

interface Line {
  kind: " " | "-" | "+";
  text: string;
  /** Line numbers in the old and the new text, from 1. */
  old: number;
  next: number;
}

/** Lines including their line ends, so that CRLF and a missing last newline count as differences. */
const linesOf = (text: string | undefined): string[] => text?.match(/[^\n]*\n|[^\n]+$/g) ?? [];

function compare(old: string[], next: string[]): Line[] {
  let start = 0;
  while (start < old.length && start < next.length && old[start] === next[start]) start += 1;
  let end = 0;
  while (end < old.length - start && end < next.length - start && old.at(-1 - end) === next.at(-1 - end)) end += 1;

  const [a, b] = [old.slice(start, old.length - end), next.slice(start, next.length - end)];
  // common[i][j]: length of the longest common subsequence of a from i and b from j.
  const common = Array.from({ length: a.length + 1 }, () => new Uint32Array(b.length + 1));
  const at = (i: number, j: number) => common[i]?.[j] ?? 0;
  for (let i = a.length - 1; i >= 0; i -= 1) {
    const row = common[i];
    for (let j = b.length - 1; row !== undefined && j >= 0; j -= 1) {
      row[j] = a[i] === b[j] ? at(i + 1, j + 1) + 1 : Math.max(at(i + 1, j), at(i, j + 1));
    }
  }
  const lines: Line[] = [];
  let [i, j] = [0, 0];
  const push = (kind: Line["kind"], text = "") => {
    lines.push({ kind, text, old: i + 1, next: j + 1 });
    if (kind !== "+") i += 1;
    if (kind !== "-") j += 1;
  };
  for (const text of old.slice(0, start)) push(" ", text);
  while (i - start < a.length || j - start < b.length) {
    const [x, y] = [i - start, j - start];
    if (x < a.length && y < b.length && a[x] === b[y]) push(" ", a[x]);
    else if (x < a.length && (y >= b.length || at(x + 1, y) >= at(x, y + 1))) push("-", a[x]);
    else push("+", b[y]);
  }
  for (const text of old.slice(old.length - end)) push(" ", text);
  return lines;
}

/** Changes with their context; changes whose contexts touch share a hunk. */
function group(lines: Line[]): Line[][] {
  const hunks: { from: number; to: number }[] = [];
  for (const [index, { kind }] of lines.entries()) {
    if (kind === " ") continue;
    const [from, to] = [Math.max(0, index - context), Math.min(lines.length, index + context + 1)];
    const last = hunks.at(-1);
    if (last !== undefined && from <= last.to) last.to = to;
    else hunks.push({ from, to });
  }
  return hunks.map(({ from, to }) => lines.slice(from, to));
}

function formatHunk(lines: Line[]): string {
  const oldCount = lines.filter(({ kind }) => kind !== "+").length;
  const nextCount = lines.filter(({ kind }) => kind !== "-").length;
  const first = lines[0] ?? { old: 1, next: 1 };
  // A side without lines has the number of the line before it.
  const range = (start: number, count: number) => `${count === 0 ? start - 1 : start},${count}`;
  const body = lines.map(({ kind, text }) =>
    text.endsWith("\n") ? `${kind}${text.slice(0, -1)}` : `${kind}${text}\n\\ No newline at end of file`,
  );
  return [`@@ -${range(first.old, oldCount)} +${range(first.next, nextCount)} @@`, ...body].join("\n");
}
