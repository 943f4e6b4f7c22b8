import { spawnSync } from "node:child_process";
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { parse, stringify } from "yaml";

/* The steps of the workflows that write files into a repository, or compare what is there: run by bash, in a repository. */

const clone = resolve(import.meta.dirname, "../../..");
interface Workflow {
  permissions: object;
  jobs: Record<string, { permissions: object; needs?: string; steps: WorkflowStep[] }>;
}
interface WorkflowStep {
  name?: string;
  uses?: string;
  run?: string;
  env?: Record<string, string>;
  with?: Record<string, unknown>;
}
const workflow = (file: string) => parse(readFileSync(join(clone, file), "utf8")) as Workflow;
const [payloads, manifests] = [workflow(".github/workflows/payloads.yml"), workflow("examples/gitops/render.yml")];
const gitlab = parse(readFileSync(join(clone, "examples/gitops/gitlab-ci.yml"), "utf8")) as {
  manifests: { script: string[]; artifacts: { paths: string[] } };
};
const step = ({ jobs }: Workflow, name: string): string => {
  const found = Object.values(jobs)
    .flatMap(({ steps }) => steps)
    .find((each) => each.name === name)?.run;
  if (found === undefined) throw new Error(`no step "${name}"`);
  return found;
};

let directory: string;
const file = (name: string) => join(directory, name);
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "workflow-"));
  for (const name of ["bin", "payloads", "manifests"]) mkdirSync(file(name));
  expect(bash("git init --quiet . && printf 'bin\\ncalls\\n' > .git/info/exclude").status).toBe(0);
});
afterEach(() => rmSync(directory, { recursive: true }));

function bash(script: string, env: Record<string, string> = {}) {
  return spawnSync("bash", ["-eo", "pipefail", "-c", script], {
    cwd: directory,
    encoding: "utf8",
    env: { ...process.env, PATH: `${file("bin")}:${process.env.PATH}`, ...env },
  });
}
function stub(name: string, script: string) {
  writeFileSync(file(`bin/${name}`), `#!/bin/sh\necho "$*" >>"${file("calls")}"\n${script}\n`);
  chmodSync(file(`bin/${name}`), 0o755);
}
const commit = () =>
  expect(bash("git add . && git -c user.name=t -c user.email=t@example.com commit --quiet -m x").stderr).toBe("");

test("a new payload brings an image that holds it to the stacks that have one of that repository", () => {
  const image = "registry.example.com/contrast-node-installer";
  const [before, after] = [`${image}@sha256:${"a".repeat(64)}`, `${image}@sha256:${"b".repeat(64)}`];
  const others = `mirror.example.com/installer@sha256:${"a".repeat(64)}`;
  const stack = (reference: string) => `config:\n  contrast-runtime:installerImage: ${reference} # by digest\n`;
  stub("npm", `case "$*" in *--push*) echo ${after} ;; esac`);
  writeFileSync(file("payloads/old.json"), "{}");
  writeFileSync(file("Pulumi.prod.yaml"), stack(before));
  writeFileSync(file("Pulumi.other.yaml"), stack(others));
  commit();
  const env = { INSTALLER_IMAGE: image };
  const run = () => bash(step(payloads, "Build and push the image"), env);
  expect(run()).toMatchObject({ status: 0, stderr: "" });
  expect(readFileSync(file("Pulumi.prod.yaml"), "utf8")).toBe(stack(before));

  writeFileSync(file("payloads/new.json"), "{}");
  expect(run()).toMatchObject({ status: 0, stderr: "" });
  expect(readFileSync(file("Pulumi.prod.yaml"), "utf8")).toBe(stack(after));
  expect(readFileSync(file("Pulumi.other.yaml"), "utf8")).toBe(stack(others));
  // The image holds what is on the machine: every committed payload is brought there first.
  expect(readFileSync(file("calls"), "utf8").trim().split("\n")).toEqual([
    "run lock -- fetch --manifest payloads/new.json",
    "run lock -- fetch --manifest payloads/old.json",
    `run --silent image -- --push ${image}`,
  ]);
});

test("an image that cannot be built leaves the stacks as they are, and the workflow fails", () => {
  const stack = `config:\n  contrast-runtime:installerImage: r.example.com/i@sha256:${"a".repeat(64)}\n`;
  stub("npm", `case "$*" in *--push*) exit 1 ;; esac`);
  writeFileSync(file("Pulumi.prod.yaml"), stack);
  commit();
  writeFileSync(file("payloads/new.json"), "{}");
  expect(bash(step(payloads, "Build and push the image"), { INSTALLER_IMAGE: "r.example.com/i" }).status).toBe(1);
  expect(readFileSync(file("Pulumi.prod.yaml"), "utf8")).toBe(stack);
});

