import { spawnSync } from "node:child_process";
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { parse } from "yaml";
import { canonical } from "../../../review/summary.ts";
import { type DocumentStep, document, summaryOf } from "./documents.ts";

const clone = resolve(import.meta.dirname, "../../..");

interface Step {
  env?: Record<string, string>;
  uses?: string;
  run?: string;
  name?: string;
  with?: Record<string, string>;
}
const read = (file: string) => parse(readFileSync(join(clone, file), "utf8"));
const githubSteps = (name: string): Step[] => {
  const { jobs } = read(`.github/workflows/${name}.yml`) as { jobs: Record<string, { steps: Step[] }> };
  return Object.values(jobs).flatMap(({ steps }) => steps);
};
const prepare = (read(".github/actions/prepare/action.yml") as { runs: { steps: Step[] } }).runs.steps;
const gitlab = read("examples/ci/gitlab-ci.yml") as Record<"preview" | "deploy", { script: string[] }> & {
  default: { before_script: string[] };
};

/** The commands of each job, in order, without what makes the runner ready. */
const jobs = {
  "GitHub preview": githubSteps("preview").flatMap(({ run }) => run ?? []),
  "GitHub deploy": githubSteps("deploy").flatMap(({ run }) => run ?? []),
  "GitLab preview": gitlab.preview.script,
  "GitLab deploy": gitlab.deploy.script,
};
type Job = keyof typeof jobs;

test("actions are pinned by commit, or lie in this repository", () => {
  const used = ["preview", "deploy"].flatMap(githubSteps).flatMap(({ uses }) => uses ?? []);
  expect(used.length).toBeGreaterThan(0);
  for (const action of used) expect(action).toMatch(/^(\.\/|[\w-]+\/[\w-]+@[0-9a-f]{40}$)/);
});

test("secrets are in the environment of the steps that need them, and of no others", () => {
  for (const name of ["preview", "deploy"]) {
    const { jobs: all } = read(`.github/workflows/${name}.yml`) as { jobs: Record<string, { env: object }> };
    for (const { env } of Object.values(all)) expect(JSON.stringify(env)).not.toContain("secrets.");
    for (const { env = {}, run: script = "" } of githubSteps(name)) {
      expect("PULUMI_ACCESS_TOKEN" in env).toBe(/^ *pulumi (preview|up)/m.test(script));
    }
  }
});

test("the approved form is fetched by the name it is stored under, whatever the stack is called", () => {
  const [artifact] = githubSteps("preview").flatMap((step) => step.with?.name ?? []);
  expect(artifact).toMatch(/^approved-\$\{\{ github\.event\.pull_request\.head\.sha \}\}$/);
  expect(jobs["GitHub deploy"].join("\n")).toContain('gh run download "$run" --name "approved-$head"');
});

test.each([
  ...Object.entries(jobs).map(([name, commands]) => [name, commands.join("\n")]),
  ["prepare on GitHub", prepare.map(({ run }) => run).join("\n")],
  ["prepare on GitLab", gitlab.default.before_script.join("\n")],
])("%s is a script that the shell understands", (_name, script) => {
  expect(spawnSync("bash", ["-n"], { input: script ?? "", encoding: "utf8" }).stderr).toBe("");
});

