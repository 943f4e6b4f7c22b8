import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { expect } from "vitest";

const directory = join(import.meta.dirname, "golden");

/** Compares a text with the committed `test/golden/<name>`; `GOLDEN=update` writes it instead. */
export function expectGolden(name: string, text: string): void {
  const file = join(directory, name);
  if (process.env.GOLDEN === "update") {
    mkdirSync(dirname(file), { recursive: true });
    writeFileSync(file, text);
    return;
  }
  if (!existsSync(file))
    throw new Error(`test/golden/${name} does not exist. Write it with GOLDEN=update and review it.`);
  expect(text, `differs from test/golden/${name}; if it should, run with GOLDEN=update and review the diff`).toBe(
    readFileSync(file, "utf8"),
  );
}
