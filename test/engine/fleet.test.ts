import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type Api, apiClient } from "../../node-installer/kubernetes/api.ts";
import type { PublishedStatus } from "../../node-installer/kubernetes/status.ts";
import {
  installerName,
  systemNamespace as namespace,
  ownKey,
  retryAnnotation,
  specHash,
  statusAnnotation,
} from "../../runtime/names.ts";
import { until } from "../until.ts";
import { type ApiServer, startApiServer } from "./api-server.ts";
import { countingProxy } from "./counting-proxy.ts";
import { type MadeUpNodes, madeUpNodes, type Pod } from "./made-up-nodes.ts";
import { killRuns, runBin } from "./run-bin.ts";

/** The commands of a stack against a real API server and DaemonSet controller; the test plays the installers' reports. */
const group = "metal";
const name = installerName(group);
const handler = "contrast-cc-metal-qemu-snp-0a1b2c3d";
const spec = `${JSON.stringify({ schemaVersion: 1, group, atOnce: 1, runtimes: [{ handler }] })}\n`;
const hash = specHash(spec);
const pool = { "example.com/pool": "metal" };
const emptied = specHash(`${JSON.stringify({ schemaVersion: 1, group, atOnce: 1, runtimes: [] })}\n`);

interface Node {
  metadata: { annotations?: Record<string, string> };
}

let server: ApiServer;
let admin: Api;
let addNode: MadeUpNodes["addNode"];
let setReady: MadeUpNodes["setReady"];
let podOn: MadeUpNodes["podOn"];

beforeAll(async () => {
  server = await startApiServer({ controllers: ["daemonset-controller"] });
  admin = apiClient(server.admin);
  ({ addNode, setReady, podOn } = madeUpNodes(admin, namespace, pool));
  await until("the namespaces", async () => {
    await admin.create("/api/v1/namespaces", { metadata: { name: namespace } });
    return true;
  });
  await until("namespace default", () => admin.get("/api/v1/namespaces/default").then(() => true));
  for (const node of ["node-1", "node-2"]) await addNode(node, true);
  await admin.create(`/api/v1/namespaces/${namespace}/configmaps`, {
    metadata: { name: `${name}-spec` },
    data: { "spec.json": spec },
  });
  await admin.create(`/apis/apps/v1/namespaces/${namespace}/daemonsets`, {
    metadata: { name },
    spec: {
      selector: { matchLabels: { app: name } },
      updateStrategy: { type: "RollingUpdate", rollingUpdate: { maxUnavailable: "100%" } },
      template: {
        metadata: { labels: { app: name } },
        spec: {
          nodeSelector: pool,
          containers: [{ name: "installer", image: "none" }],
          volumes: [{ name: "spec", configMap: { name: `${name}-spec` } }],
        },
      },
    },
  });
}, 900_000);

afterAll(async () => {
  killRuns();
  await server?.stop();
});

/** Reports what the node's installer, and kubelet for its pod, would report. */
async function report(
  node: string,
  state: PublishedStatus["state"],
  reason: string,
  rest: Partial<PublishedStatus> = {},
): Promise<void> {
  await publish(node, { state, reason, handlers: state === "ready" ? [handler] : [], ...rest });
  const { metadata } = await podOn(node);
  await setReady(`/api/v1/namespaces/${namespace}/pods/${metadata.name}`, state === "ready");
}

const publish = (node: string, said: Pick<PublishedStatus, "state" | "reason"> & Partial<PublishedStatus>) => {
  const status: PublishedStatus = {
    code: said.state,
    handlers: [],
    pods: [],
    specHash: hash,
    time: new Date().toISOString(),
    ...said,
  };
  return admin.mergePatch(`/api/v1/nodes/${node}`, {
    metadata: { annotations: { [statusAnnotation(group)]: JSON.stringify(status) } },
  });
};

const contrastRuntime = (...args: string[]) => runBin(server.kubeconfig, ...args);
const rollout = (...args: string[]) => contrastRuntime("rollout", "--group", group, "--spec-hash", hash, ...args);

