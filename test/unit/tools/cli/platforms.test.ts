import { execFile } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { header } from "../../../../tools/render/directory.ts";
import { document } from "../../review/documents.ts";
import { root } from "./command-lines.ts";

/*
 * The real commands, each on every platform. The platform is a fake: Node says that it is another one, while the machine
 * stays Linux. So this finds what a command itself decides by platform, and what it wants of a user's number; not what a
 * file system or a shell does. The rows are those of docs/platforms.md.
 */

const clone = join(import.meta.dirname, "..", "..", "..", "..");
const fake = join(clone, "test", "fakes", "platform.cjs");
const platforms = {
  "Linux x86-64": "linux/x64",
  macOS: "darwin/arm64",
  Windows: "win32/x64",
  "Linux arm64": "linux/arm64",
};
type Platform = keyof typeof platforms;

let directory: string;
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "platforms-"));
  await writeFile(join(directory, "preview.json"), document([]));
  await writeFile(
    join(directory, "policy.rego"),
    "package agent_policy\ndefault AllowRequestsFailingPolicy := false\n",
  );
  await writeFile(join(directory, "data"), Buffer.alloc(8192, 7));
  await mkdir(join(directory, "bundles"));
  const object = { apiVersion: "v1", kind: "Namespace", metadata: { name: "one" } };
  await mkdir(join(directory, "manifests"));
  for (const [name, content] of Object.entries({
    "kustomization.yaml": { ...header, resources: ["one.yaml"] },
    "one.yaml": object,
    "components.json": { schemaVersion: 1, stack: "prod", components: {} },
  }))
    await writeFile(join(directory, "manifests", name), JSON.stringify(content));
  const container = {
    name: "web",
    image: `127.0.0.1:1/web@sha256:${digest}`,
    resources: { limits: { memory: "1Gi" } },
  };
  const pod = { apiVersion: "v1", kind: "Pod", metadata: { name: "web" }, spec: { containers: [container] } };
  await writeFile(join(directory, "pod.yaml"), JSON.stringify(pod));
});
afterAll(() => rm(directory, { recursive: true }));

interface Ran {
  code: number;
  stdout: string;
  stderr: string;
}

function run(platform: Platform, words: string[], more: NodeJS.ProcessEnv = {}): Promise<Ran> {
  const env = {
    ...process.env,
    FAKE_PLATFORM: platforms[platform],
    KUBECONFIG: join(directory, "none"),
    XDG_CACHE_HOME: join(directory, `cache-${platforms[platform].replace("/", "-")}`),
    NODE_COMPILE_CACHE: join(directory, "compile-cache"),
    ...more,
  };
  const all = ["--require", fake, join(clone, "tools/cli/bin.mjs"), ...words];
  return new Promise((resolve) => {
    const child = execFile(process.execPath, all, { env, cwd: clone }, (_, stdout, stderr) =>
      resolve({ code: child.exitCode ?? -1, stdout, stderr }),
    );
  });
}

const digest = "0".repeat(64);
/** Without a cluster, each says so, with the same sentence everywhere. */
const noCluster = {
  code: 4,
  stdout: "",
  stderr: expect.stringMatching(/^The kubeconfig \S+ cannot be read: no such file or directory\.$/m),
};

