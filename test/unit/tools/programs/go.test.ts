import { chmod, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { goCommand } from "../../../../tools/programs/go.ts";

let directory: string;
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "go-"));
  for (const version of ["1.19.8", "1.21.0", "1.26.1"]) {
    await writeFile(join(directory, version), `#!/bin/sh\necho go${version}\n`);
    await chmod(join(directory, version), 0o755);
  }
});
afterAll(() => rm(directory, { recursive: true }));

const chosen = (...places: string[]) => goCommand(places.map((place) => join(directory, place)));

test("the first Go that is new enough is used, even if an older one comes before it", async () => {
  expect(await chosen("missing", "1.19.8", "1.21.0", "1.26.1")).toBe(join(directory, "1.21.0"));
});

test("if there is only an older one, or none, a sentence says what to do", async () => {
  await expect(chosen("1.19.8", "missing")).rejects.toThrow(
    /^Go 1\.19\.8 is installed; 1\.21 or newer is needed\. Install/,
  );
  await expect(chosen("missing")).rejects.toThrow(/^Go is not installed; .* Install 1\.21 or newer/);
});
