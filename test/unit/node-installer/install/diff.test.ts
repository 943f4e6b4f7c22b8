import * as fc from "fast-check";
import { expect, test } from "vitest";
import { unifiedDiff } from "../../../../node-installer/install/diff.ts";

/** Applies a unified diff as `patch` does, by line numbers. */
function apply(before: string | undefined, diff: string): string {
  const old = before?.match(/[^\n]*\n|[^\n]+$/g) ?? [];
  const result: string[] = [];
  let next = 0;
  const lines = diff.split("\n");
  for (const [index, line] of lines.entries()) {
    const hunk = /^@@ -(\d+),(\d+) \+\d+,\d+ @@$/.exec(line);
    if (hunk !== null) {
      const start = Number(hunk[1]) - (hunk[2] === "0" ? 0 : 1);
      result.push(...old.slice(next, start));
      next = start;
      continue;
    }
    if (index < 2 || !/^[ +-]/.test(line)) continue;
    const end = lines[index + 1]?.startsWith("\\") ? "" : "\n";
    const text = `${line.slice(1)}${end}`;
    if (line[0] !== "+") expect(old[next]).toBe(text);
    if (line[0] !== "+") next += 1;
    if (line[0] !== "-") result.push(text);
  }
  return [...result, ...old.slice(next)].join("");
}

test("a diff turns one text into the other, whatever their lines and line ends", () => {
  const text = fc
    .array(fc.constantFrom("a", "b", "c", "", "@@", "x\r"), { maxLength: 30 })
    .map((lines) => lines.join("\n"));
  fc.assert(
    fc.property(text, text, (before, after) => {
      expect(apply(before, unifiedDiff("/f", before, after))).toBe(after);
    }),
  );
});

test("equal texts have no diff; a new and a removed file are named by /dev/null", () => {
  expect(unifiedDiff("/f", "a\n", "a\n")).toBe("");
  expect(unifiedDiff("/f", undefined, "a\n")).toBe("--- /dev/null\n+++ /f\n@@ -0,0 +1,1 @@\n+a\n");
  expect(unifiedDiff("/f", "a", undefined)).toBe(
    "--- /f\n+++ /dev/null\n@@ -1,1 +0,0 @@\n-a\n\\ No newline at end of file\n",
  );
});

test.each([
  [5000, 80],
  [80, 5000],
  [2000, 0],
  [0, 2000],
])("a text of %i lines that has nothing in common with the next one, of %i, is replaced as a whole", (old, next) => {
  const text = (lines: number, mark: string) => Array.from({ length: lines }, (_, line) => `${mark}${line}`).join("\n");
  const [before, after] = [text(old, "a"), text(next, "b")];
  const diff = unifiedDiff("/f", before, after);
  expect(apply(before, diff)).toBe(after);
  expect(diff.match(/^@@.*/gm)).toEqual([`@@ -${Math.min(old, 1)},${old} +${Math.min(next, 1)},${next} @@`]);
});

test("distant changes get their own hunks, near ones share one", () => {
  const lines = Array.from({ length: 40 }, (_, index) => `${index}\n`);
  const changed = (...at: number[]) => lines.map((line, index) => (at.includes(index) ? "x\n" : line)).join("");
  const hunks = (after: string) => unifiedDiff("/f", lines.join(""), after).match(/^@@/gm)?.length;
  expect(hunks(changed(5, 30))).toBe(2);
  expect(hunks(changed(5, 9))).toBe(1);
});
