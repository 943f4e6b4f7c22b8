import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import ts from "typescript";
import { expect, test } from "vitest";

/** Lines at which a doc comment stands right above another one: whatever it described has moved away from below it. */
function orphans(path: string, text: string): string[] {
  // Only the parser knows comments from strings, but it takes its time.
  if (!/\*\/\s*\/\*\*/.test(text)) return [];
  const file = ts.createSourceFile(path, text, ts.ScriptTarget.Latest);
  const found = new Set<number>();
  const visit = (node: ts.Node): void => {
    const docs = (ts.getLeadingCommentRanges(text, node.getFullStart()) ?? []).map(({ pos, end }) => ({
      pos,
      isDoc: text.startsWith("/**", pos) && end - pos > 4,
    }));
    docs.forEach(({ pos, isDoc }, index) => {
      if (isDoc && docs[index + 1]?.isDoc) found.add(file.getLineAndCharacterOfPosition(pos).line + 1);
    });
    ts.forEachChild(node, visit);
  };
  visit(file);
  return [...found].map((line) => `${path}:${line}`);
}

test("every doc comment stands above what it describes", () => {
  const names = execFileSync("git", ["ls-files", "-z", "*.ts", "*.mts", "*.mjs", "*.cjs"], { encoding: "utf8" });
  const paths = names.split("\0").filter((path) => path !== "");
  expect(paths.length).toBeGreaterThan(100);
  expect(paths.flatMap((path) => orphans(path, readFileSync(path, "utf8")))).toEqual([]);
});

test.each([
  ["/** a */\n/** b */\nconst c = 1;", ["x.ts:1"]],
  ["class A {\n  /** a */\n\n  /** b */\n  c = 1;\n}", ["x.ts:2"]],
  ["interface A {\n  /** a */\n  // why\n  /** b */\n  c: 1;\n}", []],
  ['/** a */\nconst c = "/** b */ /** c */";\n/* d */ /** e */\nconst f = 1;', []],
])("a doc comment above another one is found: %j", (text, lines) => {
  expect(orphans("x.ts", text)).toEqual(lines);
});
