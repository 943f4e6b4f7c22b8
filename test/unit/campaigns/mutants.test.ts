import { existsSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { expect, test } from "vitest";
import { mutants } from "../../campaigns/mutants.ts";

const repository = resolve(import.meta.dirname, "../../..");

/** The campaign takes long, and would end at the first one that names what has moved. */
test.each(mutants.map((mutant) => [mutant.name, mutant] as const))(
  "the text of the mutant %s stands exactly once in its file, and its tests are there",
  (_, { file, text, tests }) => {
    expect(readFileSync(join(repository, file), "utf8").split(text)).toHaveLength(2);
    expect(tests.filter((path) => !existsSync(join(repository, path)))).toEqual([]);
  },
);
