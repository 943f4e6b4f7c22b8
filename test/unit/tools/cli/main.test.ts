import { execFile } from "node:child_process";
import { mkdir, mkdtemp, rm, symlink } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { main } from "../../../../tools/cli/main.ts";
import { installLauncher } from "../../../../tools/dev/launcher.ts";

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
  test("without a verb shows the verbs and fails; with --help it does not fail", async () => {
    expect(await main([])).toBe(2);
    expect(output.err).toContain("Usage: contrast-runtime VERB");
    expect(await main(["--help"])).toBe(0);
    expect(output.out).toContain("rollout ");
  });
  test.each([
    ["rolout", `There is no verb "rolout"; did you mean "rollout"?`],
    ["status-all-of-them", `There is no verb "status-all-of-them".`],
    ["constructor", `There is no verb "constructor".`],
  ])("guesses what an unknown verb %s was meant to be", async (verb, message) => {
    expect(await main([verb])).toBe(2);
    expect(output.err).toContain(message);
  });
  test.each([
    [["rollout", "--group", "metal"], "--spec-hash is missing."],
    [["rollout", "--group", "metal", "--spec-hash", "abc"], `--spec-hash "abc" must be 64 hex digits.`],
    [
      ["rollout", "--stall-timeout", "soon", "--group", "a", "--spec-hash", "0".repeat(64)],
      `--stall-timeout "soon" must be a whole number.`,
    ],
    [["uninstall"], "--group is missing."],
    [["uninstall", "--grupp", "metal"], "'--grupp'"],
  ])("%j is a usage error", async (args, message) => {
    expect(await main(args)).toBe(2);
    expect(output.err).toContain(message);
    expect(output.err).toContain("Usage: contrast-runtime");
  });
  test.each(["{}", "~/.kube/config"])(
    "an invalid kubeconfig (%s) is reported in one sentence, without a stack",
    async (content) => {
      vi.stubEnv("KUBECONFIG_CONTENT", content);
      expect(await main(["status"])).toBe(4);
      expect(output.err).toMatch(/^KUBECONFIG_CONTENT lists no cluster: .*\n$/);
    },
  );
  test("an API server that cannot be queried is reported in one sentence, and nothing is uninstalled", async () => {
    const cluster = { name: "c", cluster: { server: "https://127.0.0.1:1" } };
    const context = { name: "c", context: { cluster: "c", user: "u" } };
    const kubeconfig = { clusters: [cluster], contexts: [context], users: [{ name: "u" }], "current-context": "c" };
    vi.stubEnv("KUBECONFIG_CONTENT", JSON.stringify(kubeconfig));
    expect(await main(["uninstall", "--group", "metal"])).toBe(4);
    expect(output.err).toMatch(/^The API server cannot be queried: .*\. Nothing was changed\.\n$/);
  });
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
    expect(await run()).toContain("Usage: contrast-runtime VERB");
    expect(await installLauncher(directory)).toBe(file);
  } finally {
    await rm(directory, { recursive: true });
  }
});
