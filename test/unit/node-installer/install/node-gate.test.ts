import { afterEach, beforeEach, expect, test } from "vitest";
import { journalPath } from "../../../../node-installer/host/journal.ts";
import { converge } from "../../../../node-installer/install/converge.ts";
import { RolledBack } from "../../../../node-installer/install/rolled-back.ts";
import { type Cluster, withoutKubernetes } from "../../../../node-installer/kubernetes/connect.ts";
import type { NodeReadiness } from "../../../../node-installer/kubernetes/node.ts";
import type { InstallSpec } from "../../../../runtime/spec.ts";
import { adminsFile, configPath, MemoryNode } from "../../../fakes/memory-node.ts";

let node: MemoryNode;
let cluster: Cluster;
let spec: InstallSpec;
/** What kubelet reports, by how often containerd was started and the milliseconds since its last start. */
let kubelet: (starts: number, since: number) => Omit<NodeReadiness, "reason"> | undefined;
beforeEach(() => {
  node = new MemoryNode();
  spec = node.spec([node.runtime("00000001")]);
  cluster = withoutKubernetes(() => node.host.now());
  let started = node.host.time;
  let starts = node.starts;
  cluster.reporter.nodeReady = async () => {
    if (starts !== node.starts) started = node.host.time;
    starts = node.starts;
    const said = kubelet(starts, node.host.time - started);
    return said && { ...said, reason: "KubeletNotReady: no network" };
  };
});
afterEach(() => node.close());

const long = new Date(0);
const install = () => converge(node.environment(spec, cluster));
const failure = async (): Promise<RolledBack> => {
  const error: unknown = await install().catch((reason: unknown) => reason);
  if (error instanceof RolledBack) return error;
  throw new Error(`not rolled back: ${String(error)}`);
};

test("a heartbeat from after the restart ends the gate; an older one does not, nor one of a node that is not ready", async () => {
  const began = node.host.time;
  kubelet = (starts, since) => ({
    ready: starts === 1 || since >= 30_000,
    heartbeat: since < 40_000 ? long : node.host.now(),
  });
  await install();
  expect(node.served).toHaveLength(1);
  expect(node.host.time - began).toBeGreaterThanOrEqual(40_000);
  expect(node.host.time - began).toBeLessThan(60_000);
});

test("a silent kubelet is waited for until it would have been found dead", async () => {
  const began = node.host.time;
  kubelet = () => ({ ready: true, heartbeat: long });
  await install();
  expect(node.host.time - began).toBeGreaterThanOrEqual(60_000);
  expect(node.host.time - began).toBeLessThan(90_000);
});

test("a node that stays not ready is rolled back, and is ready again", async () => {
  kubelet = (starts) => ({ ready: starts !== 2, heartbeat: node.host.now() });
  const { message, code } = await failure();
  expect(code).toBe("gate-failed");
  expect(message).toContain("the node was Ready before, but is not 120 s after");
  expect(message).toContain("KubeletNotReady: no network");
  expect(message).toContain("The node serves as before.");
  expect(node.host.text(configPath)).toBe(adminsFile);
});

test("a node that is not ready even after the rollback is reported, and containerd is not restarted again and again", async () => {
  kubelet = (starts) => ({ ready: starts === 1, heartbeat: node.host.now() });
  expect((await failure()).message).toContain("look at kubelet on this node");
  expect(node.host.text(configPath)).toBe(adminsFile);
  expect(node.starts).toBe(3);
  expect(JSON.parse(node.host.text(journalPath) ?? "")).not.toHaveProperty("transaction");
});

test("a change that was interrupted after its restart is not committed while the node is not ready", async () => {
  kubelet = (starts) => ({ ready: starts !== 2, heartbeat: node.host.now() });
  node.host.onPoint = (point, when) => {
    if (when === "after" && point === "run systemctl restart containerd.service") node.host.kill();
  };
  await expect(install()).rejects.toThrow("the process was killed");
  node.host.revive();
  await expect(install()).rejects.toMatchObject({ code: "failed-before" });
  expect(node.host.text(configPath)).toBe(adminsFile);
});

test.each([-3_600_000, 3_600_000])("setting the clock by %i ms neither ends the gate nor prolongs it", async (ms) => {
  const began = node.host.time;
  kubelet = (starts, since) => {
    if (starts === 2) node.host.skew = ms;
    return { ready: starts === 1 || since >= 30_000, heartbeat: long };
  };
  await install();
  expect(node.served).toHaveLength(1);
  expect(node.host.time - began).toBeGreaterThanOrEqual(60_000);
  expect(node.host.time - began).toBeLessThan(90_000);
});

test("a node that was not ready before need not be ready", async () => {
  kubelet = () => ({ ready: false, heartbeat: node.host.now() });
  await install();
  expect(node.served).toHaveLength(1);
});

test("an API server that does not answer, before or after, fails nothing", async () => {
  kubelet = (starts) => (starts === 1 ? { ready: true, heartbeat: long } : undefined);
  await install();
  expect(node.served).toHaveLength(1);
});
