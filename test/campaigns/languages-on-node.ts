// languages-on-node.ts [LANGUAGE …]: the examples in Python and YAML (or those that are named; also go) on a real node: a
// local cluster whose one node both of an example's groups may name by its labels. A preview, an update that installs and
// a pod of the class, no change, another payload and a pod of its class, and destroy, after which the node is as it was.
// The package, the SDKs and the language hosts are those of test/engine. Needs what a local cluster needs; a few minutes.
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { packageRoot } from "../../tools/files/project.ts";
import { buildImage, localPayloads } from "../../tools/image/build.ts";
import { buildPrograms } from "../../tools/image/bundle.ts";
import { destroyCluster, ensureCluster, runKubectl, runOnNode } from "../../tools/local-cluster/cluster.ts";
import { enterNetwork } from "../../tools/local-cluster/layout.ts";
import { ensureLocalPayload } from "../../tools/local-payload/local-payload.ts";
import { check } from "../../tools/process/run.ts";
import { engineProject } from "../engine/harness.ts";
import {
  installGo,
  installPackage,
  installPython,
  installYaml,
  prepareGo,
  preparePython,
} from "../engine/language-hosts.ts";
import { expectations } from "./real-vm/report.ts";

/** How each example runs, and how it names the platform and the nodes that its first group waits for. */
const languages = {
  python: { main: "__main__.py", plugins: installPython, prepare: preparePython, waits: ["minimum_nodes=0", "1"] },
  yaml: { main: "Pulumi.yaml", plugins: installYaml, prepare: async () => {}, waits: ["minimumNodes: 0", "1"] },
  go: { main: "main.go", plugins: installGo, prepare: prepareGo, waits: ["pulumi.Int(0)", "1)"] },
} as const;
const isLanguage = (word: string): word is keyof typeof languages => word in languages;
const words = process.argv.length > 2 ? process.argv.slice(2) : ["python", "yaml"];
const unknown = words.filter((word) => !isLanguage(word));
if (unknown.length > 0) throw new Error(`${unknown.join(", ")}: must be of ${Object.keys(languages).join(", ")}.`);

const { tell, expect, failures } = expectations();
const name = "languages";
const node = "node-1";
const directory = await mkdtemp(join(tmpdir(), "languages-on-node-"));
const payloads = join(directory, "payloads");
const manifest = (payload: string) => join(payloads, payload, "manifest.json");

await destroyCluster(name, tell, { force: true });
const labels = { "example.com/pool": "snp" };
const cluster = await ensureCluster({ name, nodes: [{ name: node, labels }] }, tell);
const kubectl = async (args: string[], input?: string) => {
  const result = await runKubectl(name, args, input);
  if (result.code !== 0) tell(`kubectl ${args.join(" ")} → ${result.code}\n${result.stdout}${result.stderr}`);
  return result;
};
/** containerd's configuration, and our files; the log stays, for the admin to read and remove. */
const traces = async () =>
  (
    await runOnNode(name, node, [
      ...["sh", "-c"],
      "cat /etc/containerd/config.toml; find /opt/edgeless /var/lib/contrast-runtime /etc/systemd/system /etc/containerd -name '*contrast*' -o -name 'config.toml.*' -o -path '/opt/edgeless*' -type f 2>/dev/null",
    ])
  ).stdout;

async function runPod(pod: string, runtimeClassName: string): Promise<boolean> {
  const container = {
    name: "main",
    image: cluster.images.busybox,
    command: ["sh", "-c", "trap exit TERM; sleep inf & wait"],
  };
  const spec = { runtimeClassName, terminationGracePeriodSeconds: 1, containers: [container] };
  const object = { apiVersion: "v1", kind: "Pod", metadata: { name: pod, namespace: "default" }, spec };
  await kubectl(["apply", "-f", "-"], JSON.stringify(object));
  return (await kubectl(["wait", "--for=condition=Ready", `pod/${pod}`, "--timeout=120s"])).code === 0;
}

