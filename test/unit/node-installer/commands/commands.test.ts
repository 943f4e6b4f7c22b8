import { spawnSync } from "node:child_process";
import { chmodSync, cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { openEnvironment } from "../../../../node-installer/commands/context.ts";
import { main } from "../../../../node-installer/main.ts";
import type { InstallSpec } from "../../../../runtime/spec.ts";
import { adminsFile, MemoryNode } from "../../../fakes/memory-node.ts";

// The program's own entry point, on a file tree that looks like a host.
let root: string;
let node: MemoryNode;
let spec: InstallSpec;
const at = (path: string) => join(root, path);
const put = (path: string, text: string) => {
  mkdirSync(dirname(at(path)), { recursive: true });
  writeFileSync(at(path), text);
};

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), "commands-"));
  node = new MemoryNode();
  const written = node.spec([node.runtime("00000001")]);
  spec = { ...written, distribution: { name: "containerd", containerdVersion: "2.1.4" } };
  put("host/etc/containerd/config.toml", adminsFile);
});
afterEach(() => {
  rmSync(root, { recursive: true });
  node.close();
});

async function run(...args: string[]) {
  let [out, err] = ["", ""];
  const code = await main(
    args,
    (text) => {
      out += text;
    },
    (text) => {
      err += text;
    },
  );
  return { code, out, err };
}
const withSpec = (command: string, ...args: string[]) => {
  put("spec.json", JSON.stringify(spec));
  return run(command, "--spec", at("spec.json"), "--host-root", at("host"), "--payloads", node.payloads, ...args);
};

