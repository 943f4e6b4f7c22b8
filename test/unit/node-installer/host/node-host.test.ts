import { spawn, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { once } from "node:events";
import {
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as fc from "fast-check";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { FileChanged, swapFile, writeFileAtomically } from "../../../../node-installer/host/files.ts";
import { DigestMismatch, type Host, TooSlow } from "../../../../node-installer/host/host.ts";
import { createNodeHost } from "../../../../node-installer/host/node-host.ts";
import { resolvePath } from "../../../../node-installer/host/paths.ts";
import { holdLock } from "../../../../node-installer/host/programs.ts";

let root: string;
let host: Host;
const at = (path: string) => join(root, path);
const digest = (text: string | Buffer) => createHash("sha256").update(text).digest("hex");
const own = { mode: 0o644, uid: 0, gid: 0 };

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), "host-"));
  mkdirSync(at("etc/containerd"), { recursive: true });
  host = createNodeHost({ root });
});
afterEach(() => rmSync(root, { recursive: true }));

describe("links", () => {
  test("absolute ones and those with too many .. are resolved below the host root, as the node sees them", async () => {
    mkdirSync(at("data"));
    writeFileSync(at("data/passwd"), "the node's");
    symlinkSync("/data/passwd", at("etc/absolute"));
    symlinkSync("../../../../../../../../data/passwd", at("etc/relative"));
    symlinkSync("/data", at("etc/directory"));
    for (const path of ["/etc/absolute", "/etc/relative", "/etc/directory/passwd", "/../../data/passwd"]) {
      expect(String(await host.readFile(path))).toBe("the node's");
      expect(await host.realpath(path)).toBe("/data/passwd");
    }
    expect(await host.localPath("/etc/absolute")).toBe(at("data/passwd"));
  });

  test("when one was made is known of the link itself, whatever it leads to, also below a linked directory", async () => {
    mkdirSync(join(root, "data"));
    symlinkSync("/data", join(root, "folder"));
    symlinkSync("nowhere", join(root, "data/link"));
    writeFileSync(join(root, "data/file"), "");
    const { ctimeNs } = lstatSync(join(root, "data/link"), { bigint: true });
    expect(await host.linkedAt("/folder/link")).toBe(ctimeNs);
    expect([await host.linkedAt("/folder/file"), await host.linkedAt("/none/x")]).toEqual([undefined, undefined]);
  });

  test("a link that would leave the host root leads to nothing, and writing through it stays inside", async () => {
    symlinkSync("/etc/passwd", at("etc/escape"));
    expect(await host.stat("/etc/escape")).toBeUndefined();
    symlinkSync("/", at("etc/root"));
    await host.createFile("/etc/root/etc/new", "x", own);
    expect(readFileSync(at("etc/new"), "utf8")).toBe("x");
  });

  test("a pipe, a device or a directory in place of a file is refused without blocking", async () => {
    spawnSync("mkfifo", [at("etc/pipe")]);
    mkdirSync(at("etc/directory"));
    for (const path of ["/etc/pipe", "/etc/directory"]) {
      await expect(host.readFile(path)).rejects.toThrow(`${path} is a `);
      await expect(host.digest(path)).rejects.toMatchObject({ code: "not-a-file" });
    }
  });

  test("a circle is an error, not a hang", async () => {
    symlinkSync("b", at("etc/a"));
    symlinkSync("a", at("etc/b"));
    await expect(host.readFile("/etc/a")).rejects.toThrow(/too many symbolic links/);
  });

  test("no path and no combination of links leads above the root", () => {
    const segment = fc.constantFrom("a", "b", "..", ".", "", "c");
    const path = fc.array(segment, { minLength: 1, maxLength: 8 }).map((parts) => `/${parts.join("/")}`);
    const target = fc.oneof(
      path,
      fc.array(segment, { minLength: 1, maxLength: 6 }).map((parts) => parts.join("/")),
    );
    fc.assert(
      fc.property(path, fc.dictionary(path, target), (start, links) => {
        let resolved = "/";
        try {
          resolved = resolvePath(start, (name) => links[name]);
        } catch (error) {
          expect((error as Error).message).toMatch(/too many symbolic links/);
        }
        expect(resolved).toMatch(/^\/([abc](\/[abc])*)?$/);
      }),
    );
  });
});

