import { FILE_HEADERS_ONLY, formatPatch, type StructuredPatch, structuredPatch } from "diff";

/**
 * A unified diff of two texts, where `undefined` is no file; empty if they are equal. CRLF and a missing last newline count
 * as differences.
 */
export function unifiedDiff(path: string, before: string | undefined, after: string | undefined): string {
  if (before === after) return "";
  const name = (text: string | undefined) => (text === undefined ? "/dev/null" : path);
  const [old, next] = [before ?? "", after ?? ""];
  const compared = structuredPatch(name(before), name(after), old, next, undefined, undefined, {
    context: 3,
    // The comparison's time grows with the square of the changed lines: a thousand are a second, ten thousand minutes.
    maxEditLength: 1000,
  });
  return formatPatch(compared ?? replacement(name(before), name(after), old, next), FILE_HEADERS_ONLY);
}

/** Every old line removed and every new one added, without a search for what they have in common. */
function replacement(oldName: string, newName: string, old: string, next: string): StructuredPatch {
  const removal = structuredPatch(oldName, newName, old, "");
  const removed = removal.hunks[0] ?? nothing;
  const added = structuredPatch(oldName, newName, "", next).hunks[0] ?? nothing;
  return { ...removal, hunks: [{ ...removed, newLines: added.newLines, lines: [...removed.lines, ...added.lines] }] };
}

/** The hunk of an empty text that stays empty. */
const nothing = { oldStart: 1, oldLines: 0, newStart: 1, newLines: 0, lines: [] };
