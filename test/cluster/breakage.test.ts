import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { restartsPath } from "../../node-installer/host/restart-budget.ts";
import { type Breakage, breakOn, heal, makeBreakable } from "./breakable-containerd.ts";
import { busyboxPod, until, useCluster } from "./harness.ts";
import { InstallerDaemonSet, pushInstaller } from "./installer-daemon-set.ts";
import { configPath, handlersOf, NodeWithInstaller } from "./installer-on-node.ts";
import { type SmallPayload, smallPayload, specOf } from "./small-payloads.ts";

/**
 * A rollout on nodes where something breaks: containerd's CRI plugin, containerd itself, kubelet. The node returns to its
 * old state on its own, its pods keep running, and no other node is touched.
 */
const cluster = useCluster("breakage", [{ name: "node-1" }, { name: "node-2", containerd: "1.7" }, { name: "node-3" }]);

let directory: string;
let payloads: [SmallPayload, SmallPayload];
let nodes: NodeWithInstaller[];
/** Two nodes take turns; the third has its own group, because the test with kubelet takes long. */
let workers: InstallerDaemonSet;
let edge: InstallerDaemonSet;
let before: Map<string, string>;
let kubeletBreaks: Promise<KubeletStory>;

const named = (name: string): NodeWithInstaller => {
  const found = nodes.find((node) => node.name === name);
  if (found === undefined) throw new Error(`no node ${name}`);
  return found;
};
const other = (name: string) => named(name === "node-1" ? "node-2" : "node-1");

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "breakage-"));
  payloads = [await smallPayload(directory, "one"), await smallPayload(directory, "two")];
  nodes = ["node-1", "node-2", "node-3"].map((name) => new NodeWithInstaller(cluster(), name));
  const image = await pushInstaller(cluster(), payloads);
  workers = new InstallerDaemonSet(cluster(), { group: "workers", image, nodeNames: ["node-1", "node-2"] });
  edge = new InstallerDaemonSet(cluster(), { group: "edge", image, nodeNames: ["node-3"] });
  await Promise.all([named("node-1"), named("node-2")].map(makeBreakable));
  await run(...nodes.map(({ name }) => busyboxPod(cluster(), `beside-${name}`, { nodeName: name })));
  before = await containers();
  kubeletBreaks = breakKubelet();
  // Its own test, the last one, awaits it.
  kubeletBreaks.catch(() => undefined);
});
afterAll(() => rm(directory, { recursive: true, force: true }));

async function run(...pods: ReturnType<typeof busyboxPod>[]): Promise<void> {
  await cluster().apply(...pods);
  for (const { metadata } of pods)
    await cluster().kubectl("wait", "--for=condition=Ready", `pod/${metadata.name}`, "--timeout=120s");
}

interface Pods {
  items: { metadata: { name: string }; status: { containerStatuses?: { containerID: string }[] } }[];
}
/** Which container each pod of the namespace default runs. */
async function containers(): Promise<Map<string, string>> {
  const { items } = await cluster().get<Pods>("pods");
  return new Map(
    items.map(({ metadata, status }) => [metadata.name, status.containerStatuses?.[0]?.containerID ?? ""]),
  );
}

/** Everything that must be unchanged on a node that waits for its turn. */
const untouched = async (node: NodeWithInstaller): Promise<string> =>
  `${await node.read(configPath)}\n${await node.run("ls", "/etc/containerd", "/etc/systemd/system")}
${await node.run("systemctl", "show", "containerd.service", "--property=InvocationID,MainPID")}`;

const both = () => [named("node-1"), named("node-2")] as const;
const runtimes = (count: 1 | 2) => payloads.slice(0, count).map(({ runtime }) => runtime);
const handlers = (count: 1 | 2) =>
  runtimes(count)
    .map(({ handler }) => handler)
    .toSorted();
const breakBoth = (breakage: Breakage, payload: SmallPayload) =>
  Promise.all(both().map((node) => breakOn(node, payload.runtime.handler, breakage)));

/** Rolls out and expects that one of the two nodes fails with this and the other waits, both in their old state. */
async function expectStopped(
  count: 1 | 2,
  says: RegExp,
  during: (node: NodeWithInstaller) => Promise<void> = async () => {},
) {
  const files = new Map(
    await Promise.all(both().map(async (node) => [node.name, await node.read(configPath)] as const)),
  );
  const states = new Map(await Promise.all(both().map(async (node) => [node.name, await untouched(node)] as const)));
  await workers.apply(specOf("workers", runtimes(count)));
  const holder = await until("a node takes the ticket", async () => (await workers.ticket())?.holder);
  await during(named(holder));
  const { node, status } = await workers.failedNode();
  expect(node).toBe(holder);
  expect(status.reason).toMatch(says);
  expect(status.reason).toContain("rolled back");
  expect(status.handlers).toEqual(handlersOf(files.get(node)));

  expect(await named(node).settled()).toBe(files.get(node));
  expect((await workers.ticket())?.holder).toBe(node);
  expect((await workers.ticket())?.reason).toMatch(says);
  const waiting = await until("the other node waits for the ticket", async () => {
    const other = await workers.status(node === "node-1" ? "node-2" : "node-1");
    return other?.state === "waiting" ? other : undefined;
  });
  expect(waiting.reason).toMatch(/^Waiting for its turn/);
  expect(await untouched(other(node))).toBe(states.get(other(node).name));
  return { node: named(node), status };
}

