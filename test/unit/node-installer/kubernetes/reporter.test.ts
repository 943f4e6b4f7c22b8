import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { type ApiError, apiClient } from "../../../../node-installer/kubernetes/api.ts";
import { connectKubernetes, withoutKubernetes } from "../../../../node-installer/kubernetes/connect.ts";
import { labelChanges } from "../../../../node-installer/kubernetes/labels.ts";
import { newMetrics } from "../../../../node-installer/kubernetes/metrics.ts";
import { nodeReporter, pascalCase, type Reporter } from "../../../../node-installer/kubernetes/reporter.ts";
import { type NodeStatus, parseStatus, publishedStatus } from "../../../../node-installer/kubernetes/status.ts";
import { retryAnnotation, statusAnnotation } from "../../../../runtime/names.ts";
import { type FakeApiServer, startFakeApiServer } from "../../../fakes/fake-api-server.ts";

let server: FakeApiServer;
let reporter: Reporter;
let errors: ApiError[];
let metrics = newMetrics();
beforeEach(async () => {
  server = await startFakeApiServer();
  const api = apiClient(server.address);
  await api.create("/api/v1/nodes", { metadata: { name: "a", labels: { zone: "x" } } });
  server.requests.length = 0;
  errors = [];
  metrics = newMetrics();
  reporter = nodeReporter({
    api,
    group: "g",
    nodeName: "a",
    metrics,
    now: () => new Date(0),
    delay: async () => {},
    onError: (error) => errors.push(error),
  });
});
afterEach(async () => {
  reporter.close();
  await server.close();
});

const status = (state: NodeStatus["state"], reason: string, rest: Partial<NodeStatus> = {}): NodeStatus => ({
  state,
  code: "gate-failed",
  reason,
  handlers: [],
  pods: [],
  specHash: "0".repeat(64),
  ...rest,
});
const published = () => {
  const annotations = server.objects.get("/api/v1/nodes/a")?.metadata.annotations as Record<string, string> | undefined;
  return parseStatus(annotations?.[statusAnnotation("g")]);
};
const events = () =>
  [...server.objects]
    .filter(([path]) => path.includes("/events/"))
    .map(([, event]) => [event.reason, event.message, event.count]);

describe("a node's status", () => {
  test("only the newest of many is published, and the same one never twice", async () => {
    for (const percent of [1, 2, 3, 4, 5]) reporter.report(status("working", `copied ${percent} %`));
    await reporter.flush();
    expect(published()?.reason).toBe("copied 5 %");
    const requests = server.requests.length;
    expect(requests).toBeLessThanOrEqual(2);
    reporter.report(status("working", "copied 5 %"));
    await reporter.flush();
    expect(server.requests).toHaveLength(requests);
  });

  test("is retried until the API server takes it, and nothing throws", async () => {
    let refusals = 3;
    server.intercept = () => (refusals-- > 0 ? { status: 500, body: "" } : undefined);
    reporter.report(status("failed", "The gate refused it."));
    await reporter.flush();
    expect(published()?.state).toBe("failed");
    expect(errors).toHaveLength(3);
    expect(events()).toEqual([["GateFailed", "The gate refused it.", 1]]);
  });

  test("an Event that is refused holds nothing up", async () => {
    server.intercept = (request) => (request.includes("/events") ? { status: 403, body: "{}" } : undefined);
    reporter.report(status("failed", "first"));
    reporter.report(status("ready", "second"));
    await reporter.flush();
    expect(published()?.reason).toBe("second");
  });

  test("failures and successes are counted, steps make no Events", async () => {
    for (const state of ["working", "waiting", "failed", "working", "failed", "ready"] as const)
      reporter.report(status(state, state));
    await reporter.flush();
    expect(metrics.failures).toEqual({ "gate-failed": 2 });
    expect(metrics.lastSuccess).toEqual(new Date(0));
    expect(events().map(([reason]) => reason)).toEqual(["GateFailed", "RuntimeReady"]);
  });

  test("reads the retry token from its own node, by a patch that changes nothing", async () => {
    expect(await reporter.retryToken()).toBeUndefined();
    await apiClient(server.address).mergePatch("/api/v1/nodes/a", {
      metadata: { annotations: { [retryAnnotation("g")]: "now" } },
    });
    expect(await reporter.retryToken()).toBe("now");
    expect(server.requests.every((request) => request === "PATCH /api/v1/nodes/a")).toBe(true);
  });

  test("a whole log as the reason does not fill the node's annotations", () => {
    const long = publishedStatus(
      status("failed", "x".repeat(100_000), { pods: Array(1000).fill("ns/pod") }),
      new Date(0),
    );
    expect(JSON.stringify(long).length).toBeLessThan(4096);
    expect(parseStatus(JSON.stringify(long))).toEqual(long);
  });

  test("what programs, processes and servers said is published as one line without control characters", () => {
    const hostile = "containerd: \u001b[2K\u001b[32mnode-1: ready\u001b]0;owned\u0007\nnext\u202e";
    const published = publishedStatus(status("failed", hostile, { pods: [`process ${hostile} (7)`] }), new Date(0));
    expect(published.reason).toBe("containerd: node-1: ready next");
    expect(published.pods).toEqual(["process containerd: node-1: ready next (7)"]);
    reporter.report(status("failed", hostile));
    expect(reporter.current()?.reason).toBe("containerd: node-1: ready next");
  });

  test("users that do not fit are counted, also after they have been read", () => {
    const many = publishedStatus(status("blocked", "used", { pods: Array(80).fill("ns/pod") }), new Date(0));
    expect(many.pods).toHaveLength(51);
    expect(many.pods.at(-1)).toBe("… and 30 more");
    expect(parseStatus(JSON.stringify(many))).toEqual(many);
  });

  test.each([undefined, "", "{", "[]", '{"state":"fine"}'])(
    "an annotation that is not ours counts as absent: %j",
    (annotation) => {
      expect(parseStatus(annotation)).toBeUndefined();
    },
  );
});

