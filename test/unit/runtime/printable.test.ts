import fc from "fast-check";
import { expect, test } from "vitest";
import { listed, printable, printableLines } from "../../../runtime/printable.ts";

const forbidden = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/u;

test.each([
  ["\u001b[2K\u001b[32mnode-1: ready", "node-1: ready"],
  ["\u001b]8;;https://evil.example\u001b\\click\u001b]8;;\u0007 me", "click me"],
  ["\u009b2Jwiped\u009d0;title\u009c!", "wiped!"],
  ["a\r\nnode-2: ready\u2028node-3: ready\u0085b\u2029c", "a node-2: ready node-3: ready b c"],
  ["\u202enode\u2066-1\u200b\u{e0041}", "node-1"],
  ["\u001bcreset \u001b(0line\u001b", "reset line"],
  ["half \ud800 pair", "half pair"],
  ["nul\u0000 del\u007f bell\u0007 back\u0008", "nul del bell back"],
  ["Größe 😀 “quoted” – 字", "Größe 😀 “quoted” – 字"],
])("%j is shown as %j", (text, shown) => {
  expect(printable(text)).toBe(shown);
});

test("a long text is cut where everybody sees it, and never in the middle of a character", () => {
  expect(printable("x".repeat(1_000_000), 20)).toBe(`${"x".repeat(19)}…`);
  expect(printable("x".repeat(500))).toBe("x".repeat(500));
  expect(printable("ab😀😀", 4)).toBe("ab…");
});

test("whatever the text, one bounded line without anything that a terminal obeys", () => {
  const hostile = fc.array(
    fc.oneof(
      fc.string({ unit: "binary" }),
      fc.constantFrom("\u001b", "[", "]", "8;;", "\u0007", "\\", "\n", "\u009b", "\u202e", "\ud83d", "m", ";", "0"),
    ),
    { maxLength: 60 },
  );
  fc.assert(
    fc.property(hostile, fc.integer({ min: 1, max: 80 }), (parts, longest) => {
      const shown = printable(parts.join(""), longest);
      expect(shown).not.toMatch(forbidden);
      expect(shown.length).toBeLessThanOrEqual(longest);
      expect(printable(shown, longest)).toBe(shown);
    }),
    { numRuns: 2_000 },
  );
});

test.each(["\u001b", "\u001b[", "\u001b]", "\u001b[0", "\u001b]8;;\u001b", "\u009b0 ", "\u001b( ", " ", "\ud83d"])(
  "a million characters of %j are read once, not once for each",
  (part) => {
    // In quadratic time this would take hours.
    expect(printable(part.repeat(1_000_000 / part.length), 20).length).toBeLessThanOrEqual(20);
  },
);

test("lines stay lines, each for itself, and are counted when there are too many", () => {
  expect(printableLines("one\u001b[2K\r\ntwo\rthree")).toBe("one\ntwo\nthree");
  expect(printableLines("1\n2\n3\n4", 2)).toBe("1\n2\n… and 2 more lines");
});

test("names are never cut silently", () => {
  expect(listed(["a", "b\u001b[2K\nc"])).toBe("a, b c");
  expect(
    listed(
      Array.from({ length: 22 }, (_, index) => `pod-${index}`),
      3,
    ),
  ).toBe("pod-0, pod-1, pod-2 … and 19 more");
});
