import { chmod, copyFile, mkdir, readFile, stat, symlink, writeFile } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { checkPackage, createPackageFromTarballData } from "@arethetypeswrong/core";
import { publint } from "publint";
import { afterAll, beforeAll, expect, test } from "vitest";
import { packPackage } from "../../tools/dev/release/package.ts";
import { check, run } from "../../tools/process/run.ts";
import { fixtureHandler } from "../unit/runtime/fixtures.ts";
import { type ApiServer, startApiServer } from "./api-server.ts";
import { serveTemplates } from "./git-server.ts";
import { type EngineProject, engineProject } from "./harness.ts";

/*
 * The components used from another program: the package as it is published is in its node_modules, where Node strips no types, with
 * only the package's declared dependencies beside it.
 */

const clone = resolve(import.meta.dirname, "..", "..");
const handler = fixtureHandler("contrast-go");

const program = `
import { cdhConfiguration, ConfidentialWorkload, ContrastRuntime, NodeInstaller, readManifest } from "contrast-runtime";
import * as pulumi from "@pulumi/pulumi";
import { Namespace } from "@pulumi/kubernetes/core/v1/namespace.js";
import { PodTemplate } from "@pulumi/kubernetes/core/v1/podTemplate.js";

const manifest = readManifest("manifest.json");
const acknowledgedAdvisories = ["GHSA-fmg6-v47x-52wr"];
const image = "registry.example.com/contrast-node-installer@sha256:${"a".repeat(64)}";
const runtime = new ContrastRuntime("confidential", {
  image,
  groups: [
    {
      group: "snp",
      distribution: { name: "containerd" },
      nodeSelector: { "example.com/pool": "snp" },
      runtimes: [{ platform: "metal-qemu-snp", manifest, acknowledgedAdvisories }],
      minimumNodes: 0,
    },
  ],
});
// One component on its own, without the others.
const namespace = new Namespace("own", { metadata: { name: "own" } });
const alone = new NodeInstaller(
  "alone",
  {
    group: "alone",
    namespace: "own",
    image,
    distribution: { name: "k3s" },
    nodeNames: ["node-7"],
    runtimes: [{ platform: "metal-qemu-snp", manifest, acknowledgedAdvisories }],
    minimumNodes: 0,
  },
  { dependsOn: [namespace] },
);
const web = new ConfidentialWorkload("web", {
  platform: "metal-qemu-snp",
  manifest,
  template: {
    spec: {
      containers: [{ name: "web", image, resources: { limits: { cpu: "1", memory: "1Gi" } } }],
    },
  },
  initdata: {
    algorithm: "sha256",
    data: {
      "policy.rego": "package agent_policy",
      "cdh.toml": cdhConfiguration({ kbsUrl: "https://kbs", credentialsUri: "kbs:///default/credential/registry" }),
    },
  },
});
new PodTemplate(
  "web",
  { metadata: { name: "web", namespace: "own" }, template: web.template },
  { dependsOn: [namespace] },
);
export const reference = web.reference;
export const handlers: pulumi.Output<Record<string, string[]>> = runtime.handlers;
export const runtimes = runtime.runtimes;
export const specHash: pulumi.Output<string> = alone.specHash;
`;

interface PackageJson {
  bin: Record<string, string>;
  dependencies: Record<string, string>;
  peerDependencies: Record<string, string>;
  peerDependenciesMeta: Record<string, { optional: boolean }>;
}

let server: ApiServer;
let project: EngineProject;
let archive: string;