describe("plan", () => {
  test("as JSON: the files that change with their text, the bytes to copy, whether containerd restarts", async () => {
    const { code, out } = await withSpec("plan", "--json");
    expect(code).toBe(0);
    const document = JSON.parse(out);
    const [runtime] = spec.runtimes;
    const directory = `/opt/edgeless/${runtime?.handler}`;
    expect(Object.keys(document)).toEqual(["changes", "bytesToCopy", "restart"]);
    expect(document.changes.map(({ path, action }: { path: string; action: string }) => `${action} ${path}`)).toEqual([
      "edit /etc/containerd/config.toml",
      `create ${directory}/bin/containerd-shim-contrast-cc-v2`,
      `create ${directory}/etc/configuration.toml`,
      `create ${directory}/share/kata-kernel`,
    ]);
    expect(document.changes[0].content.startsWith(adminsFile)).toBe(true);
    expect(document.changes[2].content).toBe(runtime?.kataConfig.content);
    expect(document.changes[1]).not.toHaveProperty("content");
    expect(document).toMatchObject({
      restart: true,
      bytesToCopy: runtime?.files.reduce((sum, { size }) => sum + size, 0),
    });
  });

  test("as text: a diff of each text file, the other files by name, and a summary", async () => {
    const { out } = await withSpec("plan");
    expect(out).toContain("--- /etc/containerd/config.toml\n+++ /etc/containerd/config.toml\n@@ -2,3 +2,13 @@\n");
    expect(out).toContain("--- /dev/null\n");
    expect(out).toMatch(/\d+ bytes to copy; containerd restarts once\.\n$/);
  });

  test("writes nothing, and says so if there is nothing to do", async () => {
    const before = readFileSync(at("host/etc/containerd/config.toml"));
    const planned = JSON.parse((await withSpec("plan", "--json")).out);
    expect(readFileSync(at("host/etc/containerd/config.toml"))).toEqual(before);
    for (const { path, content } of planned.changes) if (content !== undefined) put(`host${path}`, content);
    const [runtime] = spec.runtimes;
    const directory = at(`host/opt/edgeless/${runtime?.handler}`);
    cpSync(join(node.payloads, "payload-00000001"), directory, { recursive: true });
    // Modes are part of a payload.
    for (const { path, mode } of runtime?.files ?? []) chmodSync(join(directory, path), Number.parseInt(mode, 8));
    const { out } = await withSpec("plan", "--json");
    expect(JSON.parse(out)).toEqual({ changes: [], bytesToCopy: 0, restart: false });
  });

  test("says where others can write, which an installation refuses, also elsewhere", async () => {
    mkdirSync(at("host/opt/edgeless"), { recursive: true });
    chmodSync(at("host/opt/edgeless"), 0o777);
    const { code, out } = await withSpec("plan");
    expect(code).toBe(0);
    expect(out).toMatch(/^refused: \/opt\/edgeless belongs to 0:0 with mode 0777, so others .*\.$/m);
    await withSpec("snapshot", "--output", at("bundle.json"));
    const elsewhere = await run("plan", "--json", "--spec", at("spec.json"), "--bundle", at("bundle.json"));
    expect(JSON.parse(elsewhere.out).untrusted).toEqual([expect.stringMatching(/^\/opt\/edgeless belongs to 0:0/)]);
  });

  test("says what stays because it is used, even if there is nothing to do", async () => {
    const [runtime] = spec.runtimes;
    const journal = { schemaVersion: 1, group: spec.group, createdDirectories: [] };
    const owned = { runtime, files: [], configured: false };
    put("host/var/lib/contrast-runtime/journal.json", JSON.stringify({ ...journal, runtimes: [owned] }));
    const shim = `host/opt/edgeless/${runtime?.handler}/bin/shim`;
    put(shim, "the shim");
    put("host/proc/7/comm", "shim\u001b[2K\n");
    symlinkSync(at(shim), at("host/proc/7/exe"));
    put("host/proc/1/comm", "systemd\n");
    // What it says of itself decides nothing.
    put("host/proc/8/cmdline", `/${shim}\0`);
    put("host/proc/8/comm", "shim\n");
    spec = { ...spec, runtimes: [] };
    const { out } = await withSpec("plan");
    expect(out).toMatch(new RegExp(`^stays: ${runtime?.handler}, used by process shim \\(7\\)\nNothing to do `));

    // The same elsewhere, from a bundle that holds nothing of a process but that there is one.
    put("host/proc/7/cmdline", "shim\0--password\0hunter2");
    await withSpec("snapshot", "--output", at("bundle.json"));
    expect(readFileSync(at("bundle.json"), "utf8")).not.toMatch(/cmdline|hunter2|shim \(7\)/);
    const elsewhere = await run("plan", "--spec", at("spec.json"), "--bundle", at("bundle.json"));
    expect(elsewhere.out).toBe(out.replace("process shim (7)", "1 process"));
  });

  test("of a node's bundle equals the node's own plan, and the bundle has no secrets", async () => {
    const secret = `${adminsFile}[plugins."io.containerd.cri.v1.images".registry.configs."r.example".auth]\n  password = "hunter2"\n`;
    put("host/etc/containerd/config.toml", secret);
    const onNode = await withSpec("plan", "--json");
    const taken = await withSpec("snapshot", "--output", at("bundle.json"));
    expect(taken).toMatchObject({ code: 0, out: "" });
    expect(readFileSync(at("bundle.json"), "utf8")).not.toContain("hunter2");
    rmSync(at("host"), { recursive: true });
    const elsewhere = await run("plan", "--json", "--spec", at("spec.json"), "--bundle", at("bundle.json"));
    expect(elsewhere.err).toBe("");
    const [there, here] = [JSON.parse(onNode.out), JSON.parse(elsewhere.out)];
    const block = (text: string) => text.slice(text.indexOf("# BEGIN contrast-runtime"));
    expect(block(here.changes[0].content)).toBe(block(there.changes[0].content));
    there.changes[0].content = here.changes[0].content;
    expect(here).toEqual(there);
  });
});