test("a rollout says each change of each node and ends when all are ready", async () => {
  const run = rollout("--minimum-nodes", "2");
  await run.line(/^node-1: starting: pod Pending$/m);
  await report("node-1", "working", "The payload is copied.");
  await run.line(/^node-1: working: The payload is copied\.$/m);
  await report("node-2", "ready", "All is served.");
  await run.line(/^node-2: ready: All is served\.$/m);
  await report("node-1", "ready", "All is served.");
  expect(await run.code, run.errors()).toBe(0);
  expect(run.output()).toMatch(/Group metal: 2 of 2 nodes ready\.\n$/);
});

test("a failed node fails the update with its reason; running it again asks that node for another attempt", async () => {
  const failure = { code: "rolled-back" };
  await report("node-1", "failed", "The gate refused it; the old bytes are back.", failure);
  const first = rollout();
  const annotations = async () => (await admin.get<Node>("/api/v1/nodes/node-1")).metadata.annotations ?? {};
  await until("the request for a retry", async () => (await annotations())[retryAnnotation(group)] !== undefined);
  await report("node-1", "failed", "It failed again.", {
    ...failure,
    retry: (await annotations())[retryAnnotation(group)] ?? "",
  });
  expect(await first.code).toBe(1);
  expect(first.errors()).toBe("node-1: failed: It failed again.\n");

  const before = (await annotations())[retryAnnotation(group)];
  const second = rollout();
  await until("another request", async () => (await annotations())[retryAnnotation(group)] !== before);
  await report("node-1", "ready", "All is served.");
  expect(await second.code, second.errors()).toBe(0);
});

test("a node that was NotReady before is named and not waited for", async () => {
  await addNode("node-3", true);
  await until("node-3's pod", () => podOn("node-3").then(() => true));
  await report("node-3", "ready", "All is served.");
  await setReady("/api/v1/nodes/node-3", false);
  await addNode("node-4", false);
  const run = rollout();
  expect(await run.code, run.errors()).toBe(0);
  expect(run.output()).toContain("node-3: ignored: was NotReady before and still is");
  expect(run.output()).toContain("node-4: ignored: was NotReady before and still is");
  expect(run.output()).toContain("Group metal: 2 of 4 nodes ready, 2 not.");
});

test("pods on a handler that left the spec fail the update with their names", async () => {
  await admin.create("/api/v1/namespaces/default/pods", {
    metadata: { name: "basket" },
    spec: { nodeName: "node-1", containers: [{ name: "c", image: "none" }] },
  });
  const pods = ["default/basket", "default/one-that-ended"];
  await report("node-1", "blocked", "The handler is still used.", { pods, handlers: [handler] });
  await setReady(`/api/v1/namespaces/${namespace}/pods/${(await podOn("node-1")).metadata.name}`, true);
  const run = rollout("--stall-timeout", "60");
  expect(await run.code, run.errors()).toBe(1);
  expect(run.errors()).toBe("node-1: blocked: The handler is still used. Pods: default/basket.\n");
  await report("node-1", "ready", "All is served.");
});

test("a rollout in which nothing changes gives up after the stall time", async () => {
  await report("node-1", "working", "containerd restarts.");
  const run = rollout("--stall-timeout", "2");
  expect(await run.code).toBe(3);
  expect(run.errors()).toBe("Nothing has changed for 2 s.\nnode-1: working: containerd restarts.\n");
  await report("node-1", "ready", "All is served.");
});

test("the status table", async () => {
  const run = contrastRuntime("status");
  expect(await run.code, run.errors()).toBe(1);
  expect(run.output().replaceAll(/ +/g, " ")).toContain(`node-2 metal ready unknown - ${handler} All is served.`);
  expect(run.output()).toContain("node-3  metal  not-ready");
});

