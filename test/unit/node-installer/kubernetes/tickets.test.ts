import { afterEach, beforeEach, expect, test } from "vitest";
import { apiClient } from "../../../../node-installer/kubernetes/api.ts";
import { leaseTickets, type Tickets, waitForTicket } from "../../../../node-installer/kubernetes/tickets.ts";
import { type FakeApiServer, startFakeApiServer } from "../../../fakes/fake-api-server.ts";

const leases = "/apis/coordination.k8s.io/v1/namespaces/ns/leases";
let server: FakeApiServer;
let time = 0;
beforeEach(async () => {
  time = 0;
  server = await startFakeApiServer();
});
afterEach(() => server.close());

async function ticketsOf(nodeName: string, atOnce = 1, more: { startupTaint?: string } = {}): Promise<Tickets> {
  const api = apiClient(server.address);
  if (!server.objects.has(`/api/v1/nodes/${nodeName}`))
    await api.create("/api/v1/nodes", { metadata: { name: nodeName } });
  return leaseTickets(api, { namespace: "ns", group: "g", atOnce, nodeName, now: () => new Date(time), ...more });
}
const held = () =>
  [...server.objects]
    .filter(([path]) => path.startsWith(leases))
    .map(([, lease]) => (lease.spec as { holderIdentity: string }).holderIdentity);

test("never more than atOnce tickets are held, in whatever order nodes come", async () => {
  const nodes = await Promise.all(["a", "b", "c", "d", "e"].map((name) => ticketsOf(name, 2)));
  const answers = await Promise.all(nodes.map((tickets) => tickets.acquire()));
  expect(answers.filter((answer) => answer.held)).toHaveLength(2);
  expect(held()).toHaveLength(2);
});

test("a race for the last ticket is lost without harm", async () => {
  const [a, b] = [await ticketsOf("a"), await ticketsOf("b")];
  server.intercept = (request) => {
    if (request !== `POST ${leases}`) return undefined;
    server.intercept = () => undefined;
    const other = { metadata: { name: "contrast-installer-g-0", uid: "x" }, spec: { holderIdentity: "b" } };
    server.objects.set(`${leases}/contrast-installer-g-0`, other);
    return undefined;
  };
  expect(await a.acquire()).toMatchObject({ held: false });
  await b.release();
  expect(await a.acquire()).toEqual({ held: true });
});

test("a recreated node of the same name does not have its predecessor's ticket", async () => {
  const before = await ticketsOf("a");
  await before.acquire();
  server.objects.delete("/api/v1/nodes/a");
  const after = await ticketsOf("a");
  expect(await after.acquire()).toMatchObject({ held: false });
});

test("of several tickets it keeps one", async () => {
  const [a, b] = [await ticketsOf("a", 2), await ticketsOf("b", 2)];
  await a.acquire();
  const [[path, lease] = ["", undefined]] = [...server.objects].filter(([key]) => key.startsWith(leases));
  if (lease === undefined) throw new Error("there is no ticket");
  const name = `contrast-installer-g-${path.endsWith("0") ? 1 : 0}`;
  server.objects.set(`${leases}/${name}`, { ...lease, metadata: { ...lease.metadata, name, uid: "second" } });
  expect(await b.acquire()).toMatchObject({ held: false });
  expect(await a.acquire()).toEqual({ held: true });
  expect(held()).toEqual(["a"]);
  expect(await b.acquire()).toEqual({ held: true });
});

test("releasing a ticket that somebody else holds by now does not take it from them", async () => {
  const a = await ticketsOf("a");
  await a.acquire();
  server.intercept = (request) => {
    if (!request.startsWith("DELETE")) return undefined;
    // The collector was quicker, and another node took the free ticket between our look and our delete.
    const other = { metadata: { name: "contrast-installer-g-0", uid: "another" }, spec: { holderIdentity: "b" } };
    server.objects.set(`${leases}/contrast-installer-g-0`, other);
    return undefined;
  };
  await a.release();
  expect(held()).toEqual(["b"]);
});

