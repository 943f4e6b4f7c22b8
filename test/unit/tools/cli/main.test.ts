import { execFile } from "node:child_process";
import { mkdir, mkdtemp, rm, symlink } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { main } from "../../../../tools/cli/main.ts";
import { installLauncher } from "../../../../tools/engine/launcher.ts";

const output = { out: "", err: "" };
beforeEach(() => {
  output.out = "";
  output.err = "";
  vi.spyOn(console, "log").mockImplementation((line) => {
    output.out += `${line}\n`;
  });
  vi.spyOn(console, "error").mockImplementation((line) => {
    output.err += `${line}\n`;
  });
});
afterEach(() => {
  vi.restoreAllMocks();
  vi.unstubAllEnvs();
});

describe("contrast-runtime", () => {
  test.each([
    [["rollout", "--group", "metal", "--spec-hash", "abc"], "'abc' is invalid. It must be 64 hex digits."],
    [["rollout", "--stall-timeout", "soon"], "'soon' is invalid. It must be a whole number."],
    // A script's empty variable means neither "the whole group" nor "no group".
    [["uninstall", "--group", "metal", "--nodes", ""], "'' is invalid. It names nothing."],
    [["uninstall", "--group", "--leave"], `--group has no value: "--leave" follows.`],
    [["uninstall", "--group", "a", "--nodes", "b", "--leave"], "'--nodes <a,b>' cannot be used with option '--leave'"],
    [
      ["uninstall", "--group", "a", "--nodes", "b", "--skip-nodes", "c"],
      "'--nodes <a,b>' cannot be used with option '--skip-nodes <a,b>'",
    ],
    [["review", "check", "--approved", "a"], "Give either --preview or --plan."],
    [
      ["review", "check", "--approved", "a", "--preview", "b", "--plan", "c"],
      "cannot be used with option '--plan <file>'",
    ],
    [["review", "fleet", "--bundles", "a"], "Give either --preview or --spec."],
    [["local-cluster", "ensure", "--name", "a", "--nodes", "{"], "'{' is invalid. It must be JSON: "],
    [
      ["local-cluster", "ensure", "--name", "a", "--nodes", '[{"containerd": "1.5"}]'],
      'is invalid. nodes[0].name: is missing. Expected a string. nodes[0].containerd: "1.5" is not allowed. Allowed: 1.7,',
    ],
    [["local-cluster", "ensure", "--name", "a", "--nodes", "[]"], "is invalid. nodes: [] must list at least one node."],
    [["local-cluster", "destroy", "--name", "UP"], "'--name <name>' argument 'UP' is invalid. It must be lower-case"],
    [
      ["measure", "verity", "x", "--data-block-size", "3"],
      "'3' is invalid. It must be a power of two from 512 to 65536.",
    ],
    [["measure", "snp", "--ovmf", "x", "--vcpus", "0"], "'0' is invalid. It must be from 1 to 4096."],
    [
      ["measure", "snp", "--ovmf", "x", "--vcpus", "1", "--vcpu-type", "EPYC-v9"],
      "'EPYC-v9' is invalid. Allowed choices",
    ],
    [["measure", "igvm", "x", "--igvm", "y"], "Give the IGVM file once: as a word, or by --igvm."],
  ])("%j is a usage error", async (args, message) => {
    expect(await main(args)).toBe(2);
    expect(output.err).toContain(message);
    expect(output.err).toMatch(/\nSee: contrast-runtime [a-z -]+ --help\n$/);
    expect(output.out).toBe("");
  });
  test.each(["{}", "~/.kube/config"])(
    "an invalid kubeconfig (%s) is reported in one sentence, without a stack",
    async (content) => {
      vi.stubEnv("KUBECONFIG_CONTENT", content);
      expect(await main(["status"])).toBe(4);
      expect(output.err).toMatch(/^KUBECONFIG_CONTENT lists no cluster: .*\n$/);
    },
  );
  test("what a kubeconfig that is no YAML holds is not printed", async () => {
    vi.stubEnv("KUBECONFIG_CONTENT", 'users:\n- token: "hush\n  x: y: z\n');
    expect(await main(["status"])).toBe(4);
    expect(output.err).toMatch(/^KUBECONFIG_CONTENT cannot be read: .*\.\n$/);
    expect(output.err).not.toContain("hush");
  });
  test.each([
    [["uninstall", "--group", "metal"], /^The API server cannot be queried: .*\. Nothing was changed\.\n$/],
    [
      ["review", "collect", "--output", "/nowhere"],
      /^The API server cannot be queried: connect ECONNREFUSED [^ ]*\.\n$/,
    ],
  ])("%j: an API server that cannot be queried is reported in one sentence", async (args, sentence) => {
    const cluster = { name: "c", cluster: { server: "https://127.0.0.1:1" } };
    const context = { name: "c", context: { cluster: "c", user: "u" } };
    const kubeconfig = { clusters: [cluster], contexts: [context], users: [{ name: "u" }], "current-context": "c" };
    vi.stubEnv("KUBECONFIG_CONTENT", JSON.stringify(kubeconfig));
    expect(await main(args)).toBe(4);
    expect(output.err).toMatch(sentence);
  });
});

test("output that cannot be written makes the command fail, and a reader that goes away does not", async () => {
  const bin = resolve("tools/cli/bin.mjs");
  const shell = (script: string) =>
    new Promise<{ code: number | null; stderr: string }>((done) => {
      const child = execFile("bash", ["-o", "pipefail", "-c", script, "bash", process.execPath, bin], (_, __, stderr) =>
        done({ code: child.exitCode, stderr }),
      );
    });
  expect(await shell('"$1" "$2" measure --help >/dev/full')).toEqual({
    code: 1,
    stderr: "The output cannot be written: no space left on device. What is there of it is not whole.\n",
  });
  expect(await shell('"$1" "$2" completion bash | true')).toEqual({ code: 0, stderr: "" });
});

test("the launcher runs the clone's sources with the pinned Node, whatever the folder is called", async () => {
  const directory = await mkdtemp(join(tmpdir(), "it's a clone "));
  try {
    for (const part of [
      "tools",
      "components",
      "node-installer",
      "runtime",
      "measure",
      "workload",
      "node_modules",
      "package.json",
    ]) {
      await symlink(resolve(part), join(directory, part));
    }
    await mkdir(join(directory, "elsewhere"));
    const file = await installLauncher(directory);
    const run = () =>
      new Promise<string>((resolve, reject) =>
        execFile(file, ["--help"], { cwd: join(directory, "elsewhere"), env: {} }, (error, stdout) =>
          error === null ? resolve(stdout) : reject(error),
        ),
      );
    expect(await run()).toContain("Usage: contrast-runtime ");
    expect(await installLauncher(directory)).toBe(file);
  } finally {
    await rm(directory, { recursive: true });
  }
});
