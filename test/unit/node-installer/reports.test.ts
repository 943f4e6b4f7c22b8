import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";

const tests = join(import.meta.dirname, "../..");
const rows = readFileSync(join(tests, "fixtures/reports.md"), "utf8")
  .split("\n")
  .filter((line) => line.startsWith("| "))
  .slice(2)
  .map((line) => line.slice(2).split(" | ") as [string, string, string]);

test.each(rows)("%s (%s) is held by a test", (_, what, cell) => {
  const named = [...cell.matchAll(/`([^`:]+): ([^`]+)`/g)];
  expect(named.length, what).toBeGreaterThan(0);
  for (const [, file = "", words = ""] of named) {
    const path = join(tests, file.startsWith("cluster/") ? "" : "unit", file);
    expect(readFileSync(path, "utf8"), file).toContain(words);
  }
});