describe("malformed input: exit code 2, one sentence, no stack", () => {
  const cases: [string, (valid: InstallSpec) => unknown, RegExp][] = [
    ["an unknown key", (valid) => ({ ...valid, extra: 1 }), /extra/],
    ["a newer schema", (valid) => ({ ...valid, schemaVersion: 2 }), /schemaVersion/],
    ["a handler twice", (valid) => ({ ...valid, runtimes: [...valid.runtimes, ...valid.runtimes] }), /listed twice/],
    [
      "a payload path out of its directory",
      (valid) => change(valid, { files: [{ ...file(valid), path: "../../etc/passwd" }] }),
      /files\.0\.path/,
    ],
    [
      "a file in a file",
      (valid) => change(valid, { files: [file(valid), { ...file(valid), path: `${file(valid)?.path}/x` }] }),
      /also the folder of another file/,
    ],
    ["a payload name that is a path", (valid) => change(valid, { payload: "../host" }), /payload/],
    [
      "a shim elsewhere",
      (valid) => change(valid, { containerd: { ...valid.runtimes[0]?.containerd, runtimePath: "/usr/bin/runc" } }),
      /not below/,
    ],
    ["a short digest", (valid) => change(valid, { files: [{ ...file(valid), sha256: "abc" }] }), /SHA-256/],
    [
      "a configuration path with a line break",
      (valid) => ({ ...valid, distribution: { name: "containerd", configPath: "/etc/a\nb" } }),
      /control character/,
    ],
    [
      "a version that is none",
      (valid) => ({ ...valid, distribution: { name: "containerd", containerdVersion: "two" } }),
      /must be a version such as 1.7.24/,
    ],
    [
      "a unit that is none",
      (valid) => ({ ...valid, distribution: { name: "containerd", unit: "a.service\nExecStart=/x" } }),
      /unit/,
    ],
    ["no object", () => [], /expected object/],
  ];
  const change = (valid: InstallSpec, part: object) => ({ ...valid, runtimes: [{ ...valid.runtimes[0], ...part }] });
  const file = (valid: InstallSpec) => valid.runtimes[0]?.files[0];

  test.each(cases)("%s", async (_name, make, expected) => {
    put("spec.json", JSON.stringify(make(spec)));
    const { code, err } = await run("plan", "--spec", at("spec.json"), "--host-root", at("host"));
    expect({ code, lines: err.split("\n").length }).toEqual({ code: 2, lines: 2 });
    expect(err).toMatch(expected);
  });

  test.each([
    ["no JSON", ["plan", "--spec", "SPEC"], "{", /not JSON/],
    ["no spec", ["plan"], "{}", /--spec is missing/],
    ["a spec that is not there", ["plan", "--spec", "/no/such"], "{}", /cannot be read/],
    ["an unknown command", ["explode", "--spec", "SPEC"], "{}", /no command "explode"\. It is one of check-host, /],
    ["a misspelt command", ["instal", "--spec", "SPEC"], "{}", /no command "instal": did you mean install\?/],
    ["a misspelt option", ["plan", "--spce", "SPEC"], "{}", /Unknown option '--spce': did you mean --spec\?/],
    ["an option without its value", ["plan", "--spec"], "{}", /Option '--spec <value>' argument missing/],
    ["an option for a value", ["plan", "--spec", "--json"], "{}", /Option '--spec' argument is ambiguous/],
    ["an empty spec", ["plan", "--spec="], "{}", /--spec is missing/],
    ["another command's flag", ["plan", "--spec", "SPEC", "--deep"], "{}", /--deep is an option of verify only/],
    [
      "two commands' flag",
      ["watch", "--spec", "SPEC", "--retry"],
      "{}",
      /--retry is an option of install, uninstall only/,
    ],
    ["a command of JavaScript's own", ["toString", "--spec", "SPEC"], "{}", /no command "toString"/],
    ["an unknown option", ["plan", "--spec", "SPEC", "--force"], "{}", /--force/],
    ["a bundle to install on", ["install", "--spec", "SPEC", "--bundle", "SPEC"], "{}", /option of plan only/],
    ["no command", [], "{}", /No command/],
  ])("%s", async (_name, args, text, expected) => {
    put("spec.json", text);
    const { code, err } = await run(...args.map((arg) => (arg === "SPEC" ? at("spec.json") : arg)));
    expect(code).toBe(2);
    expect(err).toMatch(expected);
    expect(err).not.toMatch(/\n\s+at /);
  });

  test("a host root that is not there", async () => {
    put("spec.json", JSON.stringify(spec));
    expect((await run("plan", "--spec", at("spec.json"), "--host-root", at("none"))).code).toBe(2);
  });
});

describe("verify", () => {
  test("says whose files and directories are not root's, with and without --deep", async () => {
    const [runtime] = spec.runtimes;
    if (runtime === undefined) throw new Error("the spec has no runtime");
    const directory = `host/opt/edgeless/${runtime.handler}`;
    cpSync(join(node.payloads, "payload-00000001"), at(directory), { recursive: true });
    for (const { path, mode } of runtime.files) chmodSync(at(`${directory}/${path}`), Number.parseInt(mode, 8));
    const path = `/opt/edgeless/${runtime.handler}/share/kata-kernel`;
    const saysSo = async (...words: string[]) => {
      const { out } = await withSpec("verify", "--json", ...words);
      return (JSON.parse(out) as { problems: string[] }).problems.filter((problem) =>
        /kata-kernel|belongs/.test(problem),
      );
    };
    expect(await saysSo("--deep")).toEqual([]);
    chmodSync(at(`host${path}`), 0o666);
    expect(await saysSo()).toEqual([`${path} does not match the spec: installing would edit it`]);
    expect(await saysSo("--deep")).toContain(`${path} has mode 0666 instead of 0644`);
    chmodSync(at(`host${path}`), 0o644);
    chmodSync(at("host/opt/edgeless"), 0o777);
    expect(await saysSo()).toEqual([expect.stringMatching(/^\/opt\/edgeless belongs to 0:0 with mode 0777/)]);
  });
});

