import { mkdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { PackageProvider } from "../../components/provider.ts";
import { fixtureHandler } from "../unit/runtime/fixtures.ts";
import { type ApiServer, startApiServer } from "./api-server.ts";
import { serveTemplates } from "./git-server.ts";
import { type EngineProject, engineProject } from "./harness.ts";
import { installGo, installPackage, installPython, installYaml, prepareGo, preparePython } from "./language-hosts.ts";

/*
 * The components as a package of the engine's, as the SDKs of all languages use it: the program registers resources that
 * the engine has the provider construct. It is written in what the tests have anyway; nothing of the package is imported.
 */

const clone = resolve(import.meta.dirname, "..", "..");
const handler = fixtureHandler("contrast-go");
const { version } = new PackageProvider();

const program = `
import { readFileSync } from "node:fs";
import * as pulumi from "@pulumi/pulumi";

class Remote extends pulumi.ComponentResource {
  constructor(type, name, args, outputs, opts = {}) {
    const inputs = { ...Object.fromEntries(outputs.map((output) => [output, undefined])), ...args };
    super(\`contrast-runtime:index:\${type}\`, name, inputs, { ...opts, version: "${version}" }, true);
  }
}
const manifest = JSON.parse(readFileSync("manifest.json", "utf8"));
const acknowledgedAdvisories = ["GHSA-fmg6-v47x-52wr"];
const image = "registry.example.com/contrast-node-installer@sha256:${"a".repeat(64)}";
const runtimes = [{ platform: "metal-qemu-snp", manifest, acknowledgedAdvisories }];
const group = (name) => ({
  group: name,
  distribution: { name: "containerd" },
  nodeSelector: { "example.com/pool": name },
  runtimes,
  minimumNodes: 0,
});
const runtime = new Remote(
  "ContrastRuntime",
  "confidential",
  {
    image,
    kubeconfig: pulumi.secret(readFileSync("kubeconfig", "utf8")),
    pullSecret: pulumi.secret('{"auths":{"registry.example.com":{"auth":"bm9ib2R5Om5vdGhpbmc="}}}'),
    groups: [group("snp"), group("more")],
  },
  ["handlers", "runtimes", "referenceValues", "cdhImage"],
);
const web = new Remote(
  "ConfidentialWorkload",
  "web",
  {
    platform: "metal-qemu-snp",
    manifest,
    template: { spec: { containers: [{ name: "web", image, resources: { limits: { cpu: "1", memory: "1Gi" } } }] } },
    initdata: { algorithm: "sha256", data: { "policy.rego": "package agent_policy" } },
  },
  ["handler", "template", "initdata", "policyDigest", "reference"],
);
export const handlers = runtime.handlers;
export const installed = runtime.runtimes;
export const reference = web.reference;
export const initdata = web.initdata;
`;

/** A line of a stack in the package; what the program's own SDK prints of the program is not its business. */
const ownStack = /^ +at .*\/(components|runtime)\/\S+:\d+:\d+/m;

let server: ApiServer;
let project: EngineProject;

beforeAll(async () => {
  server = await startApiServer();
  // In an empty folder, as programs in other languages are in.
  project = await engineProject({
    program,
    plugins: installPackage,
    nodeModules: async (modules) => {
      await mkdir(join(modules, "@pulumi"), { recursive: true });
      await symlink(join(clone, "node_modules", "@pulumi", "pulumi"), join(modules, "@pulumi", "pulumi"));
    },
  });
  await writeFile(join(project.directory, "kubeconfig"), server.kubeconfig);
  const manifest = await readFile(join(clone, "test", "fixtures", "manifests", "fixture-contrast-go.json"));
  await writeFile(join(project.directory, "manifest.json"), manifest);
  project.env.KUBECONFIG = join(project.directory, "kubeconfig");
});
afterAll(async () => {
  await project?.remove();
  await server?.stop();
});

test("a program in any language previews, updates and destroys with the package's commands, and keeps its secrets", async () => {
  await project.mustWork(project.preview());
  await project.mustWork(project.up());
  expect(await project.outputs()).toMatchObject({
    handlers: { snp: [handler], more: [handler] },
    installed: [
      { group: "more", handler },
      { group: "snp", handler, platform: "metal-qemu-snp", kataVersion: "3.31.0" },
    ],
    reference: { snp: { "EPYC-Milan": { 2: expect.stringMatching(/^[0-9a-f]{96}$/) } } },
    initdata: { hostData: expect.stringMatching(/^[0-9a-f]{64}$/) },
  });
  expect(await server.kubectl("get", "runtimeclass", "-o", "name")).toContain(handler);
  const state = await project.exported();
  expect(state).not.toContain("bm9ib2R5Om5vdGhpbmc");
  const [, token = server.kubeconfig] = /"token":"([^"]+)"/.exec(server.kubeconfig) ?? [];
  expect(state).not.toContain(token);
  await project.mustWork(project.preview("--expect-no-changes"));
  await project.mustWork(project.destroy());
  expect(await server.kubectl("get", "runtimeclass", "-o", "name")).not.toContain(handler);
});