/** As `npm install` would lay it out, with the clone's packages in the place of downloaded ones: no optional peers. */
async function installPackage(modules: string): Promise<void> {
  const installed = join(modules, "contrast-runtime");
  await mkdir(installed, { recursive: true });
  archive = join(modules, await packPackage(modules, "https://github.com/example/contrast-runtime"));
  await check("tar", ["-xzf", archive, "-C", installed, "--strip-components=1"]);
  const packageJson = JSON.parse(await readFile(join(installed, "package.json"), "utf8")) as PackageJson;
  const { bin, dependencies, peerDependencies, peerDependenciesMeta } = packageJson;
  const peers = Object.keys(peerDependencies).filter((name) => !peerDependenciesMeta[name]?.optional);
  for (const name of [...Object.keys(dependencies), ...peers]) {
    await mkdir(dirname(join(modules, name)), { recursive: true });
    await symlink(join(clone, "node_modules", name), join(modules, name));
  }
  await mkdir(join(modules, ".bin"));
  for (const [name, path] of Object.entries(bin)) {
    await chmod(join(installed, path), 0o755);
    await symlink(join("..", "contrast-runtime", path), join(modules, ".bin", name));
  }
}

beforeAll(async () => {
  server = await startApiServer();
  project = await engineProject({ program, nodeModules: installPackage });
  const kubeconfig = join(project.home, "kubeconfig");
  await writeFile(kubeconfig, server.kubeconfig);
  const manifest = join(clone, "test", "fixtures", "manifests", "fixture-contrast-go.json");
  await copyFile(manifest, join(project.directory, "manifest.json"));
  project.env.KUBECONFIG = kubeconfig;
});
afterAll(async () => {
  await project?.remove();
  await server?.stop();
});

test("another program previews and updates with the components, and the package's bin uninstalls again", async () => {
  await project.mustWork(project.preview());
  await project.mustWork(project.up());
  expect(await project.outputs()).toMatchObject({
    handlers: { snp: [handler] },
    runtimes: [
      { group: "snp", handler, platform: "metal-qemu-snp", payload: "fixture-contrast-go", kataVersion: "3.31.0" },
    ],
    reference: { snp: { "EPYC-Milan": { 2: expect.stringMatching(/^[0-9a-f]{96}$/) } } },
  });
  const path = "jsonpath={.template.spec.runtimeClassName}";
  expect(await server.kubectl("get", "podtemplate", "web", "-n", "own", "-o", path)).toBe(handler);
  expect(await server.kubectl("get", "runtimeclass", "-o", "name")).toContain(handler);
  expect(await server.kubectl("get", "daemonset", "-n", "own", "-o", "name")).toContain("contrast-installer-alone");
  await project.mustWork(project.preview("--expect-no-changes"));
  await project.mustWork(project.destroy());
  expect(await server.kubectl("get", "runtimeclass", "-o", "name")).not.toContain(handler);
});

test("pulumi new makes a program of the template in a git repository, whose preview is what the template says", async () => {
  const shop = join(project.home, "shop");
  const { pulumi, mustWork } = project;
  const git = await serveTemplates(project.home);
  project.env.SSL_CERT_FILE = git.authorities;
  const template = git.template("typescript");
  const answers = ["--yes", "--force", "--generate-only", "--name", "shop", "--dir", shop];
  expect((await mustWork(pulumi("new", template, ...answers))).stdout).toContain("npx contrast-runtime lock");
  delete project.env.SSL_CERT_FILE;
  await git.stop();
  const { name, dependencies } = JSON.parse(await readFile(join(shop, "package.json"), "utf8")) as PackageJson & {
    name: string;
  };
  const own = JSON.parse(await readFile(join(clone, "package.json"), "utf8")) as PackageJson & { version: string };
  const { "@pulumi/azure-native": _optional, ...peers } = own.peerDependencies;
  expect({ name, dependencies }).toEqual({
    name: "shop",
    dependencies: { ...peers, "contrast-runtime": `^${own.version}` },
  });

  await symlink(join(project.directory, "node_modules"), join(shop, "node_modules"));
  const inShop = (...args: string[]) => mustWork(pulumi("--cwd", shop, ...args));
  await inShop("stack", "init", "shop");
  // "pulumi new" without --generate-only asks for what the template has a default for, and writes it.
  await inShop("config", "set", "--stack", "shop", "payload", "payloads/metal-qemu-snp-kata-rs-4.1.0.json");
  await inShop(
    "config",
    "set",
    "--stack",
    "shop",
    "installerImage",
    `registry.example.com/installer@sha256:${"a".repeat(64)}`,
  );
  await mkdir(join(shop, "payloads"));
  const payload = join(clone, "test", "fixtures", "manifests", "fixture-kata-rs.json");
  await copyFile(payload, join(shop, "payloads", "metal-qemu-snp-kata-rs-4.1.0.json"));
  const { stdout } = await inShop("preview", "--stack", "shop");
  expect(stdout).toContain(fixtureHandler("kata-rs"));
  expect(stdout).toContain("confidential-workers-rollout");
});

