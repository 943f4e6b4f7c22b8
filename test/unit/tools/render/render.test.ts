import { existsSync } from "node:fs";
import { copyFile, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { parse, stringify } from "yaml";
import { fixtureAdvisories, fixtureHandler } from "../../runtime/fixtures.ts";

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "render-"));
});
afterEach(() => rm(directory, { recursive: true }));

const [old, next] = [fixtureHandler("contrast-go"), fixtureHandler("contrast-go-next")];
const runtime = (payload: string) => ({
  platform: "metal-qemu-snp",
  payload: `test/fixtures/manifests/fixture-${payload}.json`,
  acknowledgedAdvisories: fixtureAdvisories[payload] ?? [],
});
const group = (...payloads: string[]) => ({
  distribution: "containerd",
  nodes: { selector: { "example.com/pool": "snp" } },
  runtimes: payloads.map(runtime),
});
const stack = (groups: object, more: object = {}) => ({
  config: {
    // Where the cluster is does not matter.
    "contrast-runtime:cluster": { kind: "kubeconfig", name: "prod", kubeconfig: { secure: "v1:sealed" } },
    "contrast-runtime:installerImage": `registry.example.com/contrast-node-installer@sha256:${"a".repeat(64)}`,
    "contrast-runtime:groups": groups,
    ...more,
  },
});

const output = () => join(directory, "manifests");
async function render(content: object | string, ...dropClass: string[]): Promise<string[]> {
  const file = join(directory, "Pulumi.prod.yaml");
  await writeFile(file, typeof content === "string" ? content : stringify(content));
  // Each rendering is a process of its own: Pulumi's runtime belongs to one program.
  vi.resetModules();
  const { render } = await import("../../../../tools/render/render.ts");
  return await render({ stack: file, output: output(), dropClass });
}
const resources = async (): Promise<string[]> =>
  parse(await readFile(join(output(), "kustomization.yaml"), "utf8")).resources;
const isThere = (handler: string) => existsSync(join(output(), `runtimeclass-${handler}.yaml`));

test("a stack becomes a file for each object and a list of them, the namespace first and the installers last", async () => {
  await render(stack({ snp: group("contrast-go") }));
  const listed = await resources();
  expect(listed[0]).toBe("namespace-contrast-runtime-system.yaml");
  expect(listed.at(-1)).toBe("daemonset-contrast-runtime-system-contrast-installer-snp.yaml");
  expect((await readdir(output())).sort()).toEqual(
    [...listed, "components.json", "kustomization.yaml", "reference-values.json"].sort(),
  );
  const values = JSON.parse(await readFile(join(output(), "reference-values.json"), "utf8"));
  expect(Object.keys(values)).toEqual([old]);
  const daemonSet = parse(
    await readFile(join(output(), "daemonset-contrast-runtime-system-contrast-installer-snp.yaml"), "utf8"),
  );
  expect(daemonSet.metadata.annotations).toEqual({ "argocd.argoproj.io/sync-wave": "1" });
});

test("what guests are told about registries is a Secret as Kubernetes takes it", async () => {
  const registry = { guest: { proxy: { https: "http://proxy.example.com:3128" } } };
  await render(stack({ snp: group("contrast-go") }, { "contrast-runtime:registry": registry }));
  const [file = ""] = (await resources()).filter((name) => name.startsWith("secret-"));
  const { data, stringData } = parse(await readFile(join(output(), file), "utf8"));
  const contents = Object.values({ ...data, ...stringData });
  expect(contents.length).toBeGreaterThan(0);
  for (const content of contents) expect(content).toEqual(expect.any(String));
  const forGuests = join(output(), "cdh-image.toml");
  expect(await readFile(forGuests, "utf8")).toContain("http://proxy.example.com:3128");

  const said = await render(stack({ snp: group("contrast-go") }));
  expect(said).toContain("Removed: cdh-image.toml.");
  expect(existsSync(forGuests)).toBe(false);
});

test("a second rendering of the same stack changes no byte", async () => {
  const bytes = async () =>
    Promise.all((await readdir(output())).map(async (file) => [file, await readFile(join(output(), file), "utf8")]));
  await render(stack({ snp: group("contrast-go") }));
  const before = await bytes();
  await render(stack({ snp: group("contrast-go") }));
  expect(await bytes()).toEqual(before);
});