test("through a server that throttles every third request and breaks a connection, a status asks what it needs", async () => {
  const proxy = await countingProxy(server.kubeconfig);
  try {
    let count = 0;
    proxy.next = () => {
      count += 1;
      return count === 2 ? "break" : count % 3 === 0 ? "throttle" : undefined;
    };
    const run = runBin(proxy.kubeconfig, "status", "--group", group);
    expect(await run.code, run.errors()).toBe(1);
    expect(run.output()).toMatch(/^node-3 +metal +not-ready/m);
    expect(proxy.counts).toMatchObject({ broken: 1, throttled: expect.toSatisfy((count: number) => count > 1) });
    // DaemonSet, spec, revisions, pods, nodes, the other nodes' metadata, tickets.
    expect(proxy.passed).toHaveLength(7);
  } finally {
    await proxy.close();
  }
});

test("a bug report's archive holds the fleet, and of objects only what is listed", async () => {
  const directory = await mkdtemp(join(tmpdir(), "support-"));
  try {
    const archive = join(directory, "support.tar.gz");
    const run = contrastRuntime("support", "--output", archive);
    expect(await run.code, run.errors()).toBe(0);
    const text = gunzipSync(await readFile(archive)).toString();
    for (const name of ["about.json", "nodes.json", "groups/metal/status.json", "groups/metal/spec.json", handler])
      expect(text).toContain(name);
  } finally {
    await rm(directory, { recursive: true });
  }
});

test("a node that leaves the group is named until it is back, may leave, or is uninstalled by name", async () => {
  await addNode("node-5", true);
  await until("node-5's pod", () => podOn("node-5").then(() => true));
  await report("node-5", "ready", "All is served.");
  const daemonSet = `/apis/apps/v1/namespaces/${namespace}/daemonsets/${name}`;
  await admin.mergePatch("/api/v1/nodes/node-5", { metadata: { labels: { "example.com/pool": "other" } } });
  // Without a scheduler no pod is bound, and the controller does not react to the node's change for unbound pods.
  await admin.mergePatch(daemonSet, { metadata: { annotations: { "example.com/look": "again" } } });
  await until("the end of node-5's pod", async () =>
    podOn("node-5").then(
      () => false,
      () => true,
    ),
  );

  const remedy = `put it back into the group, or run: npx contrast-runtime uninstall --group metal --nodes node-5`;
  const refused = rollout();
  expect(await refused.code).toBe(1);
  expect(refused.errors()).toBe(`node-5: left: ${handler} is still installed, without an installer: ${remedy}\n`);
  const tolerated = rollout("--nodes-may-leave");
  expect(await tolerated.code, tolerated.errors()).toBe(0);
  expect(tolerated.output()).toMatch(/^node-5: skipped: .* is still installed, without an installer, as configured$/m);
  expect(tolerated.output()).toContain("Group metal: 2 of 4 nodes ready, 2 not.");
  const table = contrastRuntime("status");
  await table.code;
  expect(table.output()).toMatch(/^node-5 +metal +left-group .* is still installed: put it back into the group/m);

  const early = contrastRuntime("uninstall", "--group", group, "--nodes", "node-1,node-5");
  expect(await early.code).toBe(1);
  expect(early.errors()).toBe(
    `node-1, node-5 is not uninstalled; nothing was changed.
Node node-1 is in group metal, which would install the runtimes again: take the node out of the group first.
`,
  );
  const before = (await admin.get<{ metadata: { generation: number } }>(daemonSet)).metadata.generation;
  const run = contrastRuntime("uninstall", "--group", group, "--nodes", "node-5");
  const pod = `/api/v1/namespaces/${namespace}/pods/contrast-uninstaller-${group}-node-5`;
  await until("its pod", () => admin.get(pod).then(() => true));
  const { spec: made } = await admin.get<Pod>(pod);
  expect(made).toMatchObject({ nodeName: "node-5", containers: [{ name: "installer" }] });
  expect(made).not.toHaveProperty("nodeSelector");
  const map = await admin.get<{ data: Record<string, string> }>(
    `/api/v1/namespaces/${namespace}/configmaps/contrast-uninstaller-${group}`,
  );
  expect(specHash(map.data["spec.json"] ?? "")).toBe(emptied);
  await publish("node-5", { state: "ready", reason: "Nothing is installed.", specHash: emptied, handlers: [] });
  // A pod that has ended can be deleted without a kubelet, and there is none here.
  await admin.mergePatch(`${pod}/status`, {
    status: { phase: "Succeeded", conditions: [{ type: "Ready", status: "True" }] },
  });
  expect(await run.code, run.errors()).toBe(0);
  expect(run.output()).toMatch(/node-5: uninstalled\.\n$/);
  const { annotations = {} } = (await admin.get<Node>("/api/v1/nodes/node-5")).metadata;
  expect(Object.keys(annotations).filter((key) => key.includes("contrast"))).toEqual([]);
  await expect(
    admin.get(`/api/v1/namespaces/${namespace}/configmaps/contrast-uninstaller-${group}`),
  ).rejects.toMatchObject({ status: 404 });
  expect((await admin.get<{ metadata: { generation: number } }>(daemonSet)).metadata.generation).toBe(before);
  const last = rollout();
  expect(await last.code, last.errors()).toBe(0);
  await admin.delete("/api/v1/nodes/node-5");
});