test("who has no AKS needs no Azure SDK, and who uses AKS without it reads what to install", async () => {
  await project.write(`
import { AksCocoNodePool } from "contrast-runtime";
new AksCocoNodePool("pool", { resourceGroup: "group", cluster: "cluster", pool: "coco", vmSize: "Standard_DC4as_cc_v5", count: 1 });
`);
  const { code, stdout } = await project.preview();
  expect(code).not.toBe(0);
  expect(stdout).toContain("Install it beside contrast-runtime: npm install @pulumi/azure-native");
  expect(stdout).not.toContain("at new AksCocoNodePool");
  await project.write(program);
});

test("two of it in one program, each for a cluster of its own, have a resource each of every kind", async () => {
  const second = program.replace('const runtime = new ContrastRuntime("confidential", {', "const args = {").replace(
    "});\n// One component",
    `};
const runtime = new ContrastRuntime("confidential", args);
const files = new Provider("files", { renderYamlToDirectory: "files", kubeconfig: "" });
new ContrastRuntime("second", { ...args, manifestsOnly: true }, { providers: [files] });
// One component`,
  );
  await project.write(`import { Provider } from "@pulumi/kubernetes/provider.js";\n${second}`);
  const planned = (await project.plan()).map(({ op, urn }) => `${op} ${urn.split("::").slice(2).join(" ")}`);
  const parent = "contrast-runtime:index:ContrastRuntime";
  for (const name of ["confidential", "second"]) {
    expect(planned).toContain(`create ${parent}$kubernetes:core/v1:Namespace ${name}-namespace`);
    expect(planned).toContain(`create ${parent}$contrast-runtime:index:NodeInstaller ${name}-snp`);
  }
  await project.write(program);
});

test("wrong arguments are told with their properties and without a stack, also where they are known later", async () => {
  await project.write(program.replace("minimumNodes: 0,", "minimumNodes: -1, atOnce: 0,"));
  const { code, stdout } = await project.preview();
  expect(code).not.toBe(0);
  expect(stdout).toContain("The arguments of ContrastRuntime confidential cannot be used:");
  expect(stdout).toContain("groups[0].minimumNodes: -1 must be 0 or more.");
  expect(stdout).toContain("groups[0].atOnce: 0 must be 1 or more.");
  expect(stdout).not.toMatch(/^ +at .*:\d+:\d+/m);

  await project.write(
    program.replace("  image,\n", '  image: pulumi.output("registry.example.com/installer:latest"),\n'),
  );
  const later = await project.preview();
  expect(later.code).not.toBe(0);
  expect(later.stdout).toContain('image: "registry.example.com/installer:latest" names an image by tag');
  expect(later.stdout).not.toMatch(/^ +at .*:\d+:\d+/m);
  await project.write(program);
});

test("its compiler finds the types of everything that the program uses", async () => {
  const options = ["--noEmit", "--strict", "--module", "nodenext", "--target", "es2024", "--skipLibCheck"];
  const tsc = join(clone, "node_modules", ".bin", "tsc");
  const typeRoots = join(clone, "node_modules", "@types");
  const args = [...options, "--typeRoots", typeRoots, "--types", "node", "index.ts"];
  expect(await run(tsc, args, { cwd: project.directory })).toMatchObject({ code: 0, stdout: "" });
  await project.write(program.replace('"metal-qemu-snp"', '"metal-qemu-sev"'));
  expect((await run(tsc, args, { cwd: project.directory })).stdout).toContain("Type '\"metal-qemu-sev\"'");
  await project.write(program);
});