test("what is known later previews, and plain is what must be known", async () => {
  const later = program
    .replace("minimumNodes: 0,", "minimumNodes: 0, priorityClass: given.output,")
    .replace(
      "const manifest =",
      'const given = new Remote("RuntimeClasses", "given", { classes: [] }, ["names"]);\ngiven.output = given.names.apply(() => "system-node-critical");\nconst manifest =',
    );
  await project.write(later);
  await project.mustWork(project.preview());
  await project.write(program.replace("group: name,", "group: pulumi.secret(name),"));
  const { code, stdout } = await project.preview();
  expect(code).not.toBe(0);
  expect(stdout).toContain("groups[0].group: is an output, but must be a plain value");
  await project.write(program);
});

test("wrong arguments are told by their properties' paths and without a stack, also those that are known later", async () => {
  await project.write(program.replace("minimumNodes: 0,", "minimumNodes: -1, atOnce: 0,"));
  const { code, stdout } = await project.preview();
  expect(code).not.toBe(0);
  expect(stdout).toContain("groups[0].minimumNodes: -1 must be 0 or more.");
  expect(stdout).toContain("groups[0].atOnce: 0 must be 1 or more.");
  expect(stdout).not.toMatch(ownStack);

  await project.write(
    program.replace(
      "    image,\n    kube",
      '    image: pulumi.secret("registry.example.com/installer:latest"),\n    kube',
    ),
  );
  const later = await project.preview();
  expect(later.code).not.toBe(0);
  expect(later.stdout).toContain('image: "registry.example.com/installer:latest" names an image by tag');
  expect(later.stdout).not.toMatch(ownStack);
  await project.write(program);
});

const hostKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f";