/** @param image the installer's, in the cluster's registry */
async function tryIn(language: keyof typeof languages, image: string): Promise<void> {
  const { main, plugins, prepare, waits } = languages[language];
  const before = await traces();
  const project = await engineProject({
    directory: join(packageRoot, "examples", "languages", language),
    prefix: enterNetwork(name),
    plugins: async (home) => {
      await installPackage(home);
      await plugins(home);
    },
    config: { installerImage: image, payload: manifest("local") },
  });
  try {
    await prepare(project);
    project.env.KUBECONFIG = join(directory, "kubeconfig");
    const file = join(project.directory, main);
    const text = await readFile(file, "utf8");
    await rm(file); // it may be a link into the clone
    const [passage, number] = waits;
    await writeFile(
      file,
      text
        .replaceAll("metal-qemu-snp", "local")
        .replaceAll("PlatformNameMetalQemuSnp", "PlatformNameLocal")
        .replace(passage, `${passage.replace(/0\)?$/, "")}${number}`),
    );
    const works = async (step: string, ...args: string[]) => {
      const { code, stdout, stderr } = await project.pulumi(...args);
      if (code !== 0) tell(`${stdout}${stderr}`);
      expect(`${language}: ${step}`, code === 0);
      return stdout;
    };
    const handlerNow = async () =>
      ((await project.outputs()) as { handlers: Record<string, string[]> }).handlers.workers?.[0] ?? "";

    await works("preview", "preview");
    await works("up installs on the node", "up", "--yes", "--skip-preview");
    const first = await handlerNow();
    expect(`${language}: a pod of ${first} is Ready`, await runPod("one", first));
    await works("nothing is left to change", "preview", "--expect-no-changes");

    await kubectl(["delete", "pod", "one", "--wait"]);
    await works("config", "config", "set", "payload", manifest("local-next"));
    await works("up with another payload", "up", "--yes", "--skip-preview");
    const next = await handlerNow();
    expect(`${language}: the class is another one`, next !== first && next !== "");
    expect(`${language}: a pod of ${next} is Ready`, await runPod("two", next));

    await kubectl(["delete", "pod", "two", "--wait"]);
    await works("destroy", "destroy", "--yes", "--skip-preview");
    const classes = (await kubectl(["get", "runtimeclass", "-o", "name"])).stdout;
    expect(`${language}: no class is left`, !classes.includes(first) && !classes.includes(next));
    const after = await traces();
    if (after !== before) tell(`before:\n${before}after:\n${after}`);
    expect(`${language}: the node's files are as they were`, after === before);
  } finally {
    await project.remove();
  }
}

try {
  await writeFile(join(directory, "kubeconfig"), cluster.kubeconfig, { mode: 0o600 });
  await ensureLocalPayload({ directory: join(payloads, "local"), name: "local" }, tell);
  const change = { path: "share/kata-kernel", append: "next" };
  await ensureLocalPayload({ directory: join(payloads, "local-next"), name: "local-next", change }, tell);
  const layoutDir = join(directory, "image");
  const { nodeInstaller } = await buildPrograms();
  await buildImage({ layoutDir, program: nodeInstaller, payloads: await localPayloads(undefined, payloads) }, tell);
  const [enter = "", ...inside] = enterNetwork(name);
  const bin = [process.execPath, join(packageRoot, "tools", "cli", "bin.mjs")];
  const to = ["--registry", `http://${cluster.registry}`, "--repository", "contrast-node-installer"];
  const pushed = await check(enter, [...inside, ...bin, "image", "push", "--layout", layoutDir, ...to]);
  tell(pushed.trim());
  for (const language of words.filter(isLanguage)) await tryIn(language, pushed.trim().split("\n").at(-1) ?? "");
} finally {
  if (process.env.KEEP_CLUSTER === undefined) await destroyCluster(name, tell, { force: true });
  await rm(directory, { recursive: true, force: true });
}
tell(failures() === 0 ? "All held." : `${failures()} failed.`);
process.exitCode = failures() === 0 ? 0 : 1;
