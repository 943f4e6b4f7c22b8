import { spawnSync } from "node:child_process";
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { parse } from "yaml";
import { canonical } from "../../../review/approval/form.ts";
import { sha256 } from "../../../runtime/canonical.ts";
import { type DocumentStep, document, summaryOf } from "./documents.ts";

const clone = resolve(import.meta.dirname, "../../..");

interface Step {
  env?: Record<string, string>;
  uses?: string;
  run?: string;
  name?: string;
  with?: Record<string, unknown>;
}
interface Job {
  environment?: string;
  permissions?: Record<string, string>;
  env?: Record<string, string>;
  needs?: string | string[];
  steps: Step[];
}
interface Workflow {
  on: unknown;
  permissions: object;
  concurrency: object;
  jobs: Record<string, Job>;
}
const text = (file: string) => readFileSync(join(clone, file), "utf8");
const workflow = (name: string) => parse(text(`.github/workflows/${name}.yml`)) as Workflow;
const [preview, deploy, ofTests] = [workflow("preview"), workflow("deploy"), workflow("test")];
/** Those above and whatever else is there. */
const workflows = readdirSync(join(clone, ".github/workflows")).map((file) => workflow(file.replace(/\.yml$/, "")));
const allJobs = workflows.flatMap(({ jobs }) => Object.values(jobs));
const prepare = (parse(text(".github/actions/prepare/action.yml")) as { runs: { steps: Step[] } }).runs.steps;
interface GitLabJob {
  script: string[];
  environment: { name: string };
  rules: { if: string; when?: string }[];
  needs?: string[];
}
const gitlab = parse(text("examples/ci/gitlab-ci.yml")) as Record<"preview" | "plan" | "apply", GitLabJob> & {
  default: { before_script: string[] };
  variables: Record<string, string>;
};

const githubJobs: Record<string, Job> = { ...preview.jobs, ...deploy.jobs };
const scriptOf = (job: string) => githubJobs[job]?.steps.flatMap(({ run }) => run ?? []) ?? [];
/** The commands of each job, in order, without what makes the runner ready. */
const jobs = {
  "GitHub stacks": scriptOf("stacks"),
  "GitHub preview": scriptOf("preview"),
  "GitHub comment": scriptOf("comment"),
  "GitHub plan": scriptOf("plan"),
  "GitHub apply": scriptOf("apply"),
  "GitLab preview": gitlab.preview.script,
  "GitLab plan": gitlab.plan.script,
  "GitLab apply": gitlab.apply.script,
};
type JobName = keyof typeof jobs;
const scripts: [string, string][] = [
  ...Object.entries(jobs).map(([name, commands]): [string, string] => [name, commands.join("\n")]),
  ["prepare on GitHub", prepare.map(({ run }) => run).join("\n")],
  ["prepare on GitLab", gitlab.default.before_script.join("\n")],
];

test("actions are pinned by commit, or lie in this repository", () => {
  const used = allJobs.flatMap(({ steps }) => steps.flatMap(({ uses }) => uses ?? []));
  expect(used.length).toBeGreaterThan(0);
  for (const action of used) expect(action).toMatch(/^(\.\/|[\w-]+\/[\w-]+@[0-9a-f]{40}$)/);
});

test("each job has the permissions that it needs, and workflows have none", () => {
  for (const { permissions } of workflows) expect(permissions).toEqual({});
  const permissions = Object.fromEntries(Object.entries(githubJobs).map(([name, job]) => [name, job.permissions]));
  expect(permissions).toEqual({
    stacks: { contents: "read" },
    preview: { contents: "read", "id-token": "write" },
    comment: { contents: "read", "pull-requests": "write" },
    plan: { actions: "read", contents: "read", "pull-requests": "read", "id-token": "write" },
    apply: { actions: "read", contents: "read", "pull-requests": "read", "id-token": "write" },
  });
});