test("a group that does not exist", async () => {
  const missing = contrastRuntime("rollout", "--group", "other", "--spec-hash", hash);
  expect(await missing.code).toBe(4);
  expect(missing.errors()).toBe(
    `There is no DaemonSet ${namespace}/contrast-installer-other: group other is not installed.\n`,
  );
  const uninstall = contrastRuntime("uninstall", "--group", "other");
  expect(await uninstall.code).toBe(0);
});

test("what an unfinished uninstallation emptied is restored by the next rollout", async () => {
  const map = `/api/v1/namespaces/${namespace}/configmaps/${name}-spec`;
  const skip = (nodes: string | null) =>
    admin.mergePatch(`/apis/apps/v1/namespaces/${namespace}/daemonsets/${name}`, {
      metadata: { annotations: { [ownKey("skip-nodes")]: nodes } },
    });
  await skip("node-3,node-4");
  const unfinished = contrastRuntime("uninstall", "--group", group, "--stall-timeout", "1");
  expect(await unfinished.code, unfinished.errors()).toBe(3);
  const data = async () => (await admin.get<{ data: Record<string, string> }>(map)).data;
  expect(specHash((await data())["spec.json"] ?? "")).toBe(emptied);
  const run = rollout();
  expect(await run.code, run.errors()).toBe(0);
  expect(run.errors()).toContain("Group metal: the spec that an unfinished uninstallation emptied is restored.\n");
  expect(await data()).toEqual({ "spec.json": spec });
  await skip(null);
});

test("a rollout removes what the group's former name left on nodes, and its tickets", async () => {
  const former = { [statusAnnotation("old")]: "{}", [retryAnnotation("old")]: "now" };
  for (const node of ["node-1", "node-3"]) {
    await admin.mergePatch(`/api/v1/nodes/${node}`, { metadata: { annotations: former } });
  }
  const leases = `/apis/coordination.k8s.io/v1/namespaces/${namespace}/leases`;
  for (const lease of ["old-0", "older-0"]) {
    await admin.create(leases, { metadata: { name: installerName(lease) }, spec: { holderIdentity: "node-3" } });
  }
  const run = rollout("--formerly", "old");
  expect(await run.code, run.errors()).toBe(0);
  for (const node of ["node-1", "node-3"]) {
    const { annotations = {} } = (await admin.get<Node>(`/api/v1/nodes/${node}`)).metadata;
    expect(Object.keys(annotations).filter((key) => key.endsWith("/old"))).toEqual([]);
  }
  await expect(admin.get(`${leases}/${installerName("old-0")}`)).rejects.toMatchObject({ status: 404 });
  await admin.delete(`${leases}/${installerName("older-0")}`);
});

