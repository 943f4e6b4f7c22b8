import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { afterAll, beforeAll, expect, test } from "vitest";
import { stringify } from "yaml";
import { handlerLabelPrefix } from "../../runtime/names.ts";
import { runtimeDirectory } from "../../runtime/spec.ts";
import { packageRoot } from "../../tools/files/project.ts";
import { enterNetwork } from "../../tools/local-cluster/layout.ts";
import { ensureLocalPayload } from "../../tools/local-payload/local-payload.ts";
import { toStderr } from "../../tools/process/progress.ts";
import { run as runProgram } from "../../tools/process/run.ts";
import { type EngineProject, engineProject } from "../engine/harness.ts";
import { busyboxPod, clusterNameFor, until, useCluster } from "./harness.ts";
import { buildProjectImage } from "./project-image.ts";

/**
 * The product as its users run it: the program under the real engine, on real nodes with two generations of containerd,
 * from an empty cluster through an upgrade back to nodes that look untouched.
 */
const purpose = "stack";
const nodes = [
  { name: "node-1", containerd: "2.4" as const },
  { name: "node-2", containerd: "1.7" as const },
];
const cluster = useCluster(purpose, nodes);
let project: EngineProject;

/** What the nodes had before anything of ours was installed. */
const original: Record<string, string> = {};
let oldHandler = "";
let newHandler = "";

beforeAll(async () => {
  const stack = clusterNameFor(purpose);
  project = await engineProject({
    directory: packageRoot,
    stack,
    prefix: enterNetwork(stack),
  });
  const payload = (name: string) => join(project.directory, ".local/payloads", name);
  await ensureLocalPayload({ directory: payload("local"), name: "local" }, toStderr);
  const change = { path: "share/kata-kernel", append: "next" };
  await ensureLocalPayload({ directory: payload("local-next"), name: "local-next", change }, toStderr);
  await buildProjectImage(project.directory);
  for (const { name } of nodes) original[name] = await configurationOf(name);
});
afterAll(async () => project?.remove());

/** What pods say: the last of a group's runtimes. */
const stableName = "contrast-insecure";

/** One group per generation of containerd, with the payloads that each should have. */
async function configure(modern: string[], legacy: string[] = modern): Promise<void> {
  const group = (node: string, payloads: string[]) => ({
    distribution: "containerd",
    nodes: { names: [node] },
    minimumNodes: 1,
    runtimes: payloads.map((name) => ({
      ...{ platform: "local", payload: `.local/payloads/${name}/manifest.json` },
      ...(name === payloads.at(-1) && { currentFor: [stableName] }),
    })),
  });
  const config = {
    "contrast-runtime:cluster": { kind: "local", nodes },
    "contrast-runtime:groups": {
      modern: group("node-1", modern),
      ...(legacy.length > 0 && { legacy: group("node-2", legacy) }),
    },
  };
  await writeFile(join(project.directory, `Pulumi.${clusterNameFor(purpose)}.yaml`), stringify({ config }));
}

const handlersOf = async (): Promise<string[]> => {
  const { handlers } = (await project.outputs()) as { handlers: Record<string, string[]> };
  return handlers.modern ?? [];
};

const pod = (name: string, node: string, spec: object = {}) => busyboxPod(cluster(), name, { nodeName: node, ...spec });

async function run(pods: ReturnType<typeof pod>[]): Promise<void> {
  await cluster().apply(...pods);
  for (const { metadata } of pods)
    await cluster().kubectl("wait", "--for=condition=Ready", `pod/${metadata.name}`, "--timeout=120s");
}

interface Class {
  overhead: { podFixed: Record<string, string> };
  scheduling: { nodeSelector: Record<string, string> };
}
interface Admitted {
  spec: { runtimeClassName: string; overhead: object; nodeSelector: object };
}
interface Containers {
  status: { containerStatuses: { containerID: string; restartCount: number }[] };
}
/** The running containers by ID, so that a new container with the same name counts as another one. */
async function containersOf(...pods: string[]): Promise<string[]> {
  const all = await Promise.all(pods.map((name) => cluster().get<Containers>("pod", name)));
  return all.flatMap(({ status }) => status.containerStatuses.map((one) => `${one.containerID} ${one.restartCount}`));
}

const configurationOf = (node: string) => cluster().onNode(node, "cat", "/etc/containerd/config.toml");
const shimsOf = async (node: string, handler: string): Promise<string[]> =>
  (await cluster().onNode(node, "ps", "-eo", "args="))
    .split("\n")
    .filter((line) => line.startsWith(`${runtimeDirectory(handler)}/bin/containerd-shim-contrast-cc-v2 `));