test("a class of the user's own name is one that Argo CD and Flux make anew, and no other is", async () => {
  const { runtimes, ...rest } = group("contrast-go");
  await render(stack({ snp: { ...rest, runtimes: [{ ...runtimes[0], classNames: ["confidential"] }] } }));
  const annotations = async (name: string) =>
    parse(await readFile(join(output(), `runtimeclass-${name}.yaml`), "utf8")).metadata.annotations;
  expect(await annotations("confidential")).toEqual({
    "argocd.argoproj.io/sync-wave": "0",
    "argocd.argoproj.io/sync-options": "Force=true,Replace=true",
    "kustomize.toolkit.fluxcd.io/force": "enabled",
  });
  expect(await annotations(old)).toEqual({ "argocd.argoproj.io/sync-wave": "0" });
});

test("a renamed group goes on under its new name", async () => {
  await render(stack({ workers: group("contrast-go") }));
  const renamed = { ...group("contrast-go"), formerly: "workers" };
  const said = await render(stack({ snp: renamed }));
  expect(said).toContain("Removed: daemonset-contrast-runtime-system-contrast-installer-workers.yaml.");
  expect(await resources()).toContain("daemonset-contrast-runtime-system-contrast-installer-snp.yaml");
  expect(await resources()).toContain(`runtimeclass-${old}.yaml`);
});

test("a class outlives its runtime until somebody says that no pod uses it", async () => {
  await render(stack({ snp: group("contrast-go") }));
  const said = await render(stack({ snp: group("contrast-go-next") }));
  expect(said.at(-1)).toBe(
    `Kept: RuntimeClass ${old}, which the stack no longer has. When no pod has runtimeClassName ${old}, render again with --drop-class ${old}.`,
  );
  expect([isThere(old), isThere(next)]).toEqual([true, true]);
  expect(await resources()).toContain(`runtimeclass-${old}.yaml`);

  await render(stack({ snp: group("contrast-go-next") }), old);
  expect([isThere(old), isThere(next)]).toEqual([false, true]);
  expect(await resources()).not.toContain(`runtimeclass-${old}.yaml`);
});

test("a name that is resolved at admission comes after its policy, and goes with it", async () => {
  const named = (...currentFor: string[]) => {
    const [first, ...others] = group("contrast-go", "contrast-go-next").runtimes;
    return stack({ snp: { ...group(), runtimes: [{ ...first, currentFor }, ...others] } });
  };
  await render(named("contrast-cc"));
  const listed = (await resources()).filter((file) => file.includes("-contrast-cc.yaml"));
  expect(listed.map((file) => file.split("-")[0])).toEqual([
    ...["mutatingadmissionpolicy", "mutatingadmissionpolicybinding"],
    ...["validatingadmissionpolicy", "validatingadmissionpolicybinding", "runtimeclass"],
  ]);
  await render(named());
  expect((await resources()).filter((file) => file.includes("-contrast-cc.yaml"))).toEqual([]);
});

test("a class that the stack has, or that nobody rendered, cannot be dropped", async () => {
  await render(stack({ snp: group("contrast-go") }));
  await expect(render(stack({ snp: group("contrast-go") }), old)).rejects.toThrow(
    `--drop-class ${old}: the stack still has this class.`,
  );
  await expect(render(stack({ snp: group("contrast-go") }), "gone")).rejects.toThrow(
    "--drop-class gone: no class of this name was rendered. Left over: none.",
  );
});

test("a group goes in two steps: first its runtimes, then itself", async () => {
  const other = { ...group("contrast-go"), nodes: { selector: { "example.com/pool": "other" } } };
  await render(stack({ snp: group("contrast-go"), other }));
  await expect(render(stack({ snp: group("contrast-go") }))).rejects.toThrow(
    /no longer has the group other, and what is rendered has runtimes for it.*First give the group runtimes: \[\]/s,
  );
  expect(await resources()).toContain("daemonset-contrast-runtime-system-contrast-installer-other.yaml");

  await render(stack({ snp: group("contrast-go"), other: { ...other, runtimes: [] } }));
  await render(stack({ snp: group("contrast-go") }));
  expect(await resources()).not.toContain("daemonset-contrast-runtime-system-contrast-installer-other.yaml");
});