describe("refusals: exit code 3, nothing changed", () => {
  test.each([
    ["broken TOML", 'version = 3\n[plugins."x"\n'],
    ["an inline table where our table has to go", 'version = 3\nplugins = { "io.containerd.cri.v1.runtime" = {} }\n'],
    ["bytes instead of TOML", "\u0000\u0001"],
  ])("%s", async (_name, text) => {
    put("host/etc/containerd/config.toml", text);
    const { code, err, out } = await withSpec("plan");
    expect({ code, out }).toEqual({ code: 3, out: "" });
    expect(err.split("\n")).toHaveLength(2);
    expect(readFileSync(at("host/etc/containerd/config.toml"), "utf8")).toBe(text);
  });

  test("a configuration that is not a file", async () => {
    const config = at("host/etc/containerd/config.toml");
    for (const make of [
      () => symlinkSync("config.toml", config),
      () => mkdirSync(config),
      () => spawnSync("mkfifo", [config]),
    ]) {
      rmSync(config, { recursive: true });
      make();
      const { code, err } = await withSpec("plan");
      expect({ code, lines: err.split("\n").length }).toEqual({ code: 3, lines: 2 });
    }
  });

  test("on 1.7 an import that replaces the table with ours, already found by the plan", async () => {
    spec = { ...spec, distribution: { name: "containerd", containerdVersion: "1.7.24" } };
    const cri = '[plugins."io.containerd.grpc.v1.cri"]\nsandbox_image = "x"\n';
    put("host/etc/containerd/config.toml", `version = 2\nimports = ["/etc/containerd/conf.d/*.toml"]\n${cri}`);
    put("host/etc/containerd/conf.d/99-nvidia.toml", `version = 2\n${cri}`);
    expect(await withSpec("plan")).toMatchObject({ code: 3, err: expect.stringContaining("99-nvidia.toml") });
    await withSpec("snapshot", "--output", at("bundle.json"));
    const elsewhere = await run("plan", "--spec", at("spec.json"), "--bundle", at("bundle.json"));
    expect(elsewhere).toMatchObject({ code: 3, err: expect.stringContaining("99-nvidia.toml") });
  });

  test("a host without systemd can be planned for, but not installed on", async () => {
    const { code, err } = await withSpec("install");
    expect(code).toBe(3);
    expect(err).not.toBe("");
    expect(readFileSync(at("host/etc/containerd/config.toml"), "utf8")).toBe(adminsFile);
  });
});

test("if nothing is installed there is nothing to uninstall, whether or not containerd answers", async () => {
  expect(await withSpec("uninstall")).toMatchObject({ code: 0, err: expect.stringContaining("Nothing to do") });
});

test("uninstalling does not require of the host what the runtimes would need", async () => {
  put("spec.json", JSON.stringify(spec));
  const options = { spec: at("spec.json"), hostRoot: at("host"), payloads: node.payloads, json: false, retry: false };
  const rest = { deep: false, kubernetes: false, bundle: undefined, output: undefined, print() {}, printError() {} };
  const check = async (override?: Partial<InstallSpec>) => {
    const { environment } = await openEnvironment({ ...options, ...rest }, override);
    await environment.checkHost(await environment.daemon.locate());
  };
  await expect(check()).rejects.toThrow("This host cannot run the runtimes in the spec");
  await check({ runtimes: [] });
});

test.each([
  ["--spec", "a", "plan", "--spec", "b"],
  ["plan", "--json", "--spec", "a", "--json"],
])("%j: an option twice is a mistake, and none wins", async (...args) => {
  const twice = args.includes("--json") ? "--json" : "--spec";
  expect(await run(...args)).toEqual({
    code: 2,
    out: "",
    err: `node-installer: ${twice} is given twice. See --help.\n`,
  });
});

test("--version says the package's", async () => {
  const { version } = JSON.parse(readFileSync("package.json", "utf8"));
  expect(await run("--version")).toEqual({ code: 0, out: `${version}\n`, err: "" });
});

test("help is --help, and knows the commands", async () => {
  const help = await run("--help");
  for (const args of [["help"], ["help", "plan"], ["plan", "--help"]]) expect(await run(...args)).toEqual(help);
  expect(await run("help", "plam")).toMatchObject({
    code: 2,
    err: expect.stringMatching(/^node-installer: There is no command "plam": did you mean plan\? It is one of /),
  });
});

test("--help names every command and exit code", async () => {
  const { code, out } = await run("--help");
  expect(code).toBe(0);
  for (const word of ["check-host", "plan", "install", "verify", "uninstall", "snapshot", "watch", "Exit codes"]) {
    expect(out).toContain(word);
  }
});
