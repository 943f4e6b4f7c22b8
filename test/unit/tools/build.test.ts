import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { bundle } from "../../../tools/build.ts";

let directory: string;
let program: string;
beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), "build-test-"));
  program = join(directory, "node-installer.mjs");
  await bundle([{ from: "node-installer/main.ts", to: program }]);
});
afterAll(() => rmSync(directory, { recursive: true }));

test("a bundle runs on its own, as a single file", () => {
  const { status, stdout } = spawnSync(process.execPath, [program, "--help"], { encoding: "utf8", cwd: "/" });
  expect([status, stdout.split("\n")[0]]).toEqual([
    0,
    "Usage: node-installer COMMAND --spec FILE [--host-root DIR] [--payloads DIR]",
  ]);
});

test("if the reader of its output goes away, the bundle still does its work", async () => {
  const child = spawn(process.execPath, [program, "--help"], { stdio: ["ignore", "pipe", "pipe"] });
  child.stdout.destroy();
  const [said] = await Promise.all([child.stderr.toArray(), once(child, "close")]);
  expect([child.exitCode, Buffer.concat(said).toString()]).toEqual([0, ""]);
});

test("a bundle does not depend on import.meta.main, which an older Node lacks", () => {
  expect(readFileSync(program, "utf8")).not.toContain("import.meta.main");
});