test("the engine can start it from the folder where npm put it", async () => {
  const program = join(project.directory, "node_modules", "contrast-runtime", "pulumi-resource-contrast-runtime");
  expect((await stat(program)).mode & 0o777).toBe(0o755);
});

test("packers' lints find nothing: its files, its ES modules, and types for every way in", async () => {
  const bytes = await readFile(archive);
  const tarball = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength);
  expect((await publint({ pack: { tarball } })).messages).toEqual([]);
  const types = await checkPackage(createPackageFromTarballData(new Uint8Array(tarball)));
  if (!types.types) throw new Error("the package has no types");
  // The package is ES modules alone: what CommonJS programs and those before `exports` meet is meant.
  const meant = new Set(["node10", "node16-cjs"]);
  const problems = types.problems.filter(
    (problem) => !("resolutionKind" in problem && meant.has(problem.resolutionKind)),
  );
  expect(problems).toEqual([]);
});

interface Lock {
  packages: Record<string, { dependencies?: Record<string, string>; optionalDependencies?: Record<string, string> }>;
}

/** Where npm puts packages and all that they need, as the clone's lock file has it: "node_modules/yaml". */
function placesOf({ packages }: Lock, names: string[], from = "", found = new Set<string>()): Set<string> {
  for (const name of names) {
    let above = from;
    while (above !== "" && packages[`${above}/node_modules/${name}`] === undefined)
      above = above.slice(0, Math.max(0, above.lastIndexOf("/node_modules/")));
    const place = `${above === "" ? "" : `${above}/`}node_modules/${name}`;
    const { dependencies = {}, optionalDependencies = {} } = packages[place] ?? {};
    if (packages[place] === undefined || found.has(place)) continue;
    found.add(place);
    placesOf({ packages }, Object.keys({ ...dependencies, ...optionalDependencies }), place, found);
  }
  return found;
}

test("it and what it needs are less than 60 MB, without a second copy of Pulumi's SDK", async () => {
  const installed = join(project.directory, "node_modules", "contrast-runtime");
  const { dependencies } = JSON.parse(await readFile(join(installed, "package.json"), "utf8")) as PackageJson;
  const lock = JSON.parse(await readFile(join(clone, "package-lock.json"), "utf8")) as Lock;
  const places = [...placesOf(lock, Object.keys(dependencies))];
  expect(places.filter((place) => /@pulumi|typescript|@kubernetes|azure/.test(place))).toEqual([]);
  expect(places).toContain("node_modules/@sigstore/verify");
  const folders = places.map((place) => join(clone, place));
  const sizes = await check("du", ["-sk", "--exclude=node_modules", ...folders, installed]);
  const kilobytes = sizes.split("\n").reduce((sum, line) => sum + Number.parseInt(line || "0", 10), 0);
  expect(kilobytes / 1000).toBeGreaterThan(10);
  expect(kilobytes / 1000).toBeLessThan(60);
});

test("every verb of its bin runs", async () => {
  const program = join(project.directory, "node_modules", ".bin", "contrast-runtime");
  const bin = (...args: string[]) => run(program, args, { cwd: project.directory, env: project.env });
  const { code, stdout } = await bin("--help");
  expect(code).toBe(0);
  const verbs = [...stdout.matchAll(/^ {2}([a-z-]+(?: [a-z]+)?) {2,}/gm)].map(([, verb = ""]) => verb);
  expect(verbs).toContain("rollout");
  for (const verb of verbs) {
    const help = await bin(...verb.split(" "), "--help");
    expect(help.stderr, verb).toBe("");
    expect(help.stdout, verb).toContain(verb);
  }
});