describe("manifests of a stack", () => {
  const stack = (payload: string) =>
    stringify({
      config: {
        "contrast-runtime:cluster": { kind: "kubeconfig", name: "prod" },
        "contrast-runtime:installerImage": `registry.example.com/i@sha256:${"a".repeat(64)}`,
        "contrast-runtime:groups": {
          snp: {
            distribution: "containerd",
            runtimes: [{ platform: "metal-qemu-snp", payload: `test/fixtures/manifests/fixture-${payload}.json` }],
          },
        },
      },
    });
  const rendering = () => bash(step(manifests, "Render"));
  const comparing = () => bash(step(manifests, "Compare"));
  const summary = () => readFileSync(file("summaries/prod.md"), "utf8");
  /** What a job leaves is gone when the next one runs. */
  const clean = () => bash("rm -rf summaries base && git worktree prune");

  beforeEach(() => {
    stub("npx", `shift\nexec ${process.execPath} ${join(clone, "tools/cli/main.ts")} "$@"`);
    stub("npm", "");
    mkdirSync(file("manifests/prod"));
    writeFileSync(file("Pulumi.prod.yaml"), stack("kata-rs"));
    writeFileSync(file(".git/info/exclude"), "bin\ncalls\nbase\nsummaries\n");
    expect(rendering()).toMatchObject({ status: 0, stderr: "" });
    commit();
  });

  test("that are not what the stack's file says fail a pull request, also by a new file", () => {
    expect(comparing().status).toBe(0);
    writeFileSync(file("Pulumi.prod.yaml"), stack("kata-go"));
    expect(rendering()).toMatchObject({ status: 0, stderr: "" });
    const { status, stdout } = comparing();
    expect(status).toBe(1);
    expect(stdout).toMatch(/new file mode .*\n.*\n--- \/dev\/null\n\+\+\+ b\/manifests\/prod\/runtimeclass-/);
  }, 300_000);

  test("have a summary of what a request changes, of the stacks that it changes alone", () => {
    const onGitHub = () => bash(step(manifests, "Summary"), { BASE: "HEAD^1", GITHUB_STEP_SUMMARY: file("calls") });
    writeFileSync(file("Pulumi.prod.yaml"), stack("kata-go"));
    expect(rendering()).toMatchObject({ status: 0, stderr: "" });
    commit();
    expect(onGitHub()).toMatchObject({ status: 0, stderr: "" });
    const text = summary();
    expect(text).toMatch(/^<!-- contrast-runtime review of prod -->\n/);
    expect(text).toMatch(/^- \*known\* — Group `snp` exchanges /m);
    expect(readFileSync(file("calls"), "utf8")).toContain(text);

    clean();
    const { status, stderr } = bash(gitlab.manifests.script.join("\n"), { CI_MERGE_REQUEST_DIFF_BASE_SHA: "HEAD^1" });
    expect(status, stderr).toBe(0);
    expect(gitlab.manifests.artifacts.paths).toEqual(["summaries/"]);
    expect(summary()).toBe(text);

    clean();
    writeFileSync(file("README.md"), "");
    commit();
    expect(onGitHub()).toMatchObject({ status: 0, stderr: "" });
    expect(readdirSync(file("summaries"))).toEqual([]);

    clean();
    expect(bash("git rm -r --quiet manifests").status).toBe(0);
    commit();
    for (const run of [rendering, comparing, onGitHub]) expect(run()).toMatchObject({ status: 0, stderr: "" });
    expect(summary()).toContain("removed manifests uninstall nothing");
  }, 300_000);
});

test("the example runs a request's code without rights, and comments with the base branch's", () => {
  expect(manifests.permissions).toEqual({});
  const { manifests: rendering, comment, ...others } = manifests.jobs;
  expect(others).toEqual({});
  expect(rendering?.permissions).toEqual({ contents: "read" });
  expect(JSON.stringify(rendering)).not.toContain("github.token");
  expect(comment).toMatchObject({ permissions: { contents: "read", "pull-requests": "write" }, needs: "manifests" });
  const checkouts = [rendering, comment].map((job) =>
    job?.steps.find(({ uses }) => /^actions\/checkout@/.test(uses ?? "")),
  );
  expect(checkouts.map((each) => each?.with?.["persist-credentials"])).toEqual([false, false]);
  expect(checkouts[1]?.with?.ref).toBe("$" + "{{ github.event.pull_request.base.sha }}");
  for (const { uses, env, run } of Object.values(manifests.jobs).flatMap(({ steps }) => steps)) {
    if (uses !== undefined) expect(uses).toMatch(/^[\w-]+\/[\w-]+@[0-9a-f]{40}$/);
    expect("GITHUB_TOKEN" in (env ?? {})).toBe(run?.includes("review comment") ?? false);
  }
});

test("each summary is the body of a comment", () => {
  stub("npx", "");
  mkdirSync(file("downloaded/summaries"), { recursive: true });
  for (const name of ["edge", "prod"]) writeFileSync(file(`downloaded/summaries/${name}.md`), "");
  expect(bash(step(manifests, "Comment"))).toMatchObject({ status: 0, stderr: "" });
  expect(readFileSync(file("calls"), "utf8").trim().split("\n")).toEqual(
    ["edge", "prod"].map((name) => `contrast-runtime review comment --body downloaded/summaries/${name}.md`),
  );
});
