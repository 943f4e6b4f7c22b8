import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdir, mkdtemp, readdir, rm, symlink, writeFile } from "node:fs/promises";
import { hostname, tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, onTestFinished, test } from "vitest";
import { releaseStaleLocks } from "../../../../tools/engine/stale-locks.ts";

let state: string;
let directory: string;
const timestamp = "2026-01-02T03:04:05Z";

beforeAll(async () => {
  state = await mkdtemp(join(tmpdir(), "locks-"));
  directory = join(state, ".pulumi/locks/organization/project/dev");
  await mkdir(directory, { recursive: true });
});
afterAll(() => rm(state, { recursive: true }));

test("only the lock of a dead engine of this machine is released, with a message", async () => {
  const { pid: dead } = spawnSync("true");
  await symlink("/bin/sleep", join(state, "pulumi"));
  const engine = spawn(join(state, "pulumi"), ["60"]);
  await once(engine, "spawn");
  onTestFinished(() => void engine.kill());
  const locks = {
    "dead.json": { pid: dead, hostname: hostname() },
    // After a reboot: the process ID is now this process's, which is not an engine.
    "reused.json": { pid: process.pid, hostname: hostname() },
    "alive.json": { pid: engine.pid, hostname: hostname() },
    "elsewhere.json": { pid: dead, hostname: "another-machine" },
  };
  for (const [name, lock] of Object.entries(locks))
    await writeFile(join(directory, name), JSON.stringify({ ...lock, username: "root", timestamp }));
  await writeFile(join(directory, "broken.json"), "");
  const lines: string[] = [];
  await releaseStaleLocks(state, "project", "dev", (line) => lines.push(line));
  expect((await readdir(directory)).sort()).toEqual(["alive.json", "broken.json", "elsewhere.json"]);
  expect(lines.sort()).toEqual(
    [dead, process.pid]
      .map((pid) => `Releasing stack dev: the engine that updated it (process ${pid}, ${timestamp}) was killed.`)
      .sort(),
  );
});

test("a stack that was never updated has none", async () => {
  await expect(releaseStaleLocks(state, "project", "new", () => {})).resolves.toBeUndefined();
});
