import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { stringify } from "yaml";
import { systemNamespace } from "../../runtime/names.ts";
import { packageRoot } from "../../tools/files/project.ts";
import { enterNetwork } from "../../tools/local-cluster/layout.ts";
import { ensureLocalPayload } from "../../tools/local-payload/local-payload.ts";
import { toStderr } from "../../tools/process/progress.ts";
import { type EngineProject, engineProject } from "../engine/harness.ts";
import { busyboxPod, clusterNameFor, useCluster } from "./harness.ts";
import { buildProjectImage } from "./project-image.ts";

/** Groups that are renamed, and groups that want the same node: nodes stay as they are, and each refusal has a way back. */
const purpose = "renamed";
const stack = clusterNameFor(purpose);
const nodes = [
  { name: "node-1", labels: { "example.com/pool": "a" } },
  { name: "node-2", labels: { "example.com/pool": "a", "example.com/extra": "b" } },
];
const cluster = useCluster(purpose, nodes);
let project: EngineProject;

beforeAll(async () => {
  project = await engineProject({ directory: packageRoot, stack, prefix: enterNetwork(stack) });
  await ensureLocalPayload({ directory: join(project.directory, ".local/payloads/local"), name: "local" }, toStderr);
  await buildProjectImage(project.directory);
});
afterAll(async () => project?.remove());

interface Group {
  nodes?: object;
  formerly?: string;
  onDestroy?: string;
}

async function configure(groups: Record<string, Group>): Promise<void> {
  const config = {
    "contrast-runtime:cluster": { kind: "local", nodes },
    "contrast-runtime:groups": Object.fromEntries(
      Object.entries(groups).map(([name, group]) => [
        name,
        {
          distribution: "containerd",
          nodes: { selector: { "example.com/pool": "a" } },
          minimumNodes: 0,
          stallTimeout: 120,
          runtimes: [{ platform: "local", payload: ".local/payloads/local/manifest.json" }],
          ...group,
        },
      ]),
    ),
  };
  await writeFile(join(project.directory, `Pulumi.${stack}.yaml`), stringify({ config }));
}

const groupOf = async (node: string): Promise<string> =>
  JSON.parse(await cluster().onNode(node, "cat", "/var/lib/contrast-runtime/journal.json")).group;
/** What a restart, an installation or another owner would change. */
const untouched = async () =>
  await Promise.all(
    nodes.map(async ({ name }) => [
      await cluster().onNode(
        name,
        "systemctl",
        "show",
        "containerd",
        "--property=MainPID,ExecMainStartTimestampMonotonic",
      ),
      await cluster().onNode(name, "sh", "-c", "ls -li --time-style=full-iso /etc/containerd /opt/edgeless"),
    ]),
  );
const podsContainer = async () =>
  (
    await cluster().kubectl("get", "pod", "running", "-o", "jsonpath={.status.containerStatuses[0].containerID}")
  ).trim();
const installers = async () =>
  (await cluster().kubectl("get", "daemonset", "-n", systemNamespace, "-o", "name")).trim().split("\n");
const statusKeys = async () => {
  const { items } = await cluster().get<{ items: { metadata: { annotations: Record<string, string> } }[] }>("nodes");
  const keys = items.flatMap(({ metadata }) => Object.keys(metadata.annotations));
  return [...new Set(keys.filter((key) => key.startsWith("status.runtime.contrast")))].map((key) => key.split("/")[1]);
};

let before: Awaited<ReturnType<typeof untouched>>;
let container = "";

async function expectUntouched(group: string): Promise<void> {
  expect(await Promise.all(nodes.map(({ name }) => groupOf(name)))).toEqual([group, group]);
  expect(await untouched()).toEqual(before);
  expect(await podsContainer()).toBe(container);
  expect(await installers()).toEqual([`daemonset.apps/contrast-installer-${group}`]);
  expect(await statusKeys()).toEqual([group]);
}

test("a group is renamed, and back, by one update each, while its pods run", async () => {
  await configure({ workers: {} });
  await project.mustWork(project.up());
  const { handlers } = (await project.outputs()) as { handlers: Record<string, string[]> };
  const runtimeClassName = handlers.workers?.[0];
  await cluster().apply(busyboxPod(cluster(), "running", { nodeName: "node-1", runtimeClassName }));
  await cluster().kubectl("wait", "--for=condition=Ready", "pod/running", "--timeout=120s");
  [before, container] = [await untouched(), await podsContainer()];

  await configure({ renamed: { formerly: "workers" } });
  await project.mustWork(project.up());
  await expectUntouched("renamed");
  await project.mustWork(project.preview("--expect-no-changes"));
  await configure({ workers: { formerly: "renamed" } });
  await project.mustWork(project.up());
  await configure({ workers: {} });
  await project.mustWork(project.up());
  await expectUntouched("workers");
});

test("one that was renamed without a word is refused on its nodes; its old name, or formerly, is the way back", async () => {
  const mistake = async () => {
    await configure({ mistaken: {} });
    const { code, stdout } = await project.up("--show-full-output");
    expect(code).not.toBe(0);
    expect(stdout).toContain('If "mistaken" is the new name of "workers": set formerly: workers for "mistaken"');
  };
  await mistake();
  await configure({ workers: {} });
  await project.mustWork(project.up());
  await expectUntouched("workers");

  await mistake();
  await configure({ mistaken: { formerly: "workers" } });
  await project.mustWork(project.up());
  await expectUntouched("mistaken");
});

test("a node that two groups select goes where it shall by what the refusal says", async () => {
  const both = { mistaken: {}, others: { nodes: { selector: { "example.com/extra": "b" } } } };
  await configure(both);
  const refused = await project.up("--show-full-output");
  expect(refused.code).not.toBe(0);
  expect(refused.stdout).toContain('node-2: failed: This node belongs to the node group "mistaken"');
  expect(await groupOf("node-2")).toBe("mistaken");

  await configure({ ...both, mistaken: { nodes: { names: ["node-1"] } } });
  const left = await project.up("--show-full-output");
  expect(left.code).not.toBe(0);
  const [, words = ""] = /or run: npx contrast-runtime (.* --nodes node-2)$/m.exec(left.stdout) ?? [];
  expect(words).toBe("uninstall --group mistaken --nodes node-2");
  const kubeconfig = join(project.home, "kubeconfig");
  await writeFile(kubeconfig, cluster().kubeconfig);
  const program = join(packageRoot, ".local/bin/contrast-runtime");
  await cluster().inNetwork("env", `KUBECONFIG=${kubeconfig}`, program, ...words.split(" "));
  await project.mustWork(project.up());
  expect(await Promise.all(nodes.map(({ name }) => groupOf(name)))).toEqual(["mistaken", "others"]);
  expect(await podsContainer()).toBe(container);
});

test("two groups become one while their nodes stay as they are", async () => {
  const pair = { mistaken: { nodes: { names: ["node-1"] } }, others: { nodes: { names: ["node-2"] } } };
  before = await untouched();
  await configure({ ...pair, others: { ...pair.others, onDestroy: "leave" } });
  await project.mustWork(project.up());
  await configure({ mistaken: pair.mistaken });
  await project.mustWork(project.up());
  expect(await groupOf("node-2")).toBe("others");
  await configure({ mistaken: { formerly: "others" } });
  await project.mustWork(project.up());
  await expectUntouched("mistaken");
});
