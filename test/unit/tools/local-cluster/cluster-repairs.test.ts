import { KubeConfig } from "@kubernetes/client-node";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { type FleetApi, fleetApi } from "../../../../tools/fleet/api.ts";
import { removeDeadPods } from "../../../../tools/fleet/dead-pods.ts";
import { freeTickets } from "../../../../tools/fleet/free-tickets.ts";
import { type FakeApiServer, startFakeApiServer } from "../../../fakes/fake-api-server.ts";
import { fleet, node, ticket } from "../fleet/fleet-fixture.ts";

/** What a rollout and an uninstallation repair in the cluster because a dead node never will. */
const namespace = "contrast-runtime-system";
let server: FakeApiServer;
let api: FleetApi;
let lines: string[];
beforeEach(async () => {
  server = await startFakeApiServer();
  const kubeconfig = new KubeConfig();
  kubeconfig.loadFromClusterAndUser(
    { name: "fake", server: server.address.baseUrl, skipTLSVerify: true },
    { name: "nobody" },
  );
  api = await fleetApi(kubeconfig);
  lines = [];
  vi.spyOn(console, "error").mockImplementation((line) => {
    lines.push(line);
  });
});
afterEach(async () => {
  vi.restoreAllMocks();
  await server.close();
});

describe("the ticket of a dead node", () => {
  const leases = `/apis/coordination.k8s.io/v1/namespaces/${namespace}/leases`;
  const { name } = ticket("dead");
  const dead = node("dead", "working", { ready: false });
  const holding = (holder: string) => fleet([dead, node("alive", "working")], { tickets: [ticket(holder)] });
  const free = (holder: string, named: string[]) => freeTickets(api, namespace, holding(holder), new Set(named));
  beforeEach(() => {
    server.objects.set(`${leases}/${name}`, { metadata: { name, uid: ticket("dead").uid } });
  });

  test("is freed when the node is named as dead, with a message", async () => {
    await free("dead", ["dead"]);
    expect(server.objects.has(`${leases}/${name}`)).toBe(false);
    expect(lines).toEqual(["dead: its ticket is freed, because it is named as a node not to wait for"]);
  });

  test.each([
    ["the node is not named: it may come back and continue", "dead", []],
    ["the node is named but Ready: its installer may be at work", "alive", ["alive"]],
    ["another node is named", "dead", ["alive"]],
  ])("stays when %s", async (_, holder, named) => {
    await free(holder, named);
    expect(server.requests).toEqual([]);
  });

  test("is not taken from another node that has acquired it meanwhile", async () => {
    server.objects.set(`${leases}/${name}`, { metadata: { name, uid: "of another Lease" } });
    await free("dead", ["dead"]);
    expect(lines).toEqual([]);
    expect(server.objects.has(`${leases}/${name}`)).toBe(true);
  });

  test("of a living node is freed when it is one too many", async () => {
    const second = { ...ticket("alive"), name: "contrast-installer-metal-1", uid: "2" };
    server.objects.set(`${leases}/${second.name}`, { metadata: { name: second.name, uid: second.uid } });
    const several = fleet([node("alive", "working")], { tickets: [second, ticket("alive")] });
    await freeTickets(api, namespace, several, new Set());
    expect([...server.objects.keys()]).toEqual([`${leases}/${name}`]);
    expect(lines).toEqual([
      expect.stringMatching(/^alive: the ticket contrast-installer-metal-1 is freed, because it holds more/),
    ]);
  });

  test("may already be gone", async () => {
    server.objects.clear();
    await free("dead", ["dead"]);
    expect(lines).toEqual([]);
  });
});

describe("the pod of a dead node", () => {
  const daemonSet = `/apis/apps/v1/namespaces/${namespace}/daemonsets/contrast-installer-metal`;
  const pod = (name: string) => `/api/v1/namespaces/${namespace}/pods/${name}`;
  const nodes = [
    node("alive", "ready"),
    node("dead", "ready", { ready: false }),
    node("lost", "ready", { ready: false }),
  ];
  const where = { "on-alive": "alive", "on-dead": "dead", "on-lost": "lost" };

  beforeEach(() => {
    server.objects.set(daemonSet, { metadata: { name: "contrast-installer-metal", uid: "1" } });
    for (const name of Object.keys(where)) server.objects.set(pod(name), { metadata: { name, uid: name } });
    const items = Object.entries(where).map(([name, nodeName]) => ({ metadata: { name }, spec: { nodeName } }));
    server.intercept = (request) => {
      const reply = (body: object) => ({ status: 200, body: JSON.stringify(body) });
      return request.startsWith(`GET /api/v1/namespaces/${namespace}/pods?`) ? reply({ items }) : undefined;
    };
  });

  test("is removed without its kubelet, and only once nothing creates a new one", async () => {
    const observations = [fleet(nodes, { settled: false }), fleet(nodes)];
    await removeDeadPods(api, namespace, fleet(nodes), async () => {
      expect(server.objects.get(daemonSet)?.spec).toMatchObject({ template: { spec: { nodeSelector: {} } } });
      expect(server.requests.filter((request) => request.startsWith("DELETE"))).toEqual([]);
      return observations.shift() ?? fleet(nodes);
    });
    expect(observations).toEqual([]);
    expect([...server.objects.keys()].filter((path) => path.includes("/pods/"))).toEqual([pod("on-alive")]);
    expect(lines).toEqual(["dead, lost: removed the installer's pod without waiting for the node"]);
  });

  test("may already be gone: the next one is still removed", async () => {
    server.objects.delete(pod("on-dead"));
    await removeDeadPods(api, namespace, fleet(nodes), async () => fleet(nodes));
    expect([...server.objects.keys()].filter((path) => path.includes("/pods/"))).toEqual([pod("on-alive")]);
  });

  test("is not looked for if every node is Ready: the installers stay", async () => {
    const alive = fleet([node("alive", "ready")]);
    await removeDeadPods(api, namespace, alive, async () => alive);
    expect(server.requests).toEqual([]);
  });
});