test("a ticket from before a restart is released; from then on, releasing none costs no request", async () => {
  await (await ticketsOf("a")).acquire();
  const restarted = await ticketsOf("a");
  await restarted.release();
  expect(held()).toEqual([]);
  const requests = server.requests.length;
  await restarted.release();
  expect(server.requests).toHaveLength(requests);
  expect(await restarted.acquire()).toEqual({ held: true });
  await restarted.release();
  expect(held()).toEqual([]);
});

test("waiting is told once for each thing that is waited for, outlives an absent API server, and ends with a ticket", async () => {
  const [a, b] = [await ticketsOf("a"), await ticketsOf("b")];
  await a.acquire();
  const said: string[] = [];
  let turns = 0;
  await waitForTicket(b, {
    onWait: (waitingFor) => said.push(waitingFor.what === "ticket" ? "a ticket" : waitingFor.reason),
    delay: async () => {
      turns += 1;
      server.intercept = () =>
        turns === 3 ? { status: 503, body: '{"reason":"ServiceUnavailable","message":"away"}' } : undefined;
      if (turns === 5) await a.release();
    },
  });
  expect(said).toEqual(["a ticket", expect.stringMatching(/ 503 away$/), "a ticket"]);
  expect(held()).toEqual(["b"]);
});

test("behind a node that failed a waiting one asks ever more rarely, to once in two minutes", async () => {
  const [a, b] = [await ticketsOf("a"), await ticketsOf("b")];
  await a.acquire();
  await a.annotate("the gate failed");
  const pauses: number[] = [];
  while (pauses.length < 30) {
    const answer = await b.acquire();
    if (answer.held) throw new Error("it was held by a");
    pauses.push(answer.askAgainMs);
    time += answer.askAgainMs;
  }
  expect(pauses).toEqual(pauses.toSorted((one, other) => one - other));
  expect(pauses.at(-1)).toBe(120_000);
});

test("where thousands wait, each asks more rarely than where a few do", async () => {
  const [a, b, c] = [await ticketsOf("a"), await ticketsOf("b"), await ticketsOf("c")];
  await a.acquire();
  const pauseOf = async (tickets: Tickets, waiting: number) => {
    server.objects.set(daemonSet, {
      metadata: { name: "contrast-installer-g", uid: "d" },
      status: { desiredNumberScheduled: 10_000, numberReady: 10_000 - waiting },
    } as never);
    let pauseMs = 0;
    for (let elapsed = 0; elapsed < 60_000; elapsed += 3_000) {
      // Its ticket goes round every three seconds.
      await a.release();
      await a.acquire();
      time += 1_500;
      const answer = await tickets.acquire();
      if (answer.held) throw new Error("it was held by a");
      pauseMs = answer.askAgainMs;
      time += 1_500;
    }
    return pauseMs;
  };
  const few = await pauseOf(b, 5);
  expect(await pauseOf(c, 5_000)).toBeGreaterThan(5 * few);
});

test("who waits asks for one answer at a time, ever more rarely, over one connection", async () => {
  const [a, b] = [await ticketsOf("a", 10), await ticketsOf("b", 10)];
  for (let index = 0; index < 10; index += 1) {
    const name = `contrast-installer-g-${index}`;
    const lease = { metadata: { name, uid: `taken-${index}` }, spec: { holderIdentity: "a" } };
    server.objects.set(`${leases}/${name}`, lease);
  }
  const before = server.requests.length;
  const connections = server.connections();
  const hours = 6;
  let waited = 0;
  let attempts = 0;
  await waitForTicket(b, {
    onWait: () => undefined,
    delay: async (ms) => {
      waited += ms;
      time += ms;
      attempts += 1;
      if (waited > hours * 3_600_000) await a.release();
    },
  });
  // A request each while it waits; then the node, the ticket that is free, and what it took for the other to let go.
  const releasing = 1 + 10;
  expect(server.requests.length - before).toBeLessThanOrEqual(attempts + 1 + 2 + releasing);
  expect(attempts).toBeLessThan(hours * 30 * 1.5);
  expect(server.connections() - connections).toBeLessThanOrEqual(2);
});

