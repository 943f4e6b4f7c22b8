import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { handlerLabel, specHash } from "../../runtime/names.ts";
import { busyboxPod, until, useCluster } from "./harness.ts";
import { InstallerDaemonSet, pushInstaller } from "./installer-daemon-set.ts";
import { type SmallPayload, smallPayload, specOf } from "./small-payloads.ts";

/**
 * A node as autoscalers make them: its kubelet registers it with the startup taint, and the template that it comes from says
 * that it serves the handler. Nothing of the class lands there before that is true.
 */
const cluster = useCluster("startup-taint");
const node = "node-1";
const group = "pool";
const startupTaint = "runtime.contrast.edgeless.systems/not-ready";
const theirs = { key: "example.com/slow-disk", effect: "PreferNoSchedule" };

let directory: string;
let payload: SmallPayload;
let installer: InstallerDaemonSet;

interface Node {
  metadata: { uid: string; labels: Record<string, string> };
  spec: { taints?: { key: string; effect: string }[] };
}
interface Pod {
  spec: { nodeName?: string };
  status: { phase: string; conditions?: { type: string; reason?: string; message?: string }[] };
}
const registered = () => cluster().get<Node>("node", node);
const pod = (name: string) => cluster().get<Pod>("pod", name);

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "startup-taint-"));
  payload = await smallPayload(directory, "one");
  const image = await pushInstaller(cluster(), [payload]);
  installer = new InstallerDaemonSet(cluster(), { group, image, nodeNames: [node] });
  const { handler } = payload.runtime;
  await cluster().apply({
    ...{ apiVersion: "node.k8s.io/v1", kind: "RuntimeClass", metadata: { name: handler }, handler },
    scheduling: { nodeSelector: { [handlerLabel(handler)]: "true" } },
  });
});
afterAll(() => rm(directory, { recursive: true, force: true }));

/** The node as a new one: nothing in the cluster knows it, and its kubelet brings the taints. */
async function joinAgain(): Promise<void> {
  const { uid } = (await registered()).metadata;
  const file = "/etc/kubernetes/kubelet.json";
  const configuration = JSON.parse(await cluster().onNode(node, "cat", file));
  const tainted = { ...configuration, registerWithTaints: [{ key: startupTaint, effect: "NoSchedule" }, theirs] };
  await cluster().onNode(node, "systemctl", "stop", "kubelet.service");
  await cluster().tryOnNode(node, ["tee", file], JSON.stringify(tainted));
  await cluster().kubectl("delete", "node", node);
  await cluster().onNode(node, "systemctl", "start", "kubelet.service");
  await until("the node has joined again", async () => {
    const { code, stdout } = await cluster().tryKubectl(["get", "node", node, "-o", "json"]);
    return (code === 0 && (JSON.parse(stdout) as Node).metadata.uid !== uid) || undefined;
  });
  // As the node template of an autoscaler has it.
  await cluster().kubectl("label", "node", node, `${handlerLabel(payload.runtime.handler)}=true`);
}

test("pods wait for the taint although the label is there, then for the gate, then they run; other taints stay", async () => {
  const { handler } = payload.runtime;
  await joinAgain();
  expect((await registered()).spec.taints).toContainEqual({ key: startupTaint, effect: "NoSchedule" });
  await cluster().apply(busyboxPod(cluster(), "early", { runtimeClassName: handler }));
  const scheduled = await until("the scheduler has looked at the pod", async () =>
    (await pod("early")).status.conditions?.find(({ type, message }) => type === "PodScheduled" && message),
  );
  // The other taint keeps nobody off, so it is this one.
  expect(scheduled).toMatchObject({
    reason: "Unschedulable",
    message: expect.stringContaining("1 node(s) had untolerated taint"),
  });

  const spec = JSON.stringify({ ...JSON.parse(specOf(group, [payload.runtime])), startupTaint });
  await installer.apply(spec);
  const { code, stdout, stderr } = await installer.rollout();
  expect(code, stdout + stderr).toBe(0);
  expect(await installer.status(node)).toMatchObject({ state: "ready", specHash: specHash(spec) });
  const { metadata, spec: nodeSpec } = await registered();
  expect(metadata.labels[handlerLabel(handler)]).toBe("true");
  expect(nodeSpec.taints?.map(({ key }) => key)).toEqual([theirs.key]);
  await cluster().kubectl("wait", "pod/early", "--for=condition=Ready", "--timeout=300s");
  expect((await pod("early")).spec.nodeName).toBe(node);
  await cluster().kubectl("delete", "pod", "early");
});

test("a node that comes back with the taint is rid of it without a change of its own", async () => {
  const before = await cluster().onNode(node, "systemctl", "show", "containerd.service", "--property=InvocationID");
  await joinAgain();
  await until(
    "the taint is gone",
    async () => {
      const { taints } = (await registered()).spec;
      return taints?.every(({ key }) => key !== startupTaint) || undefined;
    },
    600_000,
  );
  expect(await cluster().onNode(node, "systemctl", "show", "containerd.service", "--property=InvocationID")).toBe(
    before,
  );
});