const plain = nodes.map(({ name }) => `plain-${name}`);
let plainContainers: string[] = [];

test("before the installation a pod of the class is refused with the reason", async () => {
  await run(nodes.map(({ name }) => pod(`plain-${name}`, name)));
  plainContainers = await containersOf(...plain);
  const refused = pod("too-early", "node-1", { runtimeClassName: "contrast-insecure-local-00000000" });
  const { code, stderr } = await cluster().tryKubectl(["apply", "-f", "-"], JSON.stringify(refused));
  expect(code).not.toBe(0);
  expect(stderr).toContain('RuntimeClass "contrast-insecure-local-00000000" not found');
});

test("an update installs on both generations of containerd and tells of each node", async () => {
  await configure(["local"]);
  const { code, stdout } = await project.up();
  expect(stdout).toMatch(/node-1: ready: Serves contrast-insecure-local-[0-9a-f]{8}/);
  expect(stdout).toMatch(/node-2: ready: Serves contrast-insecure-local-[0-9a-f]{8}/);
  expect(code).toBe(0);
  [oldHandler = ""] = await handlersOf();
});

test("pods of the class run through the installed shim, also those that say its stable name", async () => {
  const pods = nodes.map(({ name }, i) =>
    pod(`old-${name}`, name, { runtimeClassName: i === 0 ? stableName : oldHandler }),
  );
  await run(pods);
  for (const { name } of nodes) expect(await shimsOf(name, oldHandler), name).toHaveLength(1);
  const { overhead, scheduling } = await cluster().get<Class>("runtimeclass", oldHandler);
  const { spec } = await cluster().get<Admitted>("pod", "old-node-1");
  expect(spec).toMatchObject({ runtimeClassName: oldHandler, overhead: overhead.podFixed, ...scheduling });
});

test("the admin's configuration keeps every byte, with one backup beside it", async () => {
  for (const { name } of nodes) {
    const now = await configurationOf(name);
    expect(now.startsWith(original[name] ?? ""), name).toBe(true);
    expect(now, name).toContain(oldHandler);
    const files = (await cluster().onNode(name, "ls", "/etc/containerd")).trim().split("\n");
    const backups = files.filter((file) => /^config\.toml\..+\.bak$/.test(file));
    expect(backups, name).toHaveLength(1);
    expect(await cluster().onNode(name, "cat", `/etc/containerd/${backups[0]}`), name).toBe(original[name]);
  }
});

test("verify finds every node as its spec says, and reports the digests of what each serves; support packs it", async () => {
  const [report, archive] = [join(project.directory, "report"), join(project.directory, "support.tar.gz")];
  const env = { ...process.env, KUBECONFIG_CONTENT: cluster().kubeconfig };
  const command = (...words: string[]) => {
    const [program = "", ...args] = [...enterNetwork(cluster().name), process.execPath, "tools/cli/main.ts", ...words];
    return runProgram(program, args, { env });
  };
  expect(await command("verify", "--report", report)).toMatchObject({ code: 0 });
  expect(await readFile(join(report, "junit.xml"), "utf8")).toContain('failures="0"');
  const lines = (await readFile(join(report, "statements.jsonl"), "utf8")).trim().split("\n");
  expect(lines.map((line) => (JSON.parse(line) as { predicate: { node: string } }).predicate.node).toSorted()).toEqual(
    nodes.map(({ name }) => name),
  );
  expect(lines[0]).toContain(`${runtimeDirectory(oldHandler)}/bin/containerd-shim-contrast-cc-v2`);
  // What somebody takes from a node is found.
  const label = `${handlerLabelPrefix}${oldHandler}`;
  await cluster().kubectl("label", "node", "node-1", `${label}-`);
  const found = await command("verify");
  expect(found.stdout + found.stderr).toContain(`The label of ${oldHandler} is missing.`);
  expect(found.code).toBe(1);
  await cluster().kubectl("label", "node", "node-1", `${label}=true`);
  expect(await command("support", "--output", archive)).toMatchObject({ code: 0 });
  expect(gunzipSync(await readFile(archive)).toString()).toContain(oldHandler);
});

test("right after the update a preview has nothing to change", async () => {
  const { code, stdout } = await project.preview("--expect-no-changes");
  expect(stdout).toContain("unchanged");
  expect(code).toBe(0);
});