test("each stage has an environment of its own, and only there are secrets", () => {
  const environments = Object.fromEntries(Object.entries(githubJobs).map(([name, job]) => [name, job.environment]));
  const stack = "$" + "{{ matrix.stack }}";
  expect(environments).toEqual({
    stacks: undefined,
    preview: `preview-${stack}`,
    comment: undefined,
    plan: `plan-${stack}`,
    apply: `deploy-${stack}`,
  });
  for (const job of Object.values(githubJobs)) {
    const inSteps = JSON.stringify(job.steps).includes("secrets.");
    expect(inSteps).toBe(job.environment !== undefined);
  }
  expect([gitlab.preview, gitlab.plan, gitlab.apply].map((job) => job.environment.name)).toEqual([
    "preview/$PULUMI_STACK",
    "plan/$PULUMI_STACK",
    "deploy/$PULUMI_STACK",
  ]);
});

test("secrets and tokens are in the environment of the steps that need them, and of no others", () => {
  for (const job of Object.values(githubJobs)) {
    expect(JSON.stringify(job.env ?? {})).not.toMatch(/secrets\.|github\.token/);
    for (const { env = {}, run: script = "", uses } of job.steps) {
      expect("PULUMI_ACCESS_TOKEN" in env).toBe(/^ *pulumi (preview|up)/m.test(script));
      expect("GITHUB_TOKEN" in env).toBe(/review (comment|approval|release)/.test(script));
      if (uses !== undefined) expect(env).toEqual({});
    }
  }
});

test("no token is where the program of a pull request runs", () => {
  expect(JSON.stringify(preview.jobs.preview)).not.toContain("github.token");
  expect(JSON.stringify(gitlab.preview)).not.toContain("TOKEN");
  const checkout = preview.jobs.comment?.steps.find(({ uses }) => uses?.startsWith("actions/checkout@"));
  expect(checkout?.with?.ref).toBe("$" + "{{ github.event.pull_request.base.sha }}");
  expect(jobs["GitHub comment"].join("\n")).not.toContain("pulumi");
});

test("no checkout leaves its token behind", () => {
  const checkouts = allJobs.flatMap(({ steps }) => steps.filter(({ uses }) => uses?.startsWith("actions/checkout@")));
  expect(checkouts).toHaveLength(11);
  for (const step of checkouts) expect(step.with?.["persist-credentials"]).toBe(false);
});

test("what a change must pass runs for everybody: without secrets, with the right to read alone", () => {
  expect(ofTests.on).toEqual({ pull_request: null, push: { branches: ["main"] } });
  for (const job of Object.values(ofTests.jobs)) {
    expect(job.permissions).toEqual({ contents: "read" });
    expect(job).not.toHaveProperty("environment");
    expect(JSON.stringify(job)).not.toMatch(/secrets\.|github\.token/);
  }
  expect(Object.values(ofTests.jobs).map(({ steps }) => steps.flatMap(({ run }) => run ?? []))).toEqual([
    ["npm ci", "npm run lint", "npm run test:unit", expect.stringContaining("cli render --stack examples/")],
    ['sudo env "PATH=$PATH" npm test'],
  ]);
});

test("the commands that real runners of all platforms are given work, and fail the step where one does not", () => {
  const script = ofTests.jobs.checks?.steps.at(-1)?.run;
  const copy = mkdtempSync(join(tmpdir(), "commands-"));
  try {
    // As on a runner: a clone with its packages, and another directory for what is temporary.
    const clean = spawnSync("git", ["ls-files", "-z"], { cwd: clone, encoding: "utf8" }).stdout.split("\0");
    for (const file of clean.filter((file) => file !== "" && existsSync(join(clone, file))))
      cpSync(join(clone, file), join(copy, "clone", file));
    symlinkSync(join(clone, "node_modules"), join(copy, "clone", "node_modules"));
    const env = { ...process.env, RUNNER_TEMP: copy, RUNNER_OS: "Linux", RUNNER_ARCH: "X64" };
    const bash = ["--noprofile", "--norc", "-eo", "pipefail", "-c"];
    const run = (text = "") => spawnSync("bash", [...bash, text], { cwd: join(copy, "clone"), env, encoding: "utf8" });
    const { status, stdout, stderr } = run(script);
    expect(status, stdout + stderr).toBe(0);
    expect(stdout).toContain("Locked small: 1 files");
    expect(run(script?.replace("measure verity package-lock.json", "measure verity none")).status).not.toBe(0);
  } finally {
    rmSync(copy, { recursive: true });
  }
}, 600_000);

