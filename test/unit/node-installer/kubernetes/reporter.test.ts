import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { type ApiError, apiClient } from "../../../../node-installer/kubernetes/api.ts";
import { connectKubernetes, withoutKubernetes } from "../../../../node-installer/kubernetes/connect.ts";
import { labelChanges } from "../../../../node-installer/kubernetes/labels.ts";
import { newMetrics } from "../../../../node-installer/kubernetes/metrics.ts";
import { nodeReporter, pascalCase, type Reporter } from "../../../../node-installer/kubernetes/reporter.ts";
import { type NodeStatus, parseStatus, publishedStatus } from "../../../../node-installer/kubernetes/status.ts";
import { retryAnnotation, stateLabel, statusAnnotation } from "../../../../runtime/names.ts";
import { type FakeApiServer, startFakeApiServer } from "../../../fakes/fake-api-server.ts";

let server: FakeApiServer;
let reporter: Reporter;
let errors: ApiError[];
let time = 0;
let metrics = newMetrics();
beforeEach(async () => {
  server = await startFakeApiServer();
  const api = apiClient(server.address);
  await api.create("/api/v1/nodes", { metadata: { name: "a", labels: { zone: "x" } } });
  server.requests.length = 0;
  errors = [];
  time = 0;
  metrics = newMetrics();
  reporter = reporterOf();
});
const reporterOf = () =>
  nodeReporter({
    api: apiClient(server.address),
    group: "g",
    nodeName: "a",
    metrics,
    now: () => new Date(time),
    uptime: () => time,
    delay: async () => {},
    onError: (error) => errors.push(error),
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

test("a startup taint that comes back is lifted within two looks, also after a restart that found nothing to lift", async () => {
  const node = () => server.objects.get("/api/v1/nodes/a") as { spec?: unknown };
  await reporter.retryToken();
  await reporter.setServed([], { lifted: "example.com/startup" });
  node().spec = { taints: [{ key: "example.com/startup" }, { key: "theirs" }] };
  for (let look = 0; look < 2; look += 1) {
    time += 60_000;
    await reporter.retryToken();
    await reporter.setServed([], { lifted: "example.com/startup" });
  }
  expect(node().spec).toEqual({ taints: [{ key: "theirs" }] });
});

describe("a node's status", () => {
  test("only the newest of many is published, and the same one never twice", async () => {
    for (const pods of [1, 2, 3, 4, 5]) reporter.report(status("blocked", `used by ${pods} pods`));
    await reporter.flush();
    expect(published()?.reason).toBe("used by 5 pods");
    const requests = server.requests.length;
    expect(server.requests.filter((request) => request.startsWith("PATCH")).length).toBeLessThanOrEqual(2);
    reporter.report(status("blocked", "used by 5 pods"));
    await reporter.flush();
    expect(server.requests).toHaveLength(requests);
  });

  test("begun, waiting and done are three writes of the node; its steps are not written", async () => {
    const writes: string[] = [];
    server.intercept = (request) => {
      if (request === "PATCH /api/v1/nodes/a") writes.push(request);
      return undefined;
    };
    for (const [state, code] of [
      ["working", "check-host"],
      ["working", "place-payload"],
      ["waiting", "take-ticket"],
      ["working", "edit"],
      ["working", "gate"],
    ] as const) {
      reporter.report(status(state, `Running ${code}.`, { code }));
      await reporter.flush();
      expect(reporter.current()?.code).toBe(code);
    }
    expect(writes).toHaveLength(2);
    expect(published()).toMatchObject({ state: "waiting", code: "take-ticket" });
    await reporter.setServed([one], { status: status("ready", "Serves it.", { code: "ready", handlers: [one] }) });
    expect(writes).toHaveLength(3);
    expect(published()).toMatchObject({ state: "ready", handlers: [one] });
    await reporter.flush();
    expect(events()).toEqual([["RuntimeReady", "Serves it.", 1]]);
  });

  test("has its state as a label that nodes can be selected by", async () => {
    for (const state of ["working", "failed", "ready"] as const) {
      reporter.report(status(state, state));
      await reporter.flush();
      expect(server.objects.get("/api/v1/nodes/a")?.metadata.labels).toMatchObject({ [stateLabel("g")]: state });
    }
  });

  test("that an earlier process published is not written again, nor its Event", async () => {
    const ready = status("ready", "Serves it.", { code: "ready" });
    reporter.report(ready);
    await reporter.flush();
    const before = server.requests.length;
    const restarted = reporterOf();
    await restarted.retryToken();
    restarted.report(ready);
    await restarted.flush();
    expect(server.requests.slice(before)).toEqual(["PATCH /api/v1/nodes/a"]);
    expect(events()).toEqual([["RuntimeReady", "Serves it.", 1]]);
  });

  test("a ready node is read twice an hour, a failed one at first soon and then every few minutes", async () => {
    const readsIn = async (hours: number) => {
      const before = server.requests.length;
      for (const end = time + hours * 3_600_000; time < end; time += 15_000) await reporter.retryToken();
      return server.requests.length - before;
    };
    reporter.report(status("ready", "Serves it."));
    await reporter.flush();
    await reporter.setServed([]);
    expect(await readsIn(10)).toBeLessThanOrEqual(40);
    reporter.report(status("failed", "The gate refused it."));
    await reporter.flush();
    expect(await readsIn(1 / 60)).toBeGreaterThanOrEqual(1);
    expect(await readsIn(10)).toBeLessThanOrEqual(300);
  });

  test("labels that the API server confirmed are not asked for again, unless they change", async () => {
    await reporter.setServed([one]);
    const before = server.requests.length;
    for (time = 0; time < 600_000; time += 60_000) await reporter.setServed([one]);
    expect(server.requests).toHaveLength(before);
    await reporter.setServed([]);
    expect(server.objects.get("/api/v1/nodes/a")?.metadata.labels).toEqual({ zone: "x" });
  });

  test("an older state that is still on its way does not arrive after the newest", async () => {
    reporter.report(status("working", "begun"));
    await reporter.setServed([one], { status: status("ready", "Serves it.") });
    await reporter.flush();
    expect(published()?.state).toBe("ready");
  });

  test.each([429, 408, 503])("an Event that is answered with %i is recorded later", async (answer) => {
    let refusals = 3;
    server.intercept = (request) =>
      request.includes("/events") && refusals-- > 0 ? { status: answer, body: "{}" } : undefined;
    reporter.report(status("failed", "The gate refused it."));
    await reporter.flush();
    expect(events()).toEqual([["GateFailed", "The gate refused it.", 1]]);
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
    time += 3_600_000;
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
  const options = {
    group: "g",
    atOnce: 1,
    now: () => new Date(0),
    uptime: () => 0,
    delay: async () => {},
    onError: () => {},
  };
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
