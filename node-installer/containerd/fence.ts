import { createHash } from "node:crypto";
import { Refusal } from "../../runtime/refusal.ts";
import { lineAt } from "./document.ts";

/**
 * The fenced block: the only part of an administrator's file that is ours. Its first line carries a checksum of the lines
 * between the fences, so that foreign changes are noticed, and says whether the line end before it is ours too (the file
 * ended without one). That is enough to restore the original bytes without any other record.
 */
export const opening = "# BEGIN contrast-runtime";
const closing = "# END contrast-runtime";
const openingLine = /^# BEGIN contrast-runtime \(managed, do not edit;( joined;)? ([0-9a-f]{16})\)$/;

/** A text split at its block. `before + after` is the text without the block. */
export interface Fenced {
  before: string;
  /** Lines between the fences, without line ends; undefined if there is no block. */
  block: string[] | undefined;
  after: string;
}

const checksum = (lines: readonly string[]): string =>
  createHash("sha256").update(lines.join("\n")).digest("hex").slice(0, 16);

/** Finds the block. Refuses several blocks, an incomplete one, and one that somebody edited. */
export function splitAtFence(text: string, file: string): Fenced {
  const openings = [...text.matchAll(/^[ \t]*# BEGIN contrast-runtime[^\n]*/gm)];
  const closings = [...text.matchAll(/^[ \t]*# END contrast-runtime[^\n]*(?:\n|$)/gm)];
  const [begin, end] = [openings[0], closings[0]];
  if (begin === undefined && end === undefined) return { before: text, block: undefined, after: "" };
  if (openings.length > 1 || closings.length > 1) {
    const lines = [...openings, ...closings].map((match) => lineAt(text, match.index)).sort((a, b) => a - b);
    throw new Refusal(
      "fence-duplicated",
      `${file} has more than one "${opening}" or "${closing}" line (lines ${lines.join(", ")}). Delete all of these blocks, then run again.`,
    );
  }
  const head = begin === undefined ? null : openingLine.exec(begin[0].replace(/\r$/, ""));
  const where = `line ${lineAt(text, (begin ?? end)?.index ?? 0)}`;
  if (
    begin === undefined ||
    end === undefined ||
    end.index < begin.index ||
    head === null ||
    end[0].trimEnd() !== closing
  ) {
    throw new Refusal(
      "fence-damaged",
      `${file}, ${where}: the block between "${opening}" and "${closing}" is damaged. Delete what is left of it, then run again.`,
    );
  }
  const lines = text
    .slice(begin.index + begin[0].length + 1, end.index)
    .split("\n")
    .slice(0, -1)
    .map((line) => line.replace(/\r$/, ""));
  if (checksum(lines) !== head[2]) {
    throw new Refusal(
      "fence-edited",
      `${file}, ${where}: the block between "${opening}" and "${closing}" was edited by hand. Move what was added out of the block, delete the block, then run again.`,
    );
  }
  const before = text.slice(0, begin.index);
  const after = text.slice(end.index + end[0].length);
  const joined = head[1] !== undefined && after === "";
  return { before: joined ? before.replace(/\r?\n$/, "") : before, block: lines, after };
}

/** A comment that marks a block, without anything that was written beside the mark; undefined: another comment. */
export function markOnly(comment: string): string | undefined {
  if (comment.startsWith(opening)) return openingLine.test(comment) ? comment : `${opening} (damaged)`;
  if (comment.startsWith(closing)) return comment.trimEnd() === closing ? closing : `${closing} (damaged)`;
  return undefined;
}

/** The text with these lines in its block, where the block was or else at the end. No lines: no block. */
export function joinFence({ before, after }: Fenced, lines: readonly string[]): string {
  if (lines.length === 0) return before + after;
  const lineEnd = /\r?\n/.exec(before + after)?.[0] ?? "\n";
  const joined = after === "" && before !== "" && before !== "\ufeff" && !before.endsWith("\n");
  const head = `${opening} (managed, do not edit;${joined ? " joined;" : ""} ${checksum(lines)})`;
  return before + (joined ? lineEnd : "") + [head, ...lines, closing, ""].join(lineEnd) + after;
}