test("nothing that somebody else chose is pasted into a script", () => {
  for (const [name, script] of scripts) expect(script, name).not.toContain("$" + "{{");
});

test("what is downloaded and run is checked, and nothing else is downloaded", () => {
  for (const [name, script] of scripts) expect(script, name).not.toMatch(/\b(curl|wget)\b|get\.pulumi\.com/);
  expect(scripts.filter(([, script]) => script.includes("npm run --silent engine")).map(([name]) => name)).toEqual([
    "prepare on GitHub",
    "prepare on GitLab",
  ]);
  const off = "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION";
  for (const name of ["preview", "plan", "apply"]) expect(githubJobs[name]?.env?.[off]).toBe("true");
  expect(gitlab.variables[off]).toBe("true");
});

test("policies are asked in every preview and update, and every update is by a plan", () => {
  const commands = scripts.flatMap(([, script]) => script.match(/^ *pulumi (?:preview|up) .*$/gm) ?? []);
  expect(commands).toHaveLength(6);
  for (const command of commands) expect(command).toContain("--policy-pack review/policies");
  const updates = commands.filter((command) => command.includes("pulumi up"));
  expect(updates).toHaveLength(2);
  for (const update of updates) expect(update).toMatch(/ --plan "?\S*plan\.json"? /);
  const plans = commands.filter((command) => command.includes("--save-plan"));
  expect(plans).toHaveLength(2);
});

test("an update comes from the protected branch, after its plan, when somebody let it go on", () => {
  expect(deploy.on).toEqual({ push: { branches: ["main"] } });
  expect(deploy.jobs.apply?.needs).toContain("plan");
  expect(deploy.concurrency).toEqual({ group: "deploy", "cancel-in-progress": false });
  expect(gitlab.apply).toMatchObject({ needs: ["plan"], rules: [{ when: "manual" }] });
  for (const job of [gitlab.plan, gitlab.apply])
    expect(job.rules[0]?.if).toBe("$CI_COMMIT_BRANCH == $CI_DEFAULT_BRANCH");
  expect(preview.on).toBe("pull_request");
});

test("the approved form is looked up under the name it is stored under, whatever the stack is called", () => {
  const names = preview.jobs.preview?.steps.flatMap((step) => (step.with?.name as string | undefined) ?? []);
  const name = "approved-$" + "{{ matrix.index }}";
  expect(names).toContain(name);
  expect(deploy.jobs.plan?.steps.flatMap(({ env }) => env?.STORED ?? [])).toEqual([name]);
});

test.each(scripts)("%s is a script that the shell understands", (_name, script) => {
  expect(spawnSync("bash", ["-n"], { input: script, encoding: "utf8" }).stderr).toBe("");
});

