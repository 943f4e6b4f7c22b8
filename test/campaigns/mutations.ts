// mutations.ts [NAME …]: takes out, one after the other, what makes writes durable and replacements safe, what counts
// restarts, and what makes labels true, and shows that the unit tests notice each. It works on a copy of the repository; a mutant takes some seconds. Ends with 1 if one survives.
import { spawnSync } from "node:child_process";
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { mutants } from "./mutants.ts";

const wanted = process.argv.slice(2);
const repository = resolve(import.meta.dirname, "../..");
const copy = mkdtempSync(join(tmpdir(), "mutations-"));
const skipped = /^(node_modules|\.git|\.local|dist)$/;
let survived = 0;
try {
  cpSync(repository, copy, {
    recursive: true,
    filter: (path) => !skipped.test(path.slice(repository.length + 1)),
  });
  symlinkSync(join(repository, "node_modules"), join(copy, "node_modules"));
  const run = (tests: string[]) =>
    spawnSync(process.execPath, ["node_modules/vitest/vitest.mjs", "run", "--bail=1", ...tests], {
      cwd: copy,
      encoding: "utf8",
      maxBuffer: 1 << 28,
    });
  const chosen = mutants.filter(({ name }) => wanted.length === 0 || wanted.includes(name));
  const unchanged = run([...new Set(chosen.flatMap(({ tests }) => tests))]);
  if (unchanged.status !== 0) throw new Error(`the tests fail without any mutant:\n${unchanged.stdout}`);
  for (const { name, file, text, by, tests } of chosen) {
    const path = join(copy, file);
    const original = readFileSync(path, "utf8");
    if (original.split(text).length !== 2) throw new Error(`${name}: ${JSON.stringify(text)} is not once in ${file}`);
    writeFileSync(
      path,
      original.replace(text, () => by),
    );
    const isUnnoticed = run(tests).status === 0;
    writeFileSync(path, original);
    if (isUnnoticed) survived += 1;
    console.log(`${isUnnoticed ? "SURVIVED" : "caught"}: ${name}`);
  }
} finally {
  rmSync(copy, { recursive: true });
}
process.exitCode = survived === 0 ? 0 : 1;
