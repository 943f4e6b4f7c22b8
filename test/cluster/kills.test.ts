import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { buildPrograms, bundle } from "../../tools/image/bundle.ts";
import { breakOn, heal, makeBreakable } from "./breakable-containerd.ts";
import { busyboxPod, useCluster } from "./harness.ts";
import { configPath, handlersOf, NodeWithInstaller } from "./installer-on-node.ts";
import {
  allPoints,
  type Besides,
  type Change,
  from,
  type KillPoint,
  killAt,
  type Row,
  recordPoints,
  tellingPoints,
  withoutGuardRemoval,
} from "./kill-points.ts";
import { type SmallPayload, smallPayload, specOf } from "./small-payloads.ts";

/**
 * The installer is killed at its points and nobody restarts it: only the host brings the node back. After each kill the CRI
 * must serve the old bytes or the new state.
 */
const cluster = useCluster("kills", [{ name: "node-1" }, { name: "node-2" }, { name: "node-3", containerd: "1.7" }]);
const group = "workers";
const nodeNames = ["node-1", "node-2", "node-3"];

let directory: string;
let one: SmallPayload;
let two: SmallPayload;
let nodes: NodeWithInstaller[];
let containers: string[];
const rows: Row[] = [];

const node = (number: 1 | 2 | 3): NodeWithInstaller => nodes[number - 1] as NodeWithInstaller;
const pods = nodeNames.map((name) => `beside-${name}`);

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "kills-"));
  one = await smallPayload(directory, "one");
  two = await smallPayload(directory, "two");
  const { nodeInstaller } = await buildPrograms();
  const faultyInstaller = join(directory, "faulty-installer.mjs");
  await bundle([{ from: "test/cluster/faulty-installer.ts", to: faultyInstaller }]);
  nodes = nodeNames.map((name) => new NodeWithInstaller(cluster(), name));
  await Promise.all(
    nodes.map(async (each) => {
      await each.prepare([nodeInstaller, faultyInstaller], [one, two]);
      await each.keep("empty");
      const { code, stderr } = await each.installer("install", specOf(group, [one.runtime]));
      expect(code, stderr).toBe(0);
      await each.keep("one");
    }),
  );
  await makeBreakable(node(2));
  await run(nodeNames.map((nodeName) => busyboxPod(cluster(), `beside-${nodeName}`, { nodeName })));
  containers = await containersOf(pods);
});

afterAll(async () => {
  await rm(directory, { recursive: true, force: true });
});

async function run(all: ReturnType<typeof busyboxPod>[]): Promise<void> {
  await cluster().apply(...all);
  for (const { metadata } of all)
    await cluster().kubectl("wait", "--for=condition=Ready", `pod/${metadata.name}`, "--timeout=120s");
}

interface Containers {
  status: { containerStatuses: { containerID: string }[] };
}
const containersOf = async (names: string[]): Promise<string[]> => {
  const all = await Promise.all(names.map((name) => cluster().get<Containers>("pod", name)));
  return all.flatMap(({ status }) => status.containerStatuses.map(({ containerID }) => containerID));
};

const pointsOf = async (change: Change): Promise<KillPoint[]> => tellingPoints(allPoints(await recordPoints(change)));

async function killAtEach(change: Change, points: KillPoint[]): Promise<void> {
  expect(points.length).toBeGreaterThan(10);
  for (const point of points) rows.push(await killAt(change, point));
}

/** The cases where the daemon, its file and what is proven differ most. */
const riskiest: KillPoint[] = [
  { point: "step restart", besides: "containerd is stopped" },
  { point: "step gate", besides: "the power fails" },
  { point: "step commit", besides: "containerd is stopped" },
  { point: "step commit", besides: "the power fails" },
].map(({ point, besides }) => ({ point, occurrence: 1, when: "before", besides: besides as Besides }));

const first = (on: NodeWithInstaller): Change => ({
  name: `first installation on ${on.name}`,
  node: on,
  from: "empty",
  spec: specOf(group, [one.runtime]),
  wanted: [one.runtime.handler],
});
const second = (on: NodeWithInstaller): Change => ({
  name: `a second handler on ${on.name}`,
  node: on,
  from: "one",
  spec: specOf(group, [one.runtime, two.runtime]),
  wanted: [one.runtime.handler, two.runtime.handler].toSorted(),
});
const removal = (on: NodeWithInstaller): Change => ({
  name: `uninstallation on ${on.name}`,
  node: on,
  from: "one",
  spec: specOf(group, []),
  wanted: [],
});

describe.concurrent("killed and left alone, a node comes back with the old bytes or the new state:", () => {
  test("first installation, containerd 2.4", async () => {
    const change = first(node(1));
    const points = withoutGuardRemoval(await pointsOf(change));
    const before = points.filter(({ point }) => point.startsWith("step ") || point.endsWith("journal.json"));
    await killAtEach(change, [...new Set([...before, ...from(points, "step back-up")])]);
    expect(new Set(rows.filter((row) => row.change === change.name).map(({ outcome }) => outcome)).size).toBe(2);
  });

  test("a handler that breaks the CRI, containerd 2.4", async () => {
    const change = { ...second(node(2)), name: "a second handler that breaks the CRI, on node-2" };
    await breakOn(node(2), two.runtime.handler, "cri");
    await killAtEach(change, withoutGuardRemoval(from(await pointsOf(change), "step restart")));
    await heal(node(2));
    expect(rows.filter((row) => row.change === change.name && row.outcome !== "old bytes")).toEqual([]);
  });

  test("uninstallation and the steps of an installation, containerd 1.7", async () => {
    const change = removal(node(3));
    await killAtEach(change, withoutGuardRemoval(from(await pointsOf(change), "step edit")));
    const install = first(node(3));
    const points = allPoints(await recordPoints(install));
    await killAtEach(
      install,
      points.filter(({ point, when }) => point.startsWith("step ") && when === "before"),
    );
  });
});

test("an installer that is repeatedly killed at the same place ends with the old bytes, and says so", async () => {
  const spec = specOf(group, [one.runtime]);
  await node(1).reset("empty");
  const old = await node(1).read(configPath);
  const fault = { point: "step gate", occurrence: 1, when: "before" as const };
  let killed = 0;
  let last = await node(1).faultyInstaller(spec, { fault });
  for (; last.code === 128; last = await node(1).faultyInstaller(spec, { fault })) killed += 1;
  expect(killed).toBeGreaterThan(1);
  expect(killed).toBeLessThan(6);
  expect(last.code).toBe(3);
  expect(last.stderr).toContain("was rolled back");
  expect(await node(1).settled()).toBe(old);
});

test("through all of it no other pod's container was touched, and every node runs new pods", async () => {
  expect(await containersOf(pods)).toEqual(containers);
  await run(nodeNames.map((nodeName) => busyboxPod(cluster(), `new-${nodeName}`, { nodeName })));
});

test("killed while containerd is stopped, or by a power failure", async () => {
  const changes = [first(node(1)), second(node(2)), removal(node(3))];
  await Promise.all(
    changes.map(async (change) => {
      for (const point of riskiest) rows.push(await killAt(change, point));
      // The next run finishes what the kill left, in whatever state the host brought the node.
      const { code, stderr } = await change.node.installer("install", change.spec);
      expect(code, stderr).toBe(0);
      expect(handlersOf(await change.node.settled())).toEqual(change.wanted);
    }),
  );
  await cluster().kubectl("wait", "--for=condition=Ready", "node", "--all", "--timeout=120s");
  await run(nodeNames.map((nodeName) => busyboxPod(cluster(), `last-${nodeName}`, { nodeName })));
});
