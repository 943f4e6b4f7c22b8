import { spawnSync } from "node:child_process";
import { mkdir, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { hostname, tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { releaseStaleLocks } from "../../../tools/engine/stale-locks.ts";

let state: string;
let directory: string;
const timestamp = "2026-01-02T03:04:05Z";

beforeAll(async () => {
  state = await mkdtemp(join(tmpdir(), "locks-"));
  directory = join(state, ".pulumi/locks/organization/project/dev");
  await mkdir(directory, { recursive: true });
});
afterAll(() => rm(state, { recursive: true }));

test("only the lock of a process of this machine that is gone is released, and said so", async () => {
  const { pid: dead } = spawnSync("true");
  const locks = {
    "dead.json": { pid: dead, hostname: hostname() },
    "alive.json": { pid: process.pid, hostname: hostname() },
    "elsewhere.json": { pid: dead, hostname: "another-machine" },
  };
  for (const [name, lock] of Object.entries(locks))
    await writeFile(join(directory, name), JSON.stringify({ ...lock, username: "root", timestamp }));
  const lines: string[] = [];
  await releaseStaleLocks(state, "project", "dev", (line) => lines.push(line));
  expect((await readdir(directory)).sort()).toEqual(["alive.json", "elsewhere.json"]);
  expect(lines).toEqual([
    `Releasing stack dev: the engine that updated it (process ${dead}, ${timestamp}) was killed.`,
  ]);
});

test("a stack that was never updated has none", async () => {
  await expect(releaseStaleLocks(state, "project", "new", () => {})).resolves.toBeUndefined();
});