describe("run with stand-ins for the engine and the forge", () => {
  let directory: string;
  const file = (name: string) => join(directory, name);
  const stub = (name: string, script: string) => {
    writeFileSync(join(directory, "bin", name), `#!/bin/sh\necho "${name} $*" >>"${file("calls")}"\n${script}\n`);
    chmodSync(join(directory, "bin", name), 0o755);
  };
  const steps: DocumentStep[] = [{ op: "delete", type: "kubernetes:core/v1:Namespace", name: "n", before: {} }];

  const [pullRequest, merged] = ["a".repeat(40), "f".repeat(40)];
  const approvedForm = (...planned: DocumentStep[]) =>
    canonical(summaryOf(...planned), { request: 7, commit: pullRequest, run: "50", attempt: "1" });

  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), "workflow-"));
    mkdirSync(file("bin"));
    writeFileSync(file("planned-steps.json"), document(steps));
    writeFileSync(file("stored.json"), approvedForm(...steps));
    writeFileSync(file("event.json"), JSON.stringify({ pull_request: { number: 7, head: { sha: pullRequest } } }));
    stub(
      "pulumi",
      `[ "$1" = up ] && exit 0
while [ $# -gt 0 ]; do [ "$1" = --save-plan ] && echo '{"plan":1}' > "$2"; shift; done
cat "${file("planned-steps.json")}"`,
    );
    // The one thing that is real; what asks a forge does here what the tests of approvals show that it does.
    const bin = `exec ${process.execPath} ${join(clone, "tools/cli/main.ts")} "$@"`;
    stub(
      "contrast-runtime",
      `case "$2" in
  comment | stacks) echo some ;;
  approval) [ -z "$REFUSED" ] || exit 1; while [ "$1" != --form ]; do shift; done; cp "${file("stored.json")}" "$2" ;;
  release) exit "\${UNRELEASED:-0}" ;;
  *) ${bin} ;;
esac`,
    );
  });
  afterEach(() => rmSync(directory, { recursive: true }));

  function run(job: JobName, env: Record<string, string> = {}) {
    const [forge, stage] = job.split(" ");
    // GitHub runs each step in a shell of its own, GitLab all of them in one.
    const parts = forge === "GitHub" ? jobs[job] : [jobs[job].join("\n")];
    const result = { status: 0 as number | null, stdout: "", stderr: "" };
    for (const script of parts) {
      // Runs only if an earlier step failed.
      if (script === "exit 1") continue;
      const { status, stdout, stderr } = spawnSync("bash", ["-eo", "pipefail", "-c", script], {
        cwd: directory,
        encoding: "utf8",
        env: {
          ...process.env,
          PATH: `${file("bin")}:${process.env.PATH}`,
          PULUMI_STACK: "production",
          ...(forge === "GitHub"
            ? {
                GITHUB_ACTIONS: "true",
                GITHUB_SHA: merged,
                GITHUB_RUN_ID: stage === "preview" ? "50" : "60",
                GITHUB_RUN_ATTEMPT: "1",
                GITHUB_OUTPUT: file("output"),
                GITHUB_STEP_SUMMARY: file("step-summary"),
                ...(stage === "preview" && { GITHUB_EVENT_PATH: file("event.json") }),
                KUBECONFIG: file("kubeconfig"),
                STORED: "approved-0",
                RELEASED: "deploy-production",
              }
            : {
                GITLAB_CI: "true",
                CI_COMMIT_SHA: stage === "preview" ? pullRequest : merged,
                ...(stage === "preview" && { CI_MERGE_REQUEST_IID: "7" }),
                CI_PIPELINE_ID: stage === "preview" ? "50" : "60",
                CI_JOB_ID: "1",
              }),
          ...env,
        },
      });
      Object.assign(result, { status, stdout: result.stdout + stdout, stderr: result.stderr + stderr });
      if (status !== 0) break;
    }
    return { ...result, calls: readFileSync(file("calls"), "utf8").split("\n") };
  }
  const updates = (calls: string[]) => calls.filter((call) => call.startsWith("pulumi up"));
  const stored = { GitHub: "", GitLab: "stacks/production/" };

  test.each(["GitHub", "GitLab"] as const)(
    "%s: a preview stores the form and its summary, and changes nothing",
    (forge) => {
      const { status, stderr, calls } = run(`${forge} preview`);
      expect(stderr).toBe("");
      expect(status).toBe(0);
      expect(readFileSync(file(`${stored[forge]}approved.json`), "utf8")).toBe(approvedForm(...steps));
      const summary = readFileSync(file(`${stored[forge]}summary.md`), "utf8");
      expect(summary).toContain("Namespace `n` is deleted with everything in it.");
      expect(summary).toContain(`Of commit ${pullRequest}, by run 50`);
      expect(updates(calls)).toEqual([]);
    },
  );

  test("GitHub: the summaries of all stacks become comments", () => {
    for (const index of [0, 1]) {
      mkdirSync(file(`summaries/summary-${index}`), { recursive: true });
      writeFileSync(file(`summaries/summary-${index}/summary.md`), "<!-- marker -->");
    }
    stub("npm", "exit 0");
    stub("node", "exit 0");
    const { status, calls } = run("GitHub comment");
    expect(status).toBe(0);
    expect(calls.filter((call) => call.startsWith("node "))).toEqual([
      "node tools/cli/bin.mjs review comment --body summaries/summary-0/summary.md",
      "node tools/cli/bin.mjs review comment --body summaries/summary-1/summary.md",
    ]);
  });

  test.each(["GitHub", "GitLab"] as const)("%s: what was approved is planned, shown and run", (forge) => {
    const plan = run(`${forge} plan`);
    expect(plan.stderr).toBe("");
    expect(plan.status).toBe(0);
    expect(updates(plan.calls)).toEqual([]);
    const shown = forge === "GitHub" ? readFileSync(file("step-summary"), "utf8") : plan.stdout;
    expect(shown).toContain("Namespace `n` is deleted with everything in it.");
    const form = JSON.parse(readFileSync(file(`${stored[forge]}planned.json`), "utf8"));
    const digest = sha256(readFileSync(file(`${stored[forge]}plan.json`)));
    expect(form.source).toEqual({ request: 7, commit: merged, run: "60", attempt: "1", plan: digest });
    const apply = run(`${forge} apply`);
    expect(apply.stderr).toBe("");
    expect(apply.status).toBe(0);
    expect(updates(apply.calls)).toEqual([
      `pulumi up --stack production --refresh --policy-pack review/policies --plan ${stored[forge]}plan.json --yes --skip-preview`,
    ]);
  });

  test.each(["GitHub", "GitLab"] as const)("%s: a plan that is not what was approved stops, and says why", (forge) => {
    writeFileSync(
      file("planned-steps.json"),
      document([...steps, { op: "delete", type: "kubernetes:core/v1:Namespace", name: "m", before: {} }]),
    );
    const { status, stderr } = run(`${forge} plan`);
    expect(status).not.toBe(0);
    expect(stderr).toContain("Not approved: delete of `Namespace` `m`.");
    expect(existsSync(file(`${stored[forge]}planned.json`))).toBe(false);
  });

  test.each(["GitHub", "GitLab"] as const)("%s: without an approval nothing is planned", (forge) => {
    const { status, calls } = run(`${forge} plan`, { REFUSED: "1" });
    expect(status).not.toBe(0);
    expect(calls.filter((call) => call.startsWith("pulumi"))).toEqual([]);
  });

  test.each(["GitHub", "GitLab"] as const)("%s: a plan whose preview failed stops, whatever it wrote", (forge) => {
    stub("pulumi", `cat "${file("planned-steps.json")}"; exit 3`);
    const { status } = run(`${forge} plan`);
    expect(status).toBe(3);
    expect(existsSync(file(`${stored[forge]}planned.json`))).toBe(false);
  });

  test.each([
    ["another file", "GitHub", { change: true }],
    ["another file", "GitLab", { change: true }],
    ["another commit's", "GitHub", { env: { GITHUB_SHA: pullRequest } }],
    ["another commit's", "GitLab", { env: { CI_COMMIT_SHA: pullRequest } }],
    ["let go on by nobody", "GitHub", { env: { UNRELEASED: "1" } }],
    ["let go on by nobody", "GitLab", { env: { UNRELEASED: "1" } }],
  ] as const)(
    "a plan that is %s is not run (%s)",
    (_name, forge, how: { change?: boolean; env?: Record<string, string> }) => {
      run(`${forge} plan`);
      if (how.change) writeFileSync(file(`${stored[forge]}plan.json`), '{"plan":2}');
      const { status, calls } = run(`${forge} apply`, how.env);
      expect(status).toBe(1);
      expect(updates(calls)).toEqual([]);
    },
  );
});