test.each<[string, object | string, string | RegExp]>([
  ["is no YAML", "config: [", "is no YAML"],
  ["is no stack's file", "groups: {}", 'has no "config"'],
  ["has a mistake", stack({ snp: { ...group("contrast-go"), atOnce: 0 } }), "groups.snp.atOnce: 0 must be 1 or more."],
  [
    "has secrets",
    stack({ snp: group("contrast-go") }, { "contrast-runtime:registry": { pullSecret: { secure: "v1:sealed" } } }),
    /has secrets below registry, which would be written in plain text. Take it out of the stack's file, and let nodes log in/,
  ],
  [
    "has a secret in plain text",
    stack({ snp: group("contrast-go") }, { "contrast-runtime:registry": { pullSecret: '{"auths":{}}' } }),
    /registry.pullSecret: is a secret in plain text. Manifests hold none. Take it out of the stack's file, and let nodes/,
  ],
  [
    "has a pool",
    stack({ cc: { ...group("contrast-go"), nodes: { pool: { name: "cc", existing: true } } } }),
    /^groups.cc.nodes.pool: is made or looked up in Azure, .* say which nodes it has with selector/,
  ],
  [
    "is of a local cluster",
    stack({ snp: group("contrast-go") }, { "contrast-runtime:cluster": { kind: "local" } }),
    'cluster.kind: "local" is a cluster on this machine',
  ],
  [
    "has an image of this machine",
    stack({ snp: group("contrast-go") }, { "contrast-runtime:installerImage": "local" }),
    'installerImage: "local" is an image for local clusters only.',
  ],
  [
    "has hosts to prepare",
    stack({
      snp: {
        ...group("contrast-go"),
        nodes: {
          hosts: [
            {
              name: "n1",
              address: "10.0.0.1",
              hostKey: "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
            },
          ],
        },
      },
    }),
    "groups.snp.nodes.hosts: are reached by SSH",
  ],
])("a file that %s is refused, and nothing is written", async (_, content, message) => {
  await expect(render(content)).rejects.toThrow(message);
  expect(existsSync(output())).toBe(false);
});

test.each([
  ["lists what is elsewhere", "resources: [https://example.com/base]\n"],
  [
    "lists its own objects",
    "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [deployment.yaml]\n",
  ],
])("a directory that something else made, which %s, is not touched", async (_, kustomization) => {
  await mkdir(output());
  const list = join(output(), "kustomization.yaml");
  await writeFile(list, kustomization);
  await writeFile(join(output(), "deployment.yaml"), "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\n");
  await expect(render(stack({ snp: group("contrast-go") }))).rejects.toThrow(
    `${list} was not written by this command: choose another directory as --output.`,
  );
  expect((await readdir(output())).sort()).toEqual(["deployment.yaml", "kustomization.yaml"]);
  expect(await readFile(list, "utf8")).toBe(kustomization);
});

test("a file is no directory", async () => {
  await writeFile(output(), "");
  await expect(render(stack({ snp: group("contrast-go") }))).rejects.toThrow(
    `--output ${output()} cannot be read: not a directory. Expected a directory, or a name that is not there yet.`,
  );
});

test("a directory of somebody else's is refused, and stays as it is; what a killed rendering left is not somebody else's", async () => {
  await mkdir(output());
  for (const name of ["README.md", "values.yaml", "a.yaml", "b.yaml", ".gitkeep"])
    await writeFile(join(output(), name), "");
  const before = await readdir(output());
  await expect(render(stack({ snp: group("contrast-go") }))).rejects.toThrow(
    `--output ${output()} is not empty and holds no rendering: README.md, a.yaml, b.yaml … and 1 more. Expected a directory of the manifests' own: name one that is empty or not there yet.`,
  );
  expect(await readdir(output())).toEqual(before);
  for (const name of before) if (name !== ".gitkeep") await rm(join(output(), name));
  await render(stack({ snp: group("contrast-go") }));
  await rm(join(output(), "kustomization.yaml"));
  await render(stack({ snp: group("contrast-go") }));
  expect(await resources()).not.toEqual([]);
});

test("a payload's path is the project's, an absolute one its own; one that is not there is named with where it was looked for", async () => {
  const manifest = join(directory, "elsewhere.json");
  await copyFile("test/fixtures/manifests/fixture-contrast-go.json", manifest);
  const of = (payload: string) => ({ snp: { ...group(), runtimes: [{ ...runtime("contrast-go"), payload }] } });
  await render(stack(of(manifest)));
  expect(isThere(old)).toBe(true);
  await expect(render(stack(of("payloads/nowhere.json")))).rejects.toThrow(
    `cannot be read: ENOENT: no such file or directory, open '${join(process.cwd(), "payloads/nowhere.json")}'.`,
  );
});
