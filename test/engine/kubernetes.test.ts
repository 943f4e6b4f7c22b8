import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { type ApiServer, startApiServer } from "./api-server.ts";
import { type EngineProject, engineProject } from "./harness.ts";

let server: ApiServer;
let project: EngineProject;

beforeAll(async () => {
  server = await startApiServer();
});
afterAll(() => server?.stop());
// Whatever is left on the server ends with it: only tests of deletion destroy what they made.
afterEach(() => project.remove());

const imports = `
import * as pulumi from "@pulumi/pulumi";
import { Provider } from "@pulumi/kubernetes/provider.js";
import { ConfigMap, Secret } from "@pulumi/kubernetes/core/v1/index.js";
import { DaemonSet, Deployment } from "@pulumi/kubernetes/apps/v1/index.js";
import { Job } from "@pulumi/kubernetes/batch/v1/index.js";
import { RuntimeClass } from "@pulumi/kubernetes/node/v1/index.js";
`;

/** A program whose provider reaches the server, unless other arguments are given. */
const program = (body: string, args = "kubeconfig, clusterIdentifier: 'test'") => `${imports}
const kubeconfig = pulumi.secret(${JSON.stringify(server.kubeconfig)});
const provider = new Provider("cluster", { ${args} });
${body}
`;
const configMap = (name: string, data: Record<string, string>, more = "") =>
  `export const map = new ConfigMap("map", { metadata: { name: "${name}", labels: { l: "1" } }, data: ${JSON.stringify(data)} }, { provider ${more} }).id;`;

const pods = (selector: string, image = "registry.test/none@sha256:0") => `{
  selector: { matchLabels: { app: "${selector}" } },
  template: { metadata: { labels: { app: "${selector}" } }, spec: { containers: [{
    name: "c", image: "${image}", resources: { limits: { memory: "0.5Gi" } } }] } } }`;

const kinds = (steps: Awaited<ReturnType<EngineProject["plan"]>>) =>
  Object.assign(
    {},
    ...steps.map(({ detailedDiff = {} }) =>
      Object.fromEntries(Object.entries(detailedDiff).map(([path, { kind }]) => [path, kind])),
    ),
  );

