import { sha256 } from "../../runtime/canonical.ts";
import type { Difference } from "../preview/differences.ts";
import { code, count, exchange, longestValue, visible } from "../text.ts";
import { known, type Line } from "./line.ts";

/** Lines of one block, at most; of those that are cut there is the number and the digest of all. */
const longestBlock = 200;

/** Characters of a line; a longer one goes on in the next. */
const widest = 160;

/** What differs, as the lines of a code block. Nothing is left out of it without a word. */
export function differenceBlock(leaves: Difference[]): string {
  return bounded(leaves.flatMap(leafLines), longestBlock);
}

/** Of a text that goes, lines that are shown where not everything can be: what comes matters more. */
const shownOfGone = 5;

function withoutGone(lines: string[]): string[] {
  let gone = 0;
  return lines.flatMap((line, index) => {
    gone = line.startsWith("-") ? gone + 1 : 0;
    if (gone <= shownOfGone) return [line];
    return lines[index + 1]?.startsWith("-") ? [] : [`-   … ${count(gone - shownOfGone, "more line")} that go`];
  });
}

/** The first lines of a block, with how many there are more and the digest of all. */
export function bounded(lines: string[], most: number): string {
  if (lines.length <= most) return lines.join("\n");
  const shown = withoutGone(lines).slice(0, most);
  const rest = count(lines.length - shown.length, "more line");
  return [...shown, `… ${rest} not shown; SHA-256 of all: ${sha256(lines.join("\n"))}`].join("\n");
}

function leafLines({ path, before, after, isHidden }: Difference): string[] {
  const name = path === "" ? "(everything)" : visible(path);
  if (isHidden) {
    const sign =
      before === undefined && after !== undefined ? "+" : after === undefined && before !== undefined ? "-" : "~";
    return folded(sign, `${name}: a value that is not shown${sign === "~" ? " changes" : ""}`);
  }
  if (typeof before === "string" && typeof after === "string" && (isLong(before) || isLong(after))) {
    return [...folded(" ", `${name}:`), ...textDifference(before, after)];
  }
  return [
    ...(before === undefined ? [] : valueLines("-", name, before)),
    ...(after === undefined ? [] : valueLines("+", name, after)),
  ];
}

function valueLines(sign: string, name: string, value: unknown): string[] {
  if (typeof value === "string" && isLong(value)) {
    return [...folded(sign, `${name}:`), ...linesOf(value).map((each) => `${sign}   ${each}`)];
  }
  const text = JSON.stringify(value) ?? "nothing";
  if (Array.isArray(value) && text.length > widest) {
    return value.flatMap((each, index) => valueLines(sign, `${name}[${index}]`, each));
  }
  return folded(sign, `${name}: ${visible(text)}`);
}

const isLong = (text: string) => text.length > widest || text.includes("\n");

const folded = (sign: string, text: string): string[] =>
  chunks(text).map((part, index) => `${sign} ${index > 0 ? "  " : ""}${part}`);

function chunks(text: string): string[] {
  const parts: string[] = [];
  for (let at = 0; at < text.length; at += widest) parts.push(text.slice(at, at + widest));
  return parts.length > 0 ? parts : [""];
}

const linesOf = (text: string): string[] =>
  text.split("\n").flatMap((line) => (line.length <= widest ? [visible(line)] : chunks(visible(line))));

/** The same, but long lines break where their parts end, so that two that differ in one part differ in one line. */
const partsOf = (text: string): string[] =>
  text
    .split("\n")
    .flatMap((line) => (line.length <= widest ? [line] : line.split(/(?<= && | \|\| |[;,] )/)))
    .flatMap(linesOf);

/** Both texts by line: "- " of the first alone, "+ " of the second, "  " of both, with two of those around each change. */
function textDifference(before: string, after: string): string[] {
  const [old, now] = [partsOf(before), partsOf(after)];
  let [start, end] = [0, 0];
  while (start < old.length && old[start] === now[start]) start += 1;
  while (end < Math.min(old.length, now.length) - start && old.at(-1 - end) === now.at(-1 - end)) end += 1;
  const common = old.slice(0, start).map((line) => `    ${line}`);
  const tail = old.slice(old.length - end).map((line) => `    ${line}`);
  const lines = compared(old.slice(start, old.length - end), now.slice(start, now.length - end));
  // Two texts that break at other places only may have the same parts.
  if (lines.every((line) => line.startsWith(" "))) {
    return [`-   SHA-256 ${sha256(before)}`, `+   SHA-256 ${sha256(after)}, the same but for where its lines end`];
  }
  return withContext([...common, ...lines, ...tail], 2);
}

/** By the longest common subsequence; of what is too big for that all goes and all comes. */
function compared(old: string[], now: string[]): string[] {
  const gone = (line: string | undefined) => `-   ${line}`;
  const come = (line: string | undefined) => `+   ${line}`;
  if (old.length * now.length > 1e6) return [...old.map(gone), ...now.map(come)];
  const width = now.length + 1;
  const lengths = new Uint32Array((old.length + 1) * width);
  const at = (i: number, j: number) => lengths[i * width + j] ?? 0;
  for (let i = old.length - 1; i >= 0; i -= 1) {
    for (let j = now.length - 1; j >= 0; j -= 1) {
      lengths[i * width + j] = old[i] === now[j] ? at(i + 1, j + 1) + 1 : Math.max(at(i + 1, j), at(i, j + 1));
    }
  }
  const lines: string[] = [];
  let [i, j] = [0, 0];
  while (i < old.length || j < now.length) {
    if (i < old.length && j < now.length && old[i] === now[j]) {
      lines.push(`    ${old[i]}`);
      [i, j] = [i + 1, j + 1];
    } else if (j >= now.length || (i < old.length && at(i + 1, j) >= at(i, j + 1))) {
      lines.push(gone(old[i]));
      i += 1;
    } else {
      lines.push(come(now[j]));
      j += 1;
    }
  }
  return lines;
}

function withContext(lines: string[], around: number): string[] {
  const near = new Uint8Array(lines.length);
  lines.forEach((line, index) => {
    if (!line.startsWith(" ")) near.fill(1, Math.max(0, index - around), index + around + 1);
  });
  const shown: string[] = [];
  let alike = 0;
  lines.forEach((line, index) => {
    if (near[index] === 1) {
      if (alike > 0) shown.push(`    (${count(alike, "line")} as before)`);
      alike = 0;
      shown.push(line);
    } else alike += 1;
  });
  return alike > 0 ? [...shown, `    (${count(alike, "line")} as before)`] : shown;
}

/** One leaf's difference; of long texts every part that differs, in a block. */
export function changeLine(sentence: string, { path, before, after, isHidden }: Difference): Line {
  if (isHidden) return known(`${sentence}${code(path)} changes.`);
  const isLong = [before, after].some((value) => typeof value === "string" && value.length > longestValue);
  if (!isLong || typeof before !== "string" || typeof after !== "string") {
    return known(`${sentence}${code(path)} ${exchange(before, after)}.`);
  }
  return known(`${sentence}${code(path)} changes:`, textDifference(before, after).join("\n"));
}