describe("writing", () => {
  test("atomically: mode kept to the bit, nothing left beside the file", async () => {
    await writeFileAtomically(host, "/etc/containerd/config.toml", "one", { ...own, mode: 0o640 });
    await writeFileAtomically(host, "/etc/containerd/config.toml", "two", { ...own, mode: 0o640 });
    expect(readFileSync(at("etc/containerd/config.toml"), "utf8")).toBe("two");
    expect(statSync(at("etc/containerd/config.toml")).mode & 0o7777).toBe(0o640);
    expect(readdirSync(at("etc/containerd"))).toEqual(["config.toml"]);
  });

  test("compare and swap: a changed, a new and a missing file are left as they are", async () => {
    const file = "/etc/containerd/config.toml";
    const swap = (expected: string | undefined) =>
      swapFile(host, file, expected && digest(expected), Buffer.from("ours"), own);
    await swap(undefined);
    writeFileSync(at(file), "foreign");
    await expect(swap("ours")).rejects.toThrow(FileChanged);
    await expect(swap(undefined)).rejects.toThrow(FileChanged);
    expect(readFileSync(at(file), "utf8")).toBe("foreign");
    rmSync(at(file));
    await expect(swap("foreign")).rejects.toThrow(FileChanged);
    expect(readdirSync(at("etc/containerd"))).toEqual([]);
  });

  test("removal compares too", async () => {
    const file = "/etc/containerd/config.toml";
    writeFileSync(at(file), "foreign");
    await expect(swapFile(host, file, digest("ours"), undefined, own)).rejects.toThrow(FileChanged);
    expect(readFileSync(at(file), "utf8")).toBe("foreign");
    await swapFile(host, file, digest("foreign"), undefined, own);
    expect(readdirSync(at("etc/containerd"))).toEqual([]);
  });
});

describe("payload files", () => {
  const bytes = Buffer.alloc((5 << 20) + 17, "payload ");
  const expected = { size: bytes.length, sha256: digest(bytes), mode: 0o755 };

  test("are copied with mode and verified", async () => {
    writeFileSync(at("source"), bytes);
    await host.copyPayloadFile(at("source"), "/etc/target", expected);
    expect(readFileSync(at("etc/target")).equals(bytes)).toBe(true);
    expect(statSync(at("etc/target")).mode & 0o7777).toBe(0o755);
  });

  test.each([
    ["a flipped byte", { sha256: digest(Buffer.alloc(bytes.length)) }],
    ["another size", { size: bytes.length + 1 }],
  ])("%s is detected, and no target stays", async (_name, wrong) => {
    writeFileSync(at("source"), bytes);
    const copy = host.copyPayloadFile(at("source"), "/etc/target", { ...expected, ...wrong });
    await expect(copy).rejects.toThrow(DigestMismatch);
    expect(existsSync(at("etc/target"))).toBe(false);
  });

  test("a running program is replaced by rename, and keeps running", async () => {
    writeFileSync(at("etc/shim"), readFileSync("/bin/sleep"), { mode: 0o755 });
    const running = spawn(at("etc/shim"), ["60"]);
    await once(running, "spawn");
    writeFileSync(at("source"), bytes);
    await host.copyPayloadFile(at("source"), "/etc/.shim", expected);
    await host.rename("/etc/.shim", "/etc/shim");
    expect(running.exitCode).toBeNull();
    running.kill();
    await once(running, "close");
  });
});

describe("programs and the lock", () => {
  test("a missing program is 127; one that hangs is ended, and has given no answer", async () => {
    const machine = createNodeHost({ root: "/" });
    expect((await machine.run("/no/such/program", [])).code).toBe(127);
    const slow = machine.run("sleep", ["60"], { timeoutMs: 50 });
    await expect(slow).rejects.toThrow(new TooSlow("sleep", ["60"], 50));
    // A wrapper's child keeps the wrapper's output open, which would block forever.
    await expect(machine.run("sh", ["-c", "sleep 60; true"], { timeoutMs: 50 })).rejects.toThrow(TooSlow);
    expect(await machine.run("sh", ["-c", "echo out; echo err >&2; exit 3"])).toEqual({
      code: 3,
      stdout: "out\n",
      stderr: "err\n",
    });
    expect((await host.run("sh", ["-c", "true"])).code).not.toBe(0);
  });

  test("one holder at a time; killing the holder releases it", async () => {
    const path = at("lock");
    const lock = await holdLock("/", path, 1_000);
    await expect(holdLock("/", path, 50)).rejects.toMatchObject({ code: "locked" });
    await lock.release();
    const script = `
      import { holdLock } from ${JSON.stringify(join(import.meta.dirname, "../../../../node-installer/host/programs.ts"))};
      await holdLock("/", ${JSON.stringify(path)}, 1000);
      console.log("held");
      setInterval(() => {}, 1000);`;
    const holder = spawn(process.execPath, ["--input-type=module", "-e", script], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    await once(holder.stdout, "data");
    await expect(holdLock("/", path, 50)).rejects.toMatchObject({ code: "locked" });
    holder.kill("SIGKILL");
    await once(holder, "close");
    await (await holdLock("/", path, 5_000)).release();
  });
});

test("a path that leads through a file is absent, and a missing directory has its parent's free space", async () => {
  writeFileSync(at("etc/file"), "");
  expect(await host.readDirectory("/etc/file")).toEqual([]);
  expect(await host.stat("/etc/file/below")).toBeUndefined();
  expect((await host.freeSpace("/no/such/directory/yet")).bytes).toBeGreaterThan(0);
});