describe("objects of the API server", () => {
  test("are created, left alone, updated in place without leftovers, and deleted", async () => {
    const runtimeClass = (labels: string) =>
      program(`export const id = new RuntimeClass("class", { metadata: { name: "update-me", labels: ${labels} },
      handler: "h", overhead: { podFixed: { memory: "0.25Gi" } }, scheduling: { nodeSelector: { a: "true" } } }, { provider }).id;`);
    project = await engineProject({ program: runtimeClass('{ old: "1", kept: "1" }') });
    expect(await project.plan()).toMatchObject([{ op: "create" }, { op: "create" }]);
    await project.mustWork(project.up());
    expect(await project.outputs()).toEqual({ id: "update-me" });
    await project.mustWork(project.up("--expect-no-changes"));

    await project.write(runtimeClass('{ fresh: "2", kept: "1" }'));
    const steps = await project.plan();
    expect(steps.map(({ op }) => op)).toEqual(["update"]);
    expect(kinds(steps)).toEqual({ "metadata.labels.old": "delete", "metadata.labels.fresh": "add" });
    await project.mustWork(project.up());
    const labels = await server.kubectl("get", "runtimeclass", "update-me", "-o", "jsonpath={.metadata.labels}");
    expect(JSON.parse(labels)).toEqual({ fresh: "2", kept: "1" });
    await project.mustWork(project.up("--expect-no-changes"));

    await project.mustWork(project.destroy());
    expect(await server.kubectl("get", "runtimeclass", "--ignore-not-found", "update-me")).toBe("");
  });

  test("are not taken over when they exist already", async () => {
    await server.kubectl("create", "configmap", "taken");
    project = await engineProject({ program: program(configMap("taken", {})) });
    const { code, stdout, stderr } = await project.up();
    expect(code).not.toBe(0);
    expect(stdout + stderr).toMatch(/configmaps "taken" already exists/);
  });

  test("are replaced where the API does not change them in place: an explicit name is deleted first", async () => {
    project = await engineProject({ program: program(configMap("fixed", { a: "1" })) });
    await project.mustWork(project.up());
    const first = await server.kubectl("get", "configmap", "fixed", "-o", "jsonpath={.metadata.uid}");
    await project.write(program(configMap("fixed", { a: "2" })));
    const steps = await project.plan();
    expect(kinds(steps)).toEqual({ "data.a": "update-replace" });
    await project.mustWork(project.up());
    const second = await server.kubectl("get", "configmap", "fixed", "-o", "jsonpath={.metadata.uid} {.data.a}");
    expect(second).toMatch(/ 2$/);
    expect(second).not.toContain(first);
  });

  test("change in place where the provider says that they may", async () => {
    const mutable = "kubeconfig, clusterIdentifier: 'test', enableConfigMapMutable: true";
    project = await engineProject({ program: program(configMap("mutable", { a: "1" }), mutable) });
    await project.mustWork(project.up());
    await project.write(program(configMap("mutable", { b: "2" }), mutable));
    expect((await project.plan()).map(({ op }) => op)).toEqual(["update"]);
    await project.mustWork(project.up());
    expect(await server.kubectl("get", "configmap", "mutable", "-o", "jsonpath={.data}")).toBe('{"b":"2"}');
  });

  test("get a name of their own, which stays", async () => {
    const body = 'export const name = new ConfigMap("auto", { data: { a: "1" } }, { provider }).metadata.name;';
    project = await engineProject({ program: program(body) });
    await project.mustWork(project.up());
    const { name } = await project.outputs();
    expect(name).toMatch(/^auto-[0-9a-f]{8}$/);
    await project.mustWork(project.up("--expect-no-changes"));
  });

  test("are read again by refresh: a change from outside is seen and undone, a lost object is made again", async () => {
    const mutable = "kubeconfig, clusterIdentifier: 'test', enableConfigMapMutable: true";
    project = await engineProject({ program: program(configMap("drift", { a: "1" }), mutable) });
    await project.mustWork(project.up());
    const patch = (...manager: string[]) =>
      server.kubectl("patch", "configmap", "drift", "--type=merge", "-p", '{"data":{"a":"9"}}', ...manager);
    await patch();
    await project.mustWork(project.refresh());
    expect((await project.plan()).map(({ op }) => op)).toEqual(["update"]);
    await project.mustWork(project.up());
    await server.kubectl("delete", "configmap", "drift");
    await project.mustWork(project.refresh());
    expect((await project.plan()).map(({ op }) => op)).toEqual(["create"]);
    await project.mustWork(project.up());
  });

  test("are overruled where kubectl changed them, and refused where somebody else did", async () => {
    const mutable = "kubeconfig, clusterIdentifier: 'test', enableConfigMapMutable: true";
    const write = (a: string) => project.write(program(configMap("contested", { a }), mutable));
    const patch = (...manager: string[]) =>
      server.kubectl("patch", "configmap", "contested", "--type=merge", "-p", '{"data":{"a":"9"}}', ...manager);
    const value = () => server.kubectl("get", "configmap", "contested", "-o", "jsonpath={.data.a}");
    project = await engineProject({ program: program(configMap("contested", { a: "1" }), mutable) });
    await project.mustWork(project.up());

    // As it was created, a preview says nothing of either.
    await patch("--field-manager=somebody");
    await write("2");
    await project.mustWork(project.preview());
    const refused = await project.up();
    expect(refused.stdout + refused.stderr).toMatch(/conflict with "somebody"/);
    expect(await value()).toBe("9");
    project.env.PULUMI_K8S_ENABLE_PATCH_FORCE = "true";
    await project.mustWork(project.up());
    delete project.env.PULUMI_K8S_ENABLE_PATCH_FORCE;
    await project.mustWork(project.up());

    // Updated once, both are conflicts in a preview; kubectl's is none of the update's.
    await patch();
    await write("3");
    expect((await project.preview()).code).not.toBe(0);
    await project.mustWork(project.up());
    expect(await value()).toBe("3");
    await patch("--field-manager=somebody");
    await write("4");
    expect((await project.preview()).code).not.toBe(0);
    expect((await project.up()).code).not.toBe(0);
  });

  test("can be imported", async () => {
    await server.kubectl("create", "configmap", "foreign", "--from-literal=a=1");
    const body = `export const map = new ConfigMap("map", { metadata: { name: "foreign" }, data: { a: "1" } }, { provider, import: "default/foreign" }).id;`;
    project = await engineProject({ program: program(body) });
    await project.mustWork(project.up());
    await project.mustWork(project.up("--expect-no-changes"));
    await project.mustWork(project.destroy());
    expect(await server.kubectl("get", "configmap", "--ignore-not-found", "foreign")).toBe("");
  });

  test("of a Secret are encrypted in the state and hidden on the screen", async () => {
    const body =
      'export const data = new Secret("s", { metadata: { name: "s" }, stringData: { token: "open-sesame" } }, { provider }).data;';
    project = await engineProject({ program: program(body) });
    const { stdout } = await project.mustWork(project.up("--diff"));
    const state = await project.exported();
    for (const text of [stdout, state])
      for (const clear of ["open-sesame", Buffer.from("open-sesame").toString("base64")])
        expect(text).not.toContain(clear);
    expect(await project.outputs()).toEqual({ data: { token: Buffer.from("open-sesame").toString("base64") } });
    await project.mustWork(project.up("--expect-no-changes"));
  });

  test("are refused in a preview already when the server finds them invalid", async () => {
    project = await engineProject({ program: program(configMap("Not_A_Name", {})) });
    const { code, stdout, stderr } = await project.preview();
    expect(code).not.toBe(0);
    expect(stdout + stderr).toMatch(/metadata.name: Invalid value: "Not_A_Name"/);
  });
});