const [one, two] = ["contrast-cc-metal-qemu-snp-00000001", "contrast-cc-metal-qemu-snp-00000002"];
const label = (handler: string) => `runtime.contrast.edgeless.systems/${handler}`;

test.each([
  [{ zone: "x" }, [one], { [label(one)]: "true" }],
  [{ [label(one)]: "true" }, [one], {}],
  [{ [label(one)]: "false" }, [one], { [label(one)]: "true" }],
  [{ [label(one)]: "true", zone: "x" }, [two], { [label(one)]: null, [label(two)]: "true" }],
  [
    { [label(one)]: "true", [label(two)]: "true", "other/contrast-cc": "true" },
    [],
    { [label(one)]: null, [label(two)]: null },
  ],
  [undefined, [], {}],
])("labels %j become those of %j", (labels, handlers, changes) => {
  const metadata = { name: "a", uid: "u", ...(labels && { labels: labels as Record<string, string> }) };
  expect(labelChanges({ metadata }, handlers)).toEqual(changes);
});

test("labels are confirmed, or the caller gets an error", async () => {
  await reporter.setServed([one]);
  expect(server.objects.get("/api/v1/nodes/a")?.metadata.labels).toEqual({ zone: "x", [label(one)]: "true" });
  server.intercept = () => ({ status: 503, body: "" });
  await expect(reporter.setServed([])).rejects.toMatchObject({ status: 503 });
  expect(reporter.served()).toEqual([one]);
});

test("readiness is what the kubelet says, with its reason and time, and unknown if nobody answers", async () => {
  expect(await reporter.nodeReady()).toBeUndefined();
  const say = (status: string, rest: object) => {
    const node = server.objects.get("/api/v1/nodes/a");
    if (node)
      node.status = {
        conditions: [
          { type: "MemoryPressure", status: "False" },
          { type: "Ready", status, ...rest },
        ],
      };
  };
  say("True", { reason: "KubeletReady", message: "posting", lastHeartbeatTime: "2026-01-02T03:04:05Z" });
  expect(await reporter.nodeReady()).toEqual({
    ready: true,
    reason: "KubeletReady: posting",
    heartbeat: new Date("2026-01-02T03:04:05Z"),
  });
  say("Unknown", {});
  expect(await reporter.nodeReady()).toMatchObject({ ready: false, reason: "Ready is Unknown" });
  server.intercept = () => ({ status: 503, body: "" });
  expect(await reporter.nodeReady()).toBeUndefined();
  expect(await withoutKubernetes(() => new Date(0)).reporter.nodeReady()).toBeUndefined();
});

test("outside a cluster every ticket is granted and nothing is reported", async () => {
  const cluster = withoutKubernetes(() => new Date(0));
  await cluster.reporter.setServed([one]);
  cluster.reporter.report(status("failed", "x"));
  expect(cluster.reporter.current()?.state).toBe("failed");
  expect(await cluster.tickets.acquire()).toEqual({ held: true });
  expect(cluster.metrics.failures).toEqual({ "gate-failed": 1 });
});

test("a pod that does not know its node says how to tell it", () => {
  const options = { group: "g", atOnce: 1, now: () => new Date(0), delay: async () => {}, onError: () => {} };
  const env = { KUBERNETES_SERVICE_HOST: "10.96.0.1", KUBERNETES_SERVICE_PORT: "443" };
  expect(() => connectKubernetes(options, env)).toThrow("NODE_NAME is not set.");
  expect(connectKubernetes(options, { ...env, NODE_NAME: "a" }).nodeName).toBe("a");
});

test.each([
  ["gate-failed", "GateFailed"],
  ["iommu-passthrough", "IommuPassthrough"],
  ["no-snp-asids", "NoSnpAsids"],
])("the code %s is the Event's reason %s", (code, reason) => {
  expect(pascalCase(code)).toBe(reason);
});
