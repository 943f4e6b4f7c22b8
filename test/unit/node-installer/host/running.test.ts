import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import {
  chmodSync,
  copyFileSync,
  existsSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { runningBelow } from "../../../../node-installer/host/running.ts";

let directory: string;
let children: ChildProcess[];
const at = (path: string) => join(directory, path);

/** Who runs from our directory, of the machine's own processes: all that this one may look at, which is not always all. */
async function users() {
  const root = mkdtempSync(join(directory, "root-"));
  mkdirSync(join(root, "proc"));
  for (const pid of readdirSync("/proc").filter((name) => /^\d+$/.test(name))) {
    try {
      statSync(`/proc/${pid}/exe`);
      symlinkSync(`/proc/${pid}`, join(root, "proc", pid));
    } catch {
      // Hidden from us, gone, or a thread of the kernel.
    }
  }
  if (!existsSync(join(root, "proc/1"))) mkdirSync(join(root, "proc/1"));
  return runningBelow(root, at("runtime"));
}

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "running-"));
  mkdirSync(at("runtime/bin"), { recursive: true });
  copyFileSync("/bin/cat", at("runtime/bin/vmm"));
  writeFileSync(at("runtime/rootfs.img"), "an image");
  children = [];
});
afterEach(async () => {
  for (const child of children) {
    const ended = once(child, "close");
    child.stdin?.end();
    await ended;
  }
  rmSync(directory, { recursive: true });
});

/** Starts a program that answers and ends with its input; resolves once it runs. */
async function start(program: string, args: string[] = [], options: { uid?: number; argv0?: string } = {}) {
  const child = spawn(program, args, { stdio: ["pipe", "pipe", "ignore"], ...options });
  children.push(child);
  child.stdin.write("x\n");
  await once(child.stdout, "data");
  return child;
}

test("a program that runs from the directory is found, whoever runs it and whatever it calls itself", async () => {
  chmodSync(directory, 0o755);
  const own = await start(at("runtime/bin/vmm"));
  const other = await start(at("runtime/bin/vmm"), [], { uid: 65534, argv0: "/usr/bin/innocent" });
  const found = await users();
  expect(found.map(({ pid }) => pid)).toEqual([own.pid, other.pid].toSorted((a = 0, b = 0) => a - b));
  expect(found[0]?.name).toBe("vmm");
});

test("by another path (a link, another mount) it is the same file", async () => {
  linkSync(at("runtime/bin/vmm"), at("elsewhere"));
  symlinkSync(at("elsewhere"), at("link"));
  const child = await start(at("link"));
  expect(await users()).toEqual([{ pid: child.pid, name: "link" }]);
});

test("who names the directory, has a file of it open or works in it does not use the runtime", async () => {
  const image = at("runtime/rootfs.img");
  await start("/bin/sh", ["-c", 'exec 3<"$1"; cd "$(dirname "$1")"; cat', "sh", image]);
  await start("/bin/cat", [], { argv0: at("runtime/bin/vmm") });
  expect(await users()).toEqual([]);
});

test("a path of the same name in another root is another file", async () => {
  const other = mkdtempSync(join(tmpdir(), "running-other-"));
  copyFileSync("/bin/cat", join(other, "vmm"));
  await start(join(other, "vmm"));
  rmSync(other, { recursive: true });
  expect(await users()).toEqual([]);
});

test("what the kernel's process list holds besides, and a directory that does not exist, are nobody's use", async () => {
  const root = at("root");
  const exe = (pid: string, target: string) => {
    mkdirSync(join(root, "proc", pid), { recursive: true });
    symlinkSync(target, join(root, "proc", pid, "exe"));
  };
  exe("1", at("another program"));
  exe("2", at("nothing: a kernel thread"));
  exe("77", at("runtime/bin/vmm"));
  exe("self", at("runtime/bin/vmm"));
  writeFileSync(join(root, "proc/77/comm"), "\u001b[2Knode-1: ready\u0007\n");
  expect(await runningBelow(root, at("runtime"))).toEqual([{ pid: 77, name: "node-1: ready" }]);
  expect(await runningBelow(root, at("missing"))).toEqual([]);
  expect(await runningBelow(at("missing"), at("runtime"))).toEqual([]);
});

test("links in the directory do not make somebody else's program the runtime's", async () => {
  symlinkSync("/bin", at("runtime/bin/more"));
  symlinkSync("/bin/cat", at("runtime/bin/cat"));
  await start("/bin/cat");
  expect(await users()).toEqual([]);
});

test("where the kernel lists only some of the processes (hidepid), nobody concludes that no other uses the runtime", async () => {
  const root = at("root");
  mkdirSync(join(root, "proc/77"), { recursive: true });
  symlinkSync("/bin/cat", join(root, "proc/77/exe"));
  await expect(runningBelow(root, at("runtime"))).rejects.toMatchObject({ code: "users-unknown" });
});
