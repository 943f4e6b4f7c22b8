import { createHash } from "node:crypto";

/**
 * The fenced block: where our tables stand in an administrator's file, as long as nobody else wrote the file anew. The fence
 * is for people; what is ours is known by the names of our handlers (separate.ts). Its first line carries a checksum of the
 * lines between the fences, so that a block is known to be as we wrote it, and says whether the line end before it is ours
 * too (the file ended without one). That is enough to restore the original bytes without any other record.
 */
const opening = "# BEGIN contrast-runtime";
const closing = "# END contrast-runtime";
const openingLine = /^# BEGIN contrast-runtime \(managed, do not edit;( joined;)? ([0-9a-f]{16})\)$/;
const mark = /^[ \t]*# (?<kind>BEGIN|END) contrast-runtime[^\n]*(?:\n|$)/gm;

/** By it a block shows that we created the file. */
export const headLine = /^version = \d+$/;

/** A block as we wrote it. */
export interface Block {
  /** In the text, with both fences. */
  start: number;
  end: number;
  /** Between the fences, without line ends. */
  lines: string[];
  /** The line end before it is ours. */
  joined: boolean;
}

const checksum = (lines: readonly string[]): string =>
  createHash("sha256").update(lines.join("\n")).digest("hex").slice(0, 16);

/** The blocks that are as we wrote them. */
export function blocksIn(text: string): Block[] {
  return spansIn(text).flatMap(({ start, end, head, body, foot }) => {
    const found = openingLine.exec(head);
    if (found === null || foot !== closing) return [];
    const lines = body.split("\n").slice(0, -1);
    const plain = lines.map((line) => line.replace(/\r$/, ""));
    if (checksum(plain) !== found[2]) return [];
    return [{ start, end, lines: plain, joined: found[1] !== undefined && end === text.length }];
  });
}

/** From each opening to the next mark, if that closes it; whatever else the lines say. */
export function spansIn(text: string) {
  const marks = [...text.matchAll(mark)];
  return marks.flatMap((begin, index) => {
    const end = marks[index + 1];
    if (begin.groups?.kind !== "BEGIN" || end?.groups?.kind !== "END") return [];
    const bodyStart = begin.index + begin[0].length;
    return [
      {
        start: begin.index,
        end: end.index + end[0].length,
        head: begin[0].replace(/\r?\n$/, ""),
        body: text.slice(bodyStart, end.index),
        foot: end[0].trimEnd(),
      },
    ];
  });
}

/** The text without any fence, whole or not; what stood between them stays. */
export const withoutMarks = (text: string): string => text.replaceAll(mark, "");

/** A comment that marks a block, without anything that was written beside the mark; undefined: another comment. */
export function markOnly(comment: string): string | undefined {
  if (comment.startsWith(opening)) return openingLine.test(comment) ? comment : `${opening} (damaged)`;
  if (comment.startsWith(closing)) return comment.trimEnd() === closing ? closing : `${closing} (damaged)`;
  return undefined;
}

/** The text with these lines as its block, between the two parts. No lines: no block. */
export function joinFence({ before, after }: { before: string; after: string }, lines: readonly string[]): string {
  if (lines.length === 0) return before + after;
  const lineEnd = /\r?\n/.exec(before + after)?.[0] ?? "\n";
  const joined = after === "" && before !== "" && before !== "\ufeff" && !before.endsWith("\n");
  const head = `${opening} (managed, do not edit;${joined ? " joined;" : ""} ${checksum(lines)})`;
  return before + (joined ? lineEnd : "") + [head, ...lines, closing, ""].join(lineEnd) + after;
}