test("pods on another group's nodes are not in the way of an uninstallation", async () => {
  const other = { state: "ready", code: "ready", reason: "Serves.", pods: [], specHash: hash, handlers: [handler] };
  const status = JSON.stringify({ ...other, time: new Date().toISOString() });
  for (const node of ["node-1", "node-2"]) {
    await admin.mergePatch(`/api/v1/nodes/${node}`, {
      metadata: { annotations: { [statusAnnotation("other")]: status } },
    });
  }
  await admin.create("/apis/node.k8s.io/v1/runtimeclasses", { metadata: { name: handler }, handler });
  await admin.create("/api/v1/namespaces/default/pods", {
    metadata: { name: "others" },
    spec: { nodeName: "node-1", runtimeClassName: handler, containers: [{ name: "c", image: "none" }] },
  });
  const words = ["--group", group, "--skip-nodes", "node-3,node-4", "--stall-timeout", "1"];
  const run = contrastRuntime("uninstall", ...words);
  // Nobody plays the installers here: it has begun.
  expect(await run.code, run.errors()).toBe(3);
  expect(run.errors()).not.toContain("default/others");
  const again = rollout();
  expect(await again.code, again.errors()).toBe(0);
  for (const node of ["node-1", "node-2"]) {
    await admin.mergePatch(`/api/v1/nodes/${node}`, {
      metadata: { annotations: { [statusAnnotation("other")]: null } },
    });
  }
  await admin.mergePatch("/api/v1/namespaces/default/pods/others/status", { status: { phase: "Succeeded" } });
});

test("an uninstallation is refused with every pod and dead node in its way, and changes nothing", async () => {
  await admin.create("/apis/node.k8s.io/v1/runtimeclasses", { metadata: { name: "confidential" }, handler });
  await admin.create("/api/v1/namespaces/default/pods", {
    metadata: { name: "cart" },
    spec: { nodeName: "node-2", runtimeClassName: "confidential", containers: [{ name: "c", image: "none" }] },
  });
  const run = contrastRuntime("uninstall", "--group", group);
  expect(await run.code).toBe(1);
  expect(run.errors()).toBe(
    `Group metal is not uninstalled; nothing was changed.
Pod default/cart on node-2 still uses ${handler}: delete it first.
Node node-3 is NotReady, so nothing can be uninstalled there: bring it back, or name it as a node to skip.
`,
  );
  const map = await admin.get<{ data: Record<string, string> }>(
    `/api/v1/namespaces/${namespace}/configmaps/${name}-spec`,
  );
  expect(map.data["spec.json"]).toBe(spec);
});

test("an uninstallation empties the spec, waits for every node but the dead ones, and leaves no trace", async () => {
  // A finished pod has no sandbox any more, although its object may stay for long.
  await admin.mergePatch("/api/v1/namespaces/default/pods/cart/status", { status: { phase: "Succeeded" } });
  await admin.mergePatch(`/apis/apps/v1/namespaces/${namespace}/daemonsets/${name}`, {
    metadata: { annotations: { "runtime.contrast.edgeless.systems/skip-nodes": "node-3" } },
  });
  const leases = `/apis/coordination.k8s.io/v1/namespaces/${namespace}/leases`;
  await admin.create(leases, { metadata: { name: `${name}-0` }, spec: { holderIdentity: "node-3" } });

  const run = contrastRuntime("uninstall", "--group", group);
  await run.line(/^node-3: skipped: named in the configuration/m);
  await until("kubelet's nudge", async () =>
    Object.values((await podOn("node-1")).metadata.annotations ?? {}).includes(emptied),
  );
  for (const node of ["node-1", "node-2"])
    await report(node, "ready", "Nothing is installed.", { specHash: emptied, handlers: [] });
  expect(await run.code, run.errors()).toBe(0);
  expect(run.output()).toMatch(/Group metal: 2 of 4 nodes uninstalled\.\n$/);
  const again = contrastRuntime("uninstall", "--group", group, "--stall-timeout", "5");
  expect(await again.code, again.errors()).toBe(0);
  expect(again.output()).toMatch(/Group metal: 0 of 0 nodes uninstalled; the others were before\.\n$/);

  for (const node of ["node-1", "node-2", "node-3"]) {
    const { annotations = {} } = (await admin.get<Node>(`/api/v1/nodes/${node}`)).metadata;
    expect(Object.keys(annotations).filter((key) => key.includes("contrast"))).toEqual([]);
  }
  await expect(admin.get(`${leases}/${name}-0`)).rejects.toMatchObject({ status: 404 });
});