/** Runs the update again, after the nodes were repaired; with the day's restarts forgotten, which one of them may have spent. */
async function expectRolledOut(count: 1 | 2): Promise<void> {
  await Promise.all(both().map(heal));
  await Promise.all(both().map((node) => node.run("rm", "-f", restartsPath)));
  const { code, stdout, stderr } = await workers.rollout();
  expect(code, stdout + stderr).toBe(0);
  for (const node of both()) expect(await node.served()).toEqual(handlers(count));
}

test("a CRI plugin that does not load: rolled back, reported, and the rollout stops there", async () => {
  await breakBoth("cri", payloads[0]);
  const { node } = await expectStopped(1, /its CRI plugin is not running/);
  const { code, stderr } = await workers.rollout();
  expect(code).toBe(1);
  expect(stderr).toContain(`${node.name}: failed: The change of ${configPath} failed and was rolled back`);
  const events = await cluster().kubectl("get", "events", "--field-selector=type=Warning", "-o", "json");
  expect(events).toContain("rolled back");
  expect(await containers()).toEqual(before);
  await expectRolledOut(1);
});

test("a containerd that exits at its start: the handler from before is served, and pods of it go on", async () => {
  const pods = both().map(({ name }) =>
    busyboxPod(cluster(), `confidential-${name}`, { nodeName: name, runtimeClassName: handlers(1)[0] }),
  );
  const [handler = ""] = handlers(1);
  await cluster().apply({ apiVersion: "node.k8s.io/v1", kind: "RuntimeClass", metadata: { name: handler }, handler });
  await run(...pods);
  before = await containers();
  await breakBoth("exits", payloads[1]);
  await expectStopped(2, /containerd\.service is (failed|activating)/);
  expect(await containers()).toEqual(before);
});

test("containerd hangs and the installer's pod dies meanwhile: host and kubelet bring the node back", async () => {
  await breakBoth("hangs", payloads[1]);
  const files = new Map(await Promise.all(both().map(async (node) => [node, await node.read(configPath)] as const)));
  // Whether the node that failed or the one that waited comes first, is chance.
  const rollout = workers.rollout();
  const node = await until("containerd hangs on the new file", async () => {
    for (const [one, file] of files)
      if ((await one.read(configPath)) !== file && (await one.served()) === undefined) return one;
    return undefined;
  });
  const old = files.get(node);
  // It cannot be restarted through the CRI, which is what broke.
  await node.run("sh", "-c", "kill -9 $(pgrep -f '^/bin/node .*/app/node-installer.mjs watch')");
  expect(await node.settled()).toBe(old);
  expect(await containers()).toEqual(before);
  // Restarted by kubelet, it tries once more, and then gives up.
  const { code, stderr } = await rollout;
  expect(code).toBe(1);
  expect(stderr).toMatch(/rolled back: .*containerd\.service is/);
  expect(await node.settled()).toBe(old);
  await expectRolledOut(2);
});

interface KubeletStory {
  reason: string;
  old: string | undefined;
}

/** A kubelet that restarts with containerd and does not start as long as containerd's file has our handler. */
const frailKubelet = `[Unit]
PartOf=containerd.service
StartLimitIntervalSec=0
[Service]
ExecStartPre=/bin/sh -c '! grep -q contrast- ${configPath}'
`;

async function breakKubelet(): Promise<KubeletStory> {
  const node = named("node-3");
  await node.write("/etc/systemd/system/kubelet.service.d/frail.conf", frailKubelet);
  await node.run("systemctl", "daemon-reload");
  const old = await node.read(configPath);
  await edge.apply(specOf("edge", runtimes(1)));
  const { status } = await edge.failedNode(400_000);
  expect(await node.settled()).toBe(old);
  return { reason: status.reason, old };
}

test("a kubelet that stays NotReady: rolled back, and the node is Ready again", async () => {
  const { reason } = await kubeletBreaks;
  expect(reason).toMatch(/Ready before/);
  expect((await edge.ticket())?.holder).toBe("node-3");
  await cluster().kubectl("wait", "--for=condition=Ready", "node/node-3", "--timeout=60s");
});

test("through all of it no other pod's container was touched, and every node runs new pods", async () => {
  expect(await containers()).toEqual(before);
  await run(...nodes.map(({ name }) => busyboxPod(cluster(), `new-${name}`, { nodeName: name })));
});
