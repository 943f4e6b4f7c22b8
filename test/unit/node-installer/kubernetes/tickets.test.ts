import { afterEach, beforeEach, expect, test } from "vitest";
import { apiClient } from "../../../../node-installer/kubernetes/api.ts";
import { leaseTickets, type Tickets, waitForTicket } from "../../../../node-installer/kubernetes/tickets.ts";
import { type FakeApiServer, startFakeApiServer } from "../../../fakes/fake-api-server.ts";

const leases = "/apis/coordination.k8s.io/v1/namespaces/ns/leases";
let server: FakeApiServer;
beforeEach(async () => {
  server = await startFakeApiServer();
});
afterEach(() => server.close());

async function ticketsOf(nodeName: string, atOnce = 1): Promise<Tickets> {
  const api = apiClient(server.address);
  if (!server.objects.has(`/api/v1/nodes/${nodeName}`))
    await api.create("/api/v1/nodes", { metadata: { name: nodeName } });
  return leaseTickets(api, { namespace: "ns", group: "g", atOnce, nodeName, now: () => new Date(0) });
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
  for (const answer of answers) if (!answer.held) expect(answer.holders).toHaveLength(2);
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
  expect(await a.acquire()).toEqual({ held: false, holders: ["b"] });
  await b.release();
  expect(await a.acquire()).toEqual({ held: true });
});

test("a recreated node of the same name does not have its predecessor's ticket", async () => {
  const before = await ticketsOf("a");
  await before.acquire();
  server.objects.delete("/api/v1/nodes/a");
  const after = await ticketsOf("a");
  expect(await after.acquire()).toEqual({ held: false, holders: ["a"] });
});

test("of several tickets it keeps one; of another's several, it says so", async () => {
  const [a, b] = [await ticketsOf("a", 2), await ticketsOf("b", 2)];
  await a.acquire();
  const [[path, lease] = ["", undefined]] = [...server.objects].filter(([key]) => key.startsWith(leases));
  if (lease === undefined) throw new Error("there is no ticket");
  const name = "contrast-installer-g-1";
  server.objects.set(path.replace(/0$/, "1"), { ...lease, metadata: { ...lease.metadata, name, uid: "second" } });
  const holders = ["a (which holds 2 tickets, although a node needs one)"];
  expect(await b.acquire()).toEqual({ held: false, holders });
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

test("waiting names the holders once, outlives an absent API server, and ends with a ticket", async () => {
  const [a, b] = [await ticketsOf("a"), await ticketsOf("b")];
  await a.acquire();
  const said: string[] = [];
  let turns = 0;
  await waitForTicket(b, {
    onWait: (waitingFor) => said.push(waitingFor),
    delay: async () => {
      turns += 1;
      server.intercept = () =>
        turns === 3 ? { status: 503, body: '{"reason":"ServiceUnavailable","message":"away"}' } : undefined;
      if (turns === 5) await a.release();
    },
  });
  expect(said).toEqual(["a", expect.stringMatching(/^the API server: .* 503 away$/), "a"]);
  expect(held()).toEqual(["b"]);
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
  const day = 24 * 3600_000;
  let waited = 0;
  let attempts = 0;
  await waitForTicket(b, {
    onWait: () => undefined,
    delay: async (ms) => {
      waited += ms;
      attempts += 1;
      if (waited > day) await a.release();
    },
  });
  // A request each while it waits; then the node, the ticket that is free, and what it took for the other to let go.
  const releasing = 1 + 10;
  expect(server.requests.length - before).toBeLessThanOrEqual(attempts + 1 + 2 + releasing);
  expect(attempts).toBeLessThan(24 * 60 * 1.5);
  expect(server.connections() - connections).toBeLessThanOrEqual(2);
});