/** How each language's example is run, and what is written differently in it. */
const languages = [
  {
    language: "Python",
    folder: "python",
    main: "__main__.py",
    plugins: installPython,
    prepare: preparePython,
    changed: [
      'image=config.require("installerImage"),',
      `image=config.require("installerImage"),
    pull_secret=config.require("pullSecret"),`,
      "manifest=manifest)]",
      'manifest=manifest, acknowledged_advisories=["GHSA-fmg6-v47x-52wr"])]',
      "minimum_nodes=0,",
      'minimum_nodes=0, priority_class=config.require_secret("priorityClass"),',
    ],
    unknown: [
      "runtime = contrast.ContrastRuntime(",
      `cluster = contrast.LocalCluster("later", name="later")
runtime = contrast.ContrastRuntime(`,
      'node_selector={"example.com/pool": "snp"},',
      `ssh=contrast.HostAccessArgs(
                hosts=[contrast.HostArgs(name="n", address=cluster.registry, host_key="${hostKey}")],
                private_key=cluster.kubeconfig,
            ),`,
    ],
    wrong: ["minimum_nodes=0,", "minimum_nodes=-1, at_once=0,"],
  },
  {
    language: "YAML",
    folder: "yaml",
    main: "Pulumi.yaml",
    plugins: installYaml,
    prepare: async () => {},
    changed: [
      `image: \${installerImage}`,
      `image: \${installerImage}
      pullSecret:
        fn::toJSON: { auths: { registry.example.com: { auth: c2VjcmV0 } } }`,
      ...Array(2)
        .fill([
          `            - platform`,
          `            - acknowledgedAdvisories: [GHSA-fmg6-v47x-52wr]
              platform`,
        ])
        .flat(),
      "minimumNodes: 0",
      `priorityClass: \${priorityClass}\n          minimumNodes: 0`,
      "  payload:",
      `  priorityClass: { type: string, secret: true }
  payload:`,
    ],
    unknown: [
      "resources:",
      "resources:\n  cluster: { type: 'contrast-runtime:index:LocalCluster', properties: { name: later } }",
      "nodeSelector: { example.com/pool: snp }",
      `ssh:
            hosts: [{ name: n, address: "\${cluster.registry}", hostKey: ${hostKey} }]
            privateKey: \${cluster.kubeconfig}`,
    ],
    wrong: ["minimumNodes: 0", "atOnce: 0\n          minimumNodes: -1"],
  },
  {
    language: "Go",
    folder: "go",
    main: "main.go",
    plugins: installGo,
    prepare: prepareGo,
    changed: [
      'Image: pulumi.String(settings.Require("installerImage")),',
      'Image: pulumi.String(settings.Require("installerImage")), PullSecret: pulumi.String(settings.Require("pullSecret")),',
      "Manifest: manifest}}",
      'Manifest: manifest, AcknowledgedAdvisories: []string{"GHSA-fmg6-v47x-52wr"}}}',
      "pulumi.Int(0), //",
      'pulumi.Int(0), PriorityClass: settings.RequireSecret("priorityClass"), //',
    ],
    unknown: [
      "		runtimes :=",
      `		cluster, err := contrast.NewLocalCluster(ctx, "later", &contrast.LocalClusterArgs{Name: "later"})
		if err != nil {
			return err
		}
		runtimes :=`,
      'NodeSelector: pulumi.StringMap{"example.com/pool": pulumi.String("snp")},',
      `Ssh: &contrast.HostAccessArgs{
						Hosts: []contrast.HostArgs{{
							Name: "n", Address: cluster.Registry, HostKey: pulumi.String("${hostKey}"),
						}},
						PrivateKey: cluster.Kubeconfig,
					},`,
    ],
    wrong: ["pulumi.Int(0), //", "pulumi.Int(-1), AtOnce: pulumi.IntRef(0), //"],
  },
];

const fixture = (name: string) => join(clone, "test", "fixtures", "manifests", `fixture-${name}.json`);
const kataRs = fixtureHandler("kata-rs");