test("a second runtime stands beside the first while the first's pods go on", async () => {
  const running = await containersOf("old-node-1", "old-node-2");
  await configure(["local", "local-next"]);
  const { code, stdout } = await project.up();
  expect(code, stdout).toBe(0);
  newHandler = (await handlersOf()).find((handler) => handler !== oldHandler) ?? "";
  await run(nodes.map(({ name }) => pod(`new-${name}`, name, { runtimeClassName: stableName })));
  for (const { name } of nodes) expect(await shimsOf(name, newHandler), name).toHaveLength(1);
  expect(await containersOf("old-node-1", "old-node-2")).toEqual(running);
});

test("a pod keeps the runtime that its name stood for, also when its sandbox is made again", async () => {
  const [before = ""] = await shimsOf("node-1", oldHandler);
  const sandbox = / -id (\S+)/.exec(before)?.[1] ?? "";
  await cluster().onNode("node-1", "ctr", "-n", "k8s.io", "task", "kill", "-s", "KILL", sandbox);
  // The kubelet makes it again, and removes what is left of the other one later.
  await until("the pod's new sandbox runs the same handler's shim, alone", async () => {
    const [now, ...others] = await shimsOf("node-1", oldHandler);
    return now !== undefined && others.length === 0 && !now.includes(sandbox);
  });
  await cluster().kubectl("wait", "--for=condition=Ready", "pod/old-node-1", "--timeout=120s");
});

test("a runtime that pods use is not removed: the update fails with their names, and its class stays", async () => {
  await configure(["local-next"]);
  const { code, stdout } = await project.up();
  expect(code).not.toBe(0);
  expect(stdout).toContain("default/old-node-1");
  expect(stdout).toContain("default/old-node-2");
  expect(await cluster().kubectl("get", "runtimeclass", oldHandler, "-o", "name")).toContain(oldHandler);
  expect(await shimsOf("node-1", oldHandler)).toHaveLength(1);
});

test("going back to the former stack file takes back a failed update", async () => {
  await configure(["local", "local-next"]);
  const { code, stdout } = await project.up();
  expect(code, stdout).toBe(0);
  const { code: again } = await project.preview("--expect-no-changes");
  expect(again).toBe(0);
  await configure(["local-next"]);
  expect((await project.up()).code).not.toBe(0);
});

test("once its pods are gone the same update uninstalls it, and nothing else", async () => {
  await cluster().kubectl("delete", "pod", "old-node-1", "old-node-2");
  const { code, stdout } = await project.up();
  expect(code, stdout).toBe(0);
  for (const { name } of nodes) {
    expect(await configurationOf(name), name).not.toContain(oldHandler);
    expect((await cluster().onNode(name, "ls", "/opt/edgeless")).trim(), name).toBe(newHandler);
    expect(await shimsOf(name, newHandler), name).toHaveLength(1);
  }
  const classes = await cluster().kubectl("get", "runtimeclasses", "-o", "name");
  expect(classes.trim().split("\n").sort()).toEqual(
    [stableName, newHandler].sort().map((name) => `runtimeclass.node.k8s.io/${name}`),
  );
});

test("a group leaves the stack only when no pod needs it, and its node is as before", async () => {
  await configure(["local-next"], []);
  const refused = await project.up();
  expect(refused.code).not.toBe(0);
  expect(refused.stdout).toContain("default/new-node-2");
  expect(await shimsOf("node-2", newHandler)).toHaveLength(1);
  await cluster().kubectl("delete", "pod", "new-node-2");
  const { code, stdout } = await project.up();
  expect(code, stdout).toBe(0);
  expect(await configurationOf("node-2")).toBe(original["node-2"]);
  expect(await leftovers("node-2")).toEqual([]);
  expect(await shimsOf("node-1", newHandler)).toHaveLength(1);
});

test("through all of it no other pod's container was touched", async () => {
  expect(await containersOf(...plain)).toEqual(plainContainers);
});

/** Our files on a node, except backups and the log, which are for the admin to read and remove. */
async function leftovers(node: string): Promise<string[]> {
  const script =
    "find /opt/edgeless /var/lib/contrast-runtime /etc/systemd/system -name '*contrast*' -o -path '/opt/edgeless*' -type f 2>/dev/null";
  return (await cluster().tryOnNode(node, ["sh", "-c", script])).stdout.trim().split("\n").filter(Boolean);
}

test("destroy removes the cluster", async () => {
  const { code, stdout } = await project.destroy();
  expect(code, stdout).toBe(0);
});