test("a ticket that was taken is given back by one request", async () => {
  const a = await ticketsOf("a", 10);
  await a.acquire();
  const before = server.requests.length;
  await a.release();
  expect(server.requests.slice(before)).toEqual([expect.stringMatching(/^DELETE .*contrast-installer-g-\d$/)]);
});

const startupTaint = "example.com/not-ready";
const daemonSet = "/apis/apps/v1/namespaces/ns/daemonsets/contrast-installer-g";
/** A node that has just joined a group with another one that is ready, and what is bound to it besides. */
async function newNode(name: string, { effect = "NoSchedule", ready = 1, pods = {} as Record<string, object> } = {}) {
  const node = { metadata: { name, uid: `uid-of-${name}` }, spec: { taints: [{ key: startupTaint, effect }] } };
  server.objects.set(`/api/v1/nodes/${name}`, node);
  const status = { desiredNumberScheduled: 5, numberReady: ready };
  server.objects.set(daemonSet, { metadata: { name: "contrast-installer-g", uid: "d" }, status });
  for (const [pod, metadata] of Object.entries(pods)) {
    const object = { metadata: { name: pod, namespace: "x", uid: pod, ...metadata }, spec: { nodeName: name } };
    server.objects.set(`/api/v1/namespaces/x/pods/${pod}`, object);
  }
  return ticketsOf(name, 1, { startupTaint });
}
const ofDaemonSet = { ownerReferences: [{ kind: "DaemonSet", controller: true }] };
const ofNode = { ownerReferences: [{ kind: "Node", controller: true }] };

test("new nodes that nothing runs on yet need no ticket, and those with workloads still take turns", async () => {
  const old = await ticketsOf("old", 1, { startupTaint });
  await old.acquire();
  const new1 = await newNode("new1", { pods: { cni: ofDaemonSet, proxy: ofNode } });
  const new2 = await newNode("new2", { effect: "NoExecute" });
  expect([await new1.acquire(), await new2.acquire()]).toEqual([{ held: true }, { held: true }]);
  expect(held()).toEqual(["old"]);
  expect(await (await ticketsOf("other", 1, { startupTaint })).acquire()).toMatchObject({ held: false });
  const before = server.requests.length;
  await new1.release();
  expect(server.requests).toHaveLength(before);
});

test.each([
  ["its taint keeps nobody off", { effect: "PreferNoSchedule" }],
  ["a pod is on it that tolerates the taint", { pods: { cni: ofDaemonSet, tolerant: {} } }],
  ["no node of the group is ready, so nobody knows yet whether its runtimes work", { ready: 0 }],
])("a new node takes a ticket like any other where %s", async (_, how) => {
  const tickets = await newNode("new", how);
  expect(await tickets.acquire()).toEqual({ held: true });
  expect(held()).toEqual(["new"]);
  expect(tickets.owes()).toBe(false);
});

test("nor without the taint's key in the spec", async () => {
  await newNode("new");
  await (await ticketsOf("new")).acquire();
  expect(held()).toEqual(["new"]);
});

test("a new node that fails takes a ticket, once one is free, and stops those that come after it", async () => {
  const old = await ticketsOf("old");
  await old.acquire();
  const tickets = await newNode("new");
  await tickets.acquire();
  await tickets.annotate("the gate failed");
  expect([tickets.owes(), held()]).toEqual([true, ["old"]]);
  await old.release();
  await tickets.annotate("the gate failed");
  expect([tickets.owes(), held()]).toEqual([false, ["new"]]);
  expect(await (await newNode("later")).acquire()).toMatchObject({ held: false });
  expect(await old.acquire()).toMatchObject({ held: false });
  // A person repairs it: its own ticket is there, and goes with the commit.
  expect(await tickets.acquire()).toEqual({ held: true });
  await tickets.release();
  expect(await (await newNode("later")).acquire()).toEqual({ held: true });
  expect(held()).toEqual([]);
});