describe("run with stand-ins for the engine and the forge", () => {
  let directory: string;
  const file = (name: string) => join(directory, name);
  const stub = (name: string, script: string) => {
    writeFileSync(join(directory, "bin", name), `#!/bin/sh\necho "${name} $*" >>"${file("calls")}"\n${script}\n`);
    chmodSync(join(directory, "bin", name), 0o755);
  };
  const steps: DocumentStep[] = [{ op: "delete", type: "kubernetes:core/v1:Namespace", name: "n", before: {} }];

  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), "workflow-"));
    mkdirSync(file("bin"));
    writeFileSync(file("planned.json"), document(steps));
    writeFileSync(file("stored.json"), canonical(summaryOf(...steps)));
    stub("pulumi", `[ "$1" = up ] || cat "${file("planned.json")}"`);
    stub(
      "gh",
      `case "$1 $2" in
  "api "*) printf '%s' "$HEAD" ;;
  "run list") printf 5 ;;
  "run download") mkdir approved && cp "${file("stored.json")}" approved/approved.json ;;
esac`,
    );
    stub(
      "curl",
      `for url; do :; done
case "$url" in
  */commits/*) printf '%s' "$MERGED" ;;
  */merge_requests/7) echo '{"sha":"abc"}' ;;
  */pipelines) echo '[{"id":4,"sha":"other","status":"success"},{"id":5,"sha":"abc","status":"success"}]' ;;
  */pipelines/5/jobs) echo '[{"id":8,"name":"lint"},{"id":9,"name":"preview"}]' ;;
  */jobs/9/artifacts/approved.json) cat "${file("stored.json")}" ;;
  *) echo "no such page $url" >&2; exit 22 ;;
esac`,
    );
    // The one thing that is real; its comment goes nowhere.
    const bin = `exec ${process.execPath} ${join(clone, "tools/cli.ts")} "$@"`;
    stub("contrast-runtime", `[ "$2" != comment ] || exit 0\n${bin}`);
  });
  afterEach(() => rmSync(directory, { recursive: true }));

  function run(job: Job, env: Record<string, string> = {}) {
    // GitHub runs each step in a shell of its own, GitLab all of them in one.
    const scripts = job.startsWith("GitHub") ? jobs[job] : [jobs[job].join("\n")];
    const result = { status: 0 as number | null, stdout: "", stderr: "" };
    for (const script of scripts) {
      const { status, stdout, stderr } = spawnSync("bash", ["-eo", "pipefail", "-c", script], {
        cwd: directory,
        encoding: "utf8",
        env: {
          ...process.env,
          PATH: `${file("bin")}:${process.env.PATH}`,
          PULUMI_STACK: "production",
          GITHUB_OUTPUT: file("output"),
          GITHUB_STEP_SUMMARY: file("step-summary"),
          GITHUB_SHA: "merge",
          GH_REPO: "o/r",
          HEAD: "abc",
          CI_API_V4_URL: "https://gitlab.example.com/api/v4",
          CI_PROJECT_ID: "3",
          CI_COMMIT_SHA: "merge",
          // One of them was merged into another branch before.
          CI_COMMIT_BRANCH: "main",
          MERGED: JSON.stringify([
            { iid: 5, state: "merged", target_branch: "feature" },
            { iid: 6, state: "opened", target_branch: "main" },
            { iid: 7, state: "merged", target_branch: "main" },
          ]),
          ...env,
        },
      });
      Object.assign(result, { status, stdout: result.stdout + stdout, stderr: result.stderr + stderr });
      if (status !== 0) break;
    }
    return { ...result, calls: readFileSync(file("calls"), "utf8").split("\n") };
  }
  const updates = (calls: string[]) => calls.filter((call) => call.startsWith("pulumi up"));

  test.each(["GitHub preview", "GitLab preview"] as const)("%s stores the approved form and comments", (job) => {
    const { status, calls } = run(job);
    expect(status).toBe(0);
    expect(readFileSync(file("approved.json"), "utf8")).toBe(readFileSync(file("stored.json"), "utf8"));
    expect(readFileSync(file("summary.md"), "utf8")).toContain("Namespace `n` is deleted with everything in it.");
    expect(calls).toContain("contrast-runtime review comment --body summary.md");
    expect(updates(calls)).toEqual([]);
  });

  test.each(["GitHub deploy", "GitLab deploy"] as const)("%s updates when the preview is the approved one", (job) => {
    const { status, calls } = run(job);
    expect(status).toBe(0);
    expect(updates(calls)).toEqual(["pulumi up --stack production --refresh --yes --skip-preview"]);
  });

  test.each(["GitHub deploy", "GitLab deploy"] as const)("%s stops when it is not, and says why", (job) => {
    writeFileSync(
      file("planned.json"),
      document([...steps, { op: "delete", type: "kubernetes:core/v1:Namespace", name: "m", before: {} }]),
    );
    const { status, calls, stderr } = run(job);
    expect(status).not.toBe(0);
    expect(stderr).toContain("Not approved: delete of `Namespace` `m`.");
    expect(updates(calls)).toEqual([]);
  });

  test.each(["GitHub deploy", "GitLab deploy"] as const)(
    "%s stops when the preview failed, whatever it wrote",
    (job) => {
      stub("pulumi", `cat "${file("planned.json")}"; exit 1`);
      const { status, calls } = run(job);
      expect(status).toBe(1);
      expect(updates(calls)).toEqual([]);
    },
  );

  test.each([
    ["GitHub deploy", { HEAD: "" }],
    ["GitLab deploy", { MERGED: "[]" }],
  ] as const)("%s stops when nobody approved anything", (job, env) => {
    const { status, calls, stdout } = run(job, env);
    expect(status).not.toBe(0);
    expect(stdout).toContain("nobody approved what it does");
    expect(updates(calls)).toEqual([]);
  });
});
