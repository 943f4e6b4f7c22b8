import { spawnSync } from "node:child_process";
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { parse } from "yaml";

/* Which stacks the pipelines run for, by their own commands and git's. */

const clone = resolve(import.meta.dirname, "../../..");
const read = (file: string): unknown => parse(readFileSync(join(clone, file), "utf8"));

interface Job {
  if?: string;
  needs?: string | string[];
  strategy?: { matrix: object };
  outputs?: object;
  steps: { id?: string; run?: string; env?: Record<string, string> }[];
}
const [preview, deploy] = ["preview", "deploy"].map((name) => read(`.github/workflows/${name}.yml`)) as [
  { jobs: Record<string, Job> },
  { jobs: Record<string, Job> },
];
const gitlab = read("examples/ci/gitlab-ci.yml") as Record<"preview" | "plan" | "apply", { script: string[] }>;
const listing = (job?: Job) => job?.steps.find(({ id }) => id === "stacks");

test("pull request and merge list their stacks by the same commands, and run for those alone", () => {
  expect(listing(preview.jobs.stacks)?.run).toEqual(listing(deploy.jobs.stacks)?.run);
  expect(listing(preview.jobs.stacks)?.env?.BASE).toBe("HEAD^1");
  expect(listing(deploy.jobs.stacks)?.env?.BASE).toBe("$" + "{{ github.event.before }}");
  for (const { jobs } of [preview, deploy])
    expect(jobs.stacks?.outputs).toEqual({ stacks: "$" + "{{ steps.stacks.outputs.stacks }}" });
  for (const job of [preview.jobs.preview, deploy.jobs.plan, deploy.jobs.apply]) {
    expect([job?.needs].flat()).toContain("stacks");
    expect(job?.strategy?.matrix).toEqual({ include: "$" + "{{ fromJSON(needs.stacks.outputs.stacks) }}" });
  }
  // An empty matrix is an error; apply is skipped with its plan.
  for (const job of [preview.jobs.preview, deploy.jobs.plan])
    expect(job?.if).toBe("needs.stacks.outputs.stacks != '[]'");
});

let directory: string;
const file = (name: string) => join(directory, name);
function git(...words: string[]): void {
  const who = ["-c", "user.name=a", "-c", "user.email=a@example.com"];
  const { status, stderr } = spawnSync("git", [...who, ...words], { cwd: directory, encoding: "utf8" });
  expect(status, stderr).toBe(0);
}
function commit(files: Record<string, string>): void {
  for (const [name, text] of Object.entries(files)) {
    mkdirSync(dirname(file(name)), { recursive: true });
    writeFileSync(file(name), text);
  }
  git("add", "--", ...Object.keys(files));
  git("commit", "--quiet", "--message", "a change");
}
/** Says what it was called with; our own command is real. */
function program(name: string, script: string): void {
  writeFileSync(file(`bin/${name}`), `#!/bin/sh\necho "${name} $*" >>"${file("calls")}"\n${script}\n`);
  chmodSync(file(`bin/${name}`), 0o755);
}
function run(script: string, env: Record<string, string>) {
  const { status, stdout, stderr } = spawnSync("bash", ["-eo", "pipefail", "-c", script], {
    cwd: directory,
    encoding: "utf8",
    env: { ...process.env, PATH: `${file("bin")}:${process.env.PATH}`, GITHUB_OUTPUT: file("output"), ...env },
  });
  return { status, stdout, stderr, output: existsSync(file("output")) && readFileSync(file("output"), "utf8") };
}
const onGitHub = (stacks: string, base: string) =>
  run(listing(deploy.jobs.stacks)?.run ?? "", { PULUMI_STACKS: stacks, BASE: base });

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "stacks-"));
  mkdirSync(file("bin"));
  const ours = `${process.execPath} ${join(clone, "tools/cli/main.ts")} "$@"`;
  program("npm", "");
  program("node", `shift; exec ${ours}`);
  program("contrast-runtime", `exec ${ours}`);
  git("init", "--quiet");
  commit({ "index.ts": "", "Pulumi.production.yaml": "payload: payloads/a.json\n", "Pulumi.edge.yaml": "" });
});
afterEach(() => rmSync(directory, { recursive: true }));

test.each([
  [{ "Pulumi.edge.yaml": "a: 1\n", "docs/a": "" }, [{ stack: "edge", index: 1 }]],
  [{ "payloads/a.json": "{}" }, [{ stack: "organization/production", index: 0 }]],
  [{ "docs/a": "" }, []],
])("GitHub: of a change of %j the jobs are %j", (files, wanted) => {
  commit(files);
  const { status, stderr, output } = onGitHub('["organization/production", "edge"]', "HEAD^1");
  expect(stderr).toBe("");
  expect(status).toBe(0);
  expect(output).toBe(`stacks=${JSON.stringify(wanted)}\n`);
});

test("GitHub: all jobs run where what was before is not known, and a list that is none fails", () => {
  const { status, stderr, output } = onGitHub('["edge"]', "0".repeat(40));
  expect(stderr).toMatch(/^What changed since 0{40} is not known, so all stacks are listed: fatal: bad object .*\n$/);
  expect(status).toBe(0);
  expect(output).toBe('stacks=[{"stack":"edge","index":0}]\n');
  const wrong = onGitHub("edge", "HEAD");
  expect(wrong.status).not.toBe(0);
  expect(wrong.stderr).toBe('--stacks edge is not a list of stacks as JSON, such as ["production"].\n');
});

test("GitLab: the jobs of a stack that a change does not concern succeed, and do nothing", () => {
  commit({ "Pulumi.edge.yaml": "a: 1\n" });
  const env = { PULUMI_STACK: "production", CI_MERGE_REQUEST_DIFF_BASE_SHA: "HEAD^", CI_COMMIT_BEFORE_SHA: "HEAD^" };
  for (const stage of ["preview", "plan", "apply"] as const) {
    const { status, stdout, stderr } = run(gitlab[stage].script.join("\n"), env);
    expect(status, stderr).toBe(0);
    expect(stdout).toMatch(/^Nothing of production (changed|is planned)\.\n$/);
  }
  const calls = readFileSync(file("calls"), "utf8").trim().split("\n");
  expect(calls).toEqual(Array(2).fill(expect.stringMatching(/^contrast-runtime review stacks /)));
});
