import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { lockPath, logPath, stateDirectory } from "../../node-installer/host/files.ts";
import { guardScript, guardScriptPath } from "../../node-installer/host/guard.ts";
import type { Host } from "../../node-installer/host/host.ts";
import { createNodeHost } from "../../node-installer/host/node-host.ts";
import { lockNode } from "../../node-installer/host/node-lock.ts";
import { distrusted } from "../../node-installer/host/owners.ts";
import { holdLock } from "../../node-installer/host/programs.ts";
import { createLog } from "../../node-installer/install/log.ts";

// Real files and a real other user, below a directory that stands for the host's root.
const stranger = { uid: 65534, gid: 65534 };
const runtimes = "/opt/edgeless";
let root: string;
let host: Host;
const at = (path: string) => join(root, path);
const look = (...directories: string[]) => distrusted(host, directories, runtimes);

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), "owners-"));
  chmodSync(root, 0o755);
  mkdirSync(at("opt/edgeless/handler/bin"), { recursive: true });
  mkdirSync(at("run/lock"), { recursive: true });
  chmodSync(at("run/lock"), 0o1777);
  // The tree has no programs: the lock is taken with this machine's.
  host = { ...createNodeHost({ root }), lock: (path, timeoutMs) => holdLock("/", at(path), timeoutMs) };
});
afterEach(() => rmSync(root, { recursive: true }));

describe("directories that root runs programs from", () => {
  test("root's own are trusted, and what is not there yet", async () => {
    expect(await look("/opt/edgeless/handler/bin", "/opt/edgeless/handler/missing/deeper")).toEqual([]);
  });

  test.each([
    ["everybody may write to the top", "/opt/edgeless", 0o777, 0],
    ["it belongs to somebody else", "/opt/edgeless", 0o755, 65534],
    ["a group may write above it", "/opt", 0o775, 0],
    ["everybody may write to a part of it, sticky or not", "/opt/edgeless/handler", 0o1777, 0],
    ["the innermost is somebody else's", "/opt/edgeless/handler/bin", 0o700, 65534],
  ])("are not if %s; the sentence names it and the remedy", async (_name, path, mode, uid) => {
    chownSync(at(path), uid, 0);
    chmodSync(at(path), mode);
    const sentences = await look("/opt/edgeless/handler/bin");
    expect(sentences).toHaveLength(1);
    expect(sentences[0]).toMatch(new RegExp(`^${path} belongs to ${uid}:0 with mode .*chown root:root ${path} `));
    chownSync(at(path), 0, 0);
    chmodSync(at(path), mode & ~0o022);
    expect(await look("/opt/edgeless/handler/bin")).toEqual([]);
  });

  test("are not below a link of ours, dangling or not, nor a file", async () => {
    rmSync(at("opt/edgeless/handler"), { recursive: true });
    symlinkSync("/nowhere", at("opt/edgeless/handler"));
    expect((await look("/opt/edgeless/handler"))[0]).toMatch(/handler is a symbolic link to \/nowhere/);
    rmSync(at("opt/edgeless/handler"));
    writeFileSync(at("opt/edgeless/handler"), "");
    expect(await look("/opt/edgeless/handler")).toEqual(["/opt/edgeless/handler is not a directory: remove it."]);
  });

  test("an administrator's link above ours is followed, and where it leads must be root's as well", async () => {
    rmSync(at("opt"), { recursive: true });
    mkdirSync(at("var/opt/edgeless"), { recursive: true });
    symlinkSync("/var/opt", at("opt"));
    expect(await look(runtimes)).toEqual([]);
    chmodSync(at("var/opt"), 0o777);
    expect((await look(runtimes))[0]).toMatch(/^\/var\/opt belongs to 0:0 with mode 0777/);
  });
});

describe("the node's lock", () => {
  test("cannot be taken, opened or created first by anybody but root", async () => {
    const lock = await lockNode(host, 1_000);
    await lock.release();
    expect(statSync(at(dirname(lockPath))).mode & 0o777).toBe(0o700);
    const taken = (path: string) => spawnSync("flock", ["--nonblock", at(path), "true"], stranger).status === 0;
    expect(taken(lockPath)).toBe(false);
    rmSync(at(lockPath));
    expect(taken(lockPath)).toBe(false);
    expect(existsSync(at(lockPath))).toBe(false);
    // The same user can do all that in a directory of everybody's.
    expect(taken("/run/lock/contrast-runtime.lock")).toBe(true);
  });

  test("is not taken in a directory that others prepared", async () => {
    mkdirSync(at(dirname(lockPath)), { mode: 0o755 });
    chownSync(at(dirname(lockPath)), stranger.uid, stranger.gid);
    await expect(lockNode(host, 1_000)).rejects.toMatchObject({ code: "not-roots" });
    rmSync(at(dirname(lockPath)), { recursive: true });
    mkdirSync(at("trap"));
    symlinkSync("/trap", at(dirname(lockPath)));
    await expect(lockNode(host, 1_000)).rejects.toThrow(/symbolic link to \/trap/);
    expect(existsSync(at("trap/lock"))).toBe(false);
  });

  test.each(["0755", "0750", "0711", "2755"])(
    "is not taken in a directory of root's with mode %s, which others can enter",
    async (mode) => {
      mkdirSync(at(dirname(lockPath)));
      chmodSync(at(dirname(lockPath)), Number.parseInt(mode, 8));
      await expect(lockNode(host, 1_000)).rejects.toThrow(/others than root can hold the lock in it. Run: chmod 0700/);
      expect(existsSync(at(lockPath))).toBe(false);
      chmodSync(at(dirname(lockPath)), 0o700);
      await (await lockNode(host, 1_000)).release();
    },
  );

  test("nor if somebody else can change what guard and journal say", async () => {
    mkdirSync(at(stateDirectory), { recursive: true });
    chmodSync(at(stateDirectory), 0o777);
    await expect(lockNode(host, 1_000)).rejects.toThrow(/contrast-runtime belongs to 0:0 with mode 0777/);
  });

  test("includes the former one as long as an earlier version's guard may act", async () => {
    const former = "/run/lock/contrast-runtime.lock";
    const holder = spawn("flock", [at(former), "cat"], { ...stranger, stdio: ["pipe", "pipe", "ignore"] });
    holder.stdin.write("held\n");
    await once(holder.stdout, "data");
    await (await lockNode(host, 100)).release();
    mkdirSync(at(stateDirectory), { recursive: true, mode: 0o700 });
    writeFileSync(at(guardScriptPath), guardScript({ state: stateDirectory, lock: former, log: logPath }));
    await expect(lockNode(host, 100)).rejects.toMatchObject({ code: "locked" });
    holder.stdin.end();
    await once(holder, "close");
    await (await lockNode(host, 100)).release();
    writeFileSync(at(guardScriptPath), guardScript({ state: stateDirectory, lock: lockPath, log: logPath }));
    rmSync(at(former));
    await (await lockNode(host, 100)).release();
    expect(existsSync(at(former))).toBe(false);
  });
});

test("the log is not written where somebody else can lead it elsewhere", async () => {
  const directory = at(dirname(logPath));
  mkdirSync(directory, { recursive: true });
  chownSync(directory, stranger.uid, stranger.gid);
  symlinkSync("/victim", at(logPath));
  writeFileSync(at("victim"), "");
  const log = createLog(host, "workers", () => undefined);
  log.keep();
  log.info("step");
  await log.flush();
  expect(statSync(at("victim")).size).toBe(0);
  rmSync(directory, { recursive: true });
  log.info("step");
  await log.flush();
  expect(statSync(at(logPath)).size).toBeGreaterThan(0);
});