describe("awaits", () => {
  test("a DaemonSet without nodes is ready, and a changed selector replaces it", async () => {
    const body = (app: string) =>
      program(`new DaemonSet("ds", { metadata: { name: "ds" }, spec: ${pods(app)} }, { provider });`);
    project = await engineProject({ program: body("one") });
    await project.mustWork(project.up());
    await project.mustWork(project.up("--expect-no-changes"));
    await project.write(body("two"));
    expect(kinds(await project.plan())).toMatchObject({ "spec.selector.matchLabels.app": "update-replace" });
  });

  test("a Deployment that does not become available fails after its timeout, keeps its state, and skipAwait does not wait", async () => {
    const body = (annotations: string) =>
      program(
        `new Deployment("d", { metadata: { name: "d", annotations: ${annotations} }, spec: ${pods("d")} }, { provider });`,
      );
    project = await engineProject({ program: body('{ "pulumi.com/timeoutSeconds": "2" }') });
    const { code, stdout, stderr } = await project.up();
    expect(code).not.toBe(0);
    expect(stdout + stderr).toMatch(/'d' timed out waiting to be Ready: /);
    expect((await project.resources()).map(({ type }) => type)).toContain("kubernetes:apps/v1:Deployment");
    await project.write(body('{ "pulumi.com/skipAwait": "true" }'));
    await project.mustWork(project.up());
  });

  test("a Job is done when it is complete", async () => {
    const body = `new Job("j", { metadata: { name: "j" }, spec: { completions: 0, template: { spec: {
      restartPolicy: "Never", containers: [{ name: "c", image: "i" }] } } } }, { provider });`;
    project = await engineProject({ program: program(body) });
    await project.mustWork(project.up());
    await project.mustWork(project.up("--expect-no-changes"));
  });
});

describe("without a cluster", () => {
  const nowhere = () => JSON.stringify(server.kubeconfig.replace(/127\.0\.0\.1:\d+/, "127.0.0.1:1"));

  test("a preview shows what would be created, and only the update fails", async () => {
    project = await engineProject({ program: program(configMap("none", { a: "1" }), `kubeconfig: ${nowhere()}`) });
    expect((await project.plan()).map(({ op }) => op)).toEqual(["create", "create"]);
    const { code, stdout, stderr } = await project.up();
    expect(code).not.toBe(0);
    expect(stdout + stderr).toMatch(/configured Kubernetes cluster is unreachable/);
  });

  test("a kubeconfig that is not known yet leaves a preview possible", async () => {
    const unknown = `
import { Command } from "@pulumi/command/local/command.js";
const made = new Command("kubeconfig", { create: "cat", stdin: kubeconfig });
const late = new Provider("late", { kubeconfig: made.stdout, clusterIdentifier: "late" });
new ConfigMap("map", { metadata: { name: "late" }, data: { a: "1" } }, { provider: late });`;
    project = await engineProject({ program: program(unknown) });
    expect((await project.plan()).every(({ op }) => op === "create")).toBe(true);
    await project.mustWork(project.up());
    await project.mustWork(project.up("--expect-no-changes"));
  });

  test("only another clusterIdentifier replaces the provider", async () => {
    project = await engineProject({ program: program(configMap("identity", { a: "1" })) });
    await project.mustWork(project.up());
    await project.write(
      program(configMap("identity", { a: "1" }), `kubeconfig: ${nowhere()}, clusterIdentifier: 'test'`),
    );
    expect((await project.plan()).map(({ op }) => op)).toEqual(["update"]);
    await project.write(program(configMap("identity", { a: "1" }), "kubeconfig, clusterIdentifier: 'other'"));
    expect((await project.plan()).map(({ op }) => op)).toEqual(["replace", "replace"]);
  });

  test("deleteUnreachable forgets what cannot be reached", async () => {
    project = await engineProject({ program: program(configMap("lost", { a: "1" })) });
    await project.mustWork(project.up());
    await project.write(
      program(
        configMap("lost", { a: "1" }),
        `kubeconfig: ${nowhere()}, clusterIdentifier: 'test', deleteUnreachable: true`,
      ),
    );
    const { code } = await project.up();
    expect(code).toBe(0);
    await project.mustWork(project.destroy());
    expect(await server.kubectl("get", "configmap", "lost", "-o", "name")).toContain("lost");
    await server.kubectl("delete", "configmap", "lost");
  });

  test("manifests are rendered into a directory", async () => {
    const directory = await mkdtemp(join(tmpdir(), "contrast-render-"));
    try {
      project = await engineProject({
        program: program(configMap("rendered", { a: "1" }), `renderYamlToDirectory: "${directory}"`),
      });
      await project.mustWork(project.up());
      const file = join(directory, "1-manifest", "v1-configmap-default-rendered.yaml");
      expect(await readFile(file, "utf8")).toBe(
        'apiVersion: v1\ndata:\n  a: "1"\nkind: ConfigMap\nmetadata:\n  labels:\n    l: "1"\n  name: rendered\n',
      );
      await project.mustWork(project.up("--expect-no-changes"));
      await project.mustWork(project.destroy());
      expect(await readdir(join(directory, "1-manifest"))).toEqual([]);
    } finally {
      await rm(directory, { recursive: true, force: true });
    }
  });
});