/** By row of the table: words, and what is expected where it works. `DIRECTORY` stands for the test's own. */
const rows: Record<string, { words: string[]; works: object; refused?: RegExp }> = {
  "contrast-runtime --version": {
    words: ["--version"],
    works: { code: 0, stdout: expect.stringMatching(/^\d+\.\d+/) },
  },
  completion: { words: ["completion", "bash"], works: { code: 0, stdout: expect.stringContaining("complete ") } },
  render: {
    words: ["render", "--stack", "examples/Pulumi.runtime-settings.yaml", "--output", "DIRECTORY/rendered"],
    works: { code: 0 },
  },
  "review summary": {
    words: ["review", "summary", "--preview", "DIRECTORY/preview.json"],
    works: { code: 0, stdout: expect.stringContaining("#") },
  },
  "review rendered": {
    words: ["review", "rendered", "--before", "DIRECTORY/bundles", "--after", "DIRECTORY/manifests"],
    works: { code: 0, stdout: expect.stringContaining("Namespace `one` is new") },
  },
  "review check": {
    words: ["review", "check", "--approved", "DIRECTORY/none", "--preview", "DIRECTORY/preview.json"],
    works: { code: 1, stderr: expect.stringContaining("none cannot be read: no such file or directory") },
  },
  "review collect": { words: ["review", "collect", "--output", "DIRECTORY/collected"], works: noCluster },
  "review comment": {
    words: ["review", "comment", "--body", "DIRECTORY/none"],
    works: { code: 1, stderr: expect.stringContaining("none cannot be read: no such file or directory") },
  },
  "review fleet": {
    words: ["review", "fleet", "--bundles", "DIRECTORY/bundles", "--spec", "test/golden/specs/metal-snp.json"],
    works: { code: 0, stdout: expect.stringContaining("0 nodes") },
  },
  "review stacks": {
    words: ["review", "stacks", "--stacks", '["dev"]', "--base", "HEAD"],
    works: { code: 0, stdout: '[{"stack":"dev","index":0}]\n' },
  },
  "measure initdata": {
    words: ["measure", "initdata", "--policy", "DIRECTORY/policy.rego"],
    works: { code: 0, stdout: expect.stringMatching(/[0-9a-f]{64}/) },
  },
  "measure verity": {
    words: ["measure", "verity", "DIRECTORY/data"],
    works: { code: 0, stdout: expect.stringMatching(/[0-9a-f]{64}/) },
  },
  lock: {
    words: [
      ...["lock", "kata-release", "--platform", "metal-qemu-snp", "--kata-version", "4.1.0"],
      ...["--mirror", "http://127.0.0.1:1"],
    ],
    works: { code: 1, stderr: expect.stringMatching(/127\.0\.0\.1:1\/.* cannot be downloaded: connect ECONNREFUSED/) },
  },
  image: {
    words: ["image", "--payload", "none"],
    works: { code: 1, stderr: expect.stringContaining("no payload none") },
  },
  "image push": {
    words: ["image", "push", "--layout", "none", "--registry", "127.0.0.1:1", "--repository", "x"],
    works: { code: 1, stderr: expect.stringContaining("There is no image at none.") },
  },
  workload: {
    words: ["workload", "--stack", "examples/Pulumi.metal-qemu-snp.yaml", "DIRECTORY/pod.yaml"],
    works: { code: 1, stderr: expect.stringMatching(/web@sha256:0{64}" cannot be read: .*ECONNREFUSED/) },
  },
  "await-host": {
    words: ["await-host", "--address", "127.0.0.1", "--port", "1", "--seconds", "1"],
    works: { code: 1, stderr: expect.stringMatching(/^The SSH server of 127\.0\.0\.1:1 has not answered for 1 s/) },
  },
  status: { words: ["status"], works: noCluster },
  verify: { words: ["verify"], works: noCluster },
  support: { words: ["support", "--output", "DIRECTORY/support.tar.gz"], works: noCluster },
  rollout: { words: ["rollout", "--group", "a", "--spec-hash", digest], works: noCluster },
  uninstall: { words: ["uninstall", "--group", "a"], works: noCluster },
  "local-cluster": {
    words: ["local-cluster", "status", "--name", "none-such"],
    works: {},
    refused:
      /^A local cluster needs Linux on x86-64; this machine runs (darwin|win32|linux) on (arm64|x64)\. Everything else/,
  },
};

/** The cells of docs/platforms.md, by the name in the first column. */
function documented(): Record<string, string[]> {
  const text = readFileSync(join(clone, "docs", "platforms.md"), "utf8");
  const cells = (line: string) =>
    line
      .split("|")
      .slice(1, -1)
      .map((cell) => cell.trim());
  const lines = text.split("\n").filter((line) => line.startsWith("| `"));
  return Object.fromEntries(lines.map(cells).map(([name = "", ...others]) => [name.replaceAll("`", ""), others]));
}

test("the table in docs/platforms.md has these commands, and these platforms", () => {
  const heading = readFileSync(join(clone, "docs", "platforms.md"), "utf8").match(/^\| command \|.*$/m)?.[0];
  expect(heading).toBe(`| command | ${Object.keys(platforms).join(" | ")} |`);
  expect(Object.keys(documented()).filter((name) => !name.startsWith("npm "))).toEqual(Object.keys(rows));
});

test("each verb is in the table", () => {
  const named = new Set(Object.values(rows).map(({ words: [verb] }) => verb));
  expect(root.commands.map((verb) => verb.name()).filter((name) => !named.has(name))).toEqual([]);
});

describe.each(Object.keys(platforms) as Platform[])("%s:", (platform) => {
  const column = Object.keys(platforms).indexOf(platform);

  test.each(Object.keys(rows))("%s", { timeout: 300_000 }, async (name) => {
    const { words, works, refused } = rows[name] ?? { words: [], works: {} };
    const here = refused === undefined || platform === "Linux x86-64";
    const ran = await run(
      platform,
      words.map((word) => word.replace("DIRECTORY", directory)),
    );
    if (here) expect(ran).toMatchObject(works);
    else expect([ran.code, ran.stderr.trim()]).toEqual([1, expect.stringMatching(refused)]);
    // A mistake of ours would have a stack.
    expect(ran.stderr).not.toMatch(/\n {4}at /);
    expect(documented()[name]?.[column]).toBe(here ? "works" : "refused");
    if (name !== "render") return;
    const rendered = join(directory, "rendered");
    const files = (await readdir(rendered, { recursive: true })).sort();
    const text = await Promise.all(files.map((file) => readFile(join(rendered, file), "utf8").catch(() => "")));
    first ??= [files, text];
    expect([files, text]).toEqual(first);
    await rm(rendered, { recursive: true });
  });
});
/** What the first platform rendered: the others must render the same. */
let first: [string[], string[]] | undefined;

test("npm ci passes everywhere: a package that is bound to a platform is one that npm may leave out", () => {
  const { packages } = JSON.parse(readFileSync(join(clone, "package-lock.json"), "utf8")) as {
    packages: Record<string, { os?: unknown; cpu?: unknown; libc?: unknown; optional?: boolean; peer?: boolean }>;
  };
  const bound = Object.entries(packages).filter(([, { os, cpu, libc }]) => os ?? cpu ?? libc);
  expect(bound.length).toBeGreaterThan(10);
  expect(bound.filter(([, { optional }]) => !optional).map(([path]) => path)).toEqual([]);
  expect(existsSync(join(clone, ".npmrc"))).toBe(true);
});
