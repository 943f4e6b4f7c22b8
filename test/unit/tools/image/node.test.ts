import { spawnSync } from "node:child_process";
import { readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { nodeOfImage, strippedNode, withoutSections } from "../../../../tools/image/node.ts";

const clone = join(import.meta.dirname, "..", "..", "..", "..");

test("the image's Node is the package of package-lock.json, whatever machine builds it", async () => {
  const { packages } = JSON.parse(readFileSync(join(clone, "package-lock.json"), "utf8")) as {
    packages: Record<string, Record<string, unknown>>;
  };
  const { name, ...pinned } = nodeOfImage;
  expect(packages[`node_modules/${name}`]).toMatchObject(pinned);
  expect(packages["tools/dev/node"]?.optionalDependencies).toMatchObject({ [name]: pinned.version });
});

test("without its symbols the program is much smaller, and runs", async () => {
  const program = join(clone, "node_modules", nodeOfImage.name, "bin", "node");
  const stripped = await strippedNode(() => {});
  expect(statSync(stripped).size).toBeLessThan(0.9 * statSync(program).size);
  const { stdout } = spawnSync(stripped, ["--print", "process.version"], { encoding: "utf8" });
  expect(stdout).toBe(`v${nodeOfImage.version}\n`);
});

test("a program without sections stays as it is, and what is none is refused", () => {
  const program = withoutSections(readFileSync("/bin/true"));
  expect(withoutSections(program)).toEqual(program);
  expect(() => withoutSections(Buffer.from("#!/bin/sh\nexit 0\n"))).toThrow(/needs 8 bytes from offset/);
});