describe.each(languages)("a program in $language", ({ folder, main, plugins, prepare, ...texts }) => {
  let program: EngineProject;
  let written: string;
  /** The example with other passages: what is to be found, and what takes its place, in turns. */
  const write = async (...passages: string[]) => {
    let text = written;
    for (let index = 0; index < passages.length; index += 2) {
      const [passage = "", replacement = ""] = passages.slice(index);
      expect(text).toContain(passage);
      text = text.replace(passage, () => replacement);
    }
    await writeFile(join(program.directory, main), text);
  };
  const classes = () => server.kubectl("get", "runtimeclass", "-o", "name");

  beforeAll(async () => {
    program = await engineProject({
      directory: join(clone, "examples", "languages", folder),
      env: { KUBECONFIG: project.env.KUBECONFIG ?? "" },
      plugins: async (home) => {
        await installPackage(home);
        await plugins(home);
      },
      config: {
        installerImage: `registry.example.com/contrast-node-installer@sha256:${"a".repeat(64)}`,
      },
    });
    await prepare(program);
    const file = join(program.directory, main);
    written = await readFile(file, "utf8");
    await rm(file); // it may be a link into the clone
    await write();
  });
  beforeEach(() => program.mustWork(program.pulumi("config", "set", "payload", fixture("kata-rs"))));
  afterAll(() => program?.remove());

  test("is brought up as the example is written, gets another payload, and takes everything away", async () => {
    const { mustWork } = program;
    await mustWork(program.preview());
    await mustWork(program.up());
    const { initdata, ...outputs } = await program.outputs();
    expect(outputs).toMatchObject({
      handlers: { workers: [kataRs], edge: [kataRs] },
      template: { metadata: { labels: { app: "web" } }, spec: { runtimeClassName: kataRs } },
    });
    // Its fields are named as the language does.
    expect(JSON.stringify(initdata)).toMatch(/"host_?[dD]ata":"[0-9a-f]{64}"/);
    expect(await classes()).toContain(kataRs);
    await mustWork(program.preview("--expect-no-changes"));

    await mustWork(program.pulumi("config", "set", "payload", fixture("contrast-go-next")));
    await mustWork(
      program.pulumi(
        "config",
        "set",
        "--plaintext",
        "pullSecret",
        '{"auths":{"registry.example.com":{"auth":"c2VjcmV0"}}}',
      ),
    );
    await mustWork(program.pulumi("config", "set", "--secret", "priorityClass", "a-class-that-is-secret"));
    await write(...texts.changed);
    await mustWork(program.up());
    const next = fixtureHandler("contrast-go-next");
    expect(await program.outputs()).toMatchObject({
      handlers: { workers: [next], edge: [next] },
      reference: { snp: { "EPYC-Milan": { 2: expect.stringMatching(/^[0-9a-f]{96}$/) } } },
    });
    const state = await program.exported();
    expect(state).not.toContain("c2VjcmV0");
    expect(state).not.toContain("a-class-that-is-secret");
    await mustWork(program.preview("--expect-no-changes"));

    await mustWork(program.destroy());
    expect(await classes()).not.toContain("contrast-cc-");
  });

  test("previews with a host's address and key that nobody knows yet", async () => {
    await write(...texts.unknown);
    const { stdout } = await program.mustWork(program.preview());
    expect(stdout).toContain("contrast-runtime:index:BareMetalNodes");
  });

  test("is told its mistakes together, by their paths and without a stack of the package's", async () => {
    await write(...texts.wrong);
    const { code, stdout, stderr } = await program.preview();
    expect(code).not.toBe(0);
    expect(stdout + stderr).toContain("groups[0].minimumNodes: -1 must be 0 or more.");
    expect(stdout + stderr).toContain("groups[0].atOnce: 0 must be 1 or more.");
    expect(stdout + stderr).not.toMatch(ownStack);
  });
});

test("pulumi new makes a program in YAML of the template in a git repository, whose preview is what it says", async () => {
  const shop = join(project.home, "shop");
  const { pulumi, mustWork } = project;
  await installYaml(join(project.home, "pulumi"));
  const git = await serveTemplates(project.home);
  project.env.SSL_CERT_FILE = git.authorities;
  const answers = ["--yes", "--force", "--generate-only", "--name", "shop", "--dir", shop];
  const { stdout } = await mustWork(pulumi("new", git.template("yaml"), ...answers));
  delete project.env.SSL_CERT_FILE;
  await git.stop();
  expect(stdout).toContain("pulumi package add https://");
  const inShop = (...args: string[]) => mustWork(pulumi("--cwd", shop, ...args));
  await inShop("stack", "init", "shop");
  const image = `registry.example.com/installer@sha256:${"a".repeat(64)}`;
  await inShop("config", "set", "--stack", "shop", "installerImage", image);
  await inShop("config", "set", "--stack", "shop", "payload", fixture("kata-rs"));
  const preview = await inShop("preview", "--stack", "shop");
  expect(preview.stdout).toContain(kataRs);
  expect(preview.stdout).toContain("confidential-workers-rollout");
});
