import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { bundle } from "../../../../tools/image/bundle.ts";

let directory: string;
let program: string;
let metafile: Awaited<ReturnType<typeof bundle>>;
beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), "build-test-"));
  program = join(directory, "node-installer.mjs");
  metafile = await bundle([{ from: "node-installer/main.ts", to: program }]);
});
afterAll(() => rmSync(directory, { recursive: true }));

test("node-installer/ contains what its main.ts reaches, and nothing else", () => {
  const reached = Object.keys(metafile.inputs).filter((path) => path.startsWith("node-installer/"));
  const present = readdirSync("node-installer", { recursive: true, encoding: "utf8" }).filter((path) =>
    /\.\w+$/.test(path),
  );
  expect(reached.toSorted()).toEqual(present.map((path) => `node-installer/${path}`).sort());
});

test("what runs on nodes is the installer, what a runtime is and the version: neither Pulumi nor any other room of this repository", () => {
  const rooms = Object.keys(metafile.inputs).map((path) => path.split("/")[0]);
  expect([...new Set(rooms)].sort()).toEqual(["node-installer", "node_modules", "package.json", "runtime"]);
  expect(Object.keys(metafile.inputs).filter((path) => path.includes("@pulumi"))).toEqual([]);
});

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

test("a bundle holds the shell scripts that its modules read, byte for byte, and reads none of them from anywhere", async () => {
  const text = readFileSync(program, "utf8");
  expect(text).not.toMatch(/new URL\([^)]*\.sh/);
  const guard = readFileSync("node-installer/host/guard.sh", "utf8");
  const check = join(directory, "check.mjs");
  await bundle([{ from: "node-installer/host/guard.ts", to: check }]);
  const { guardScript } = (await import(check)) as typeof import("../../../../node-installer/host/guard.ts");
  expect(guardScript({ state: "/s", lock: "/l", log: "/g" })).toBe(
    `set -- /s /l /g contrast-runtime-guard.timer\n${guard}`,
  );
});

test("a module that reads a script in other words is not bundled: the file would not be there", async () => {
  const file = join(directory, "module.ts");
  writeFileSync(file, 'import { readFileSync } from "node:fs";\nreadFileSync(new URL("a.sh", import.meta.url));\n');
  await expect(bundle([{ from: file, to: join(directory, "module.mjs") }])).rejects.toThrow(
    "reads a shell script in other",
  );
});
