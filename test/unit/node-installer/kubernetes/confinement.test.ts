import { afterEach, beforeEach, expect, test } from "vitest";
import { apiClient } from "../../../../node-installer/kubernetes/api.ts";
import { type Confinement, clusterConfinement } from "../../../../node-installer/kubernetes/confinement.ts";
import { policyNames } from "../../../../runtime/names.ts";
import { type FakeApiServer, startFakeApiServer } from "../../../fakes/fake-api-server.ts";

/* What a real API server answers to the probes is tested in test/cluster/identity.test.ts. */
const { node, events, tickets } = policyNames("g");
let server: FakeApiServer;
let confinement: Confinement;
let time: number;
let onDelay: () => void;
beforeEach(async () => {
  server = await startFakeApiServer();
  for (const policy of [node, events, tickets]) server.policies.add(policy);
  server.objects.set("/api/v1/nodes/a", { metadata: { name: "a", uid: "1" } });
  time = 0;
  onDelay = () => undefined;
  confinement = clusterConfinement({
    api: apiClient(server.address),
    group: "g",
    namespace: "ns",
    nodeName: "a",
    now: () => new Date(time),
    delay: async (ms) => {
      time += ms;
      onDelay();
    },
  });
});
afterEach(() => server.close());

test.each([
  [node, "an annotation of its node that is not its own"],
  [events, "an Event in another's name"],
  [tickets, "a Lease that is no ticket"],
])("without %s it is a refusal that says what is allowed and what to do", async (policy, what) => {
  server.policies.delete(policy);
  await expect(confinement.require()).rejects.toMatchObject({
    name: "Refusal",
    code: "unconfined",
    message: expect.stringMatching(new RegExp(`no policy refuses ${what}\\..*${policy} and their bindings.*--refresh`)),
  });
  server.policies.add(policy);
  await confinement.require();
  expect([...server.objects.keys()]).toEqual(["/api/v1/nodes/a"]);
});

test("a policy that begins to act within seconds is waited for", async () => {
  server.policies.clear();
  onDelay = () => {
    if (time >= 3_000) for (const policy of [node, events, tickets]) server.policies.add(policy);
  };
  await confinement.require();
  expect(time).toBe(3_000);
});

test("a policy that is deleted later is noticed within three hours, and at once where it matters", async () => {
  await confinement.require();
  server.policies.delete(node);
  const requests = server.requests.length;
  await confinement.require();
  expect(server.requests).toHaveLength(requests);
  await expect(confinement.require(true)).rejects.toThrow("may do more than it should");
  server.policies.add(node);
  await confinement.require();
  server.policies.delete(node);
  time += 3 * 3_600_000;
  await expect(confinement.require()).rejects.toThrow("may do more than it should");
});

test("a server that does not answer, and a right that is missing, are neither: nothing is known", async () => {
  for (const [status, message] of [
    [503, "away"],
    [403, "User cannot patch resource"],
  ]) {
    server.intercept = (request) =>
      request.includes("dryRun") ? { status: Number(status), body: JSON.stringify({ message }) } : undefined;
    await expect(confinement.require(true)).rejects.toMatchObject({ name: "ApiError", status });
  }
});
