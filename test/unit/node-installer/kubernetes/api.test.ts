import { afterEach, beforeEach, expect, test } from "vitest";
import { apiClient, inClusterAddress } from "../../../../node-installer/kubernetes/api.ts";
import { type FakeApiServer, startFakeApiServer } from "../../../fakes/fake-api-server.ts";

let server: FakeApiServer;
beforeEach(async () => {
  server = await startFakeApiServer();
});
afterEach(() => server.close());

test("the token is read again for every request", async () => {
  const api = apiClient(server.address);
  await api.create("/api/v1/nodes", { metadata: { name: "a" } });
  await server.writeToken("second");
  await api.get("/api/v1/nodes/a");
  expect(server.tokens).toEqual(["Bearer first", "Bearer second"]);
});

test.each([
  [
    "the API's own answer",
    { status: 409, body: '{"reason":"Conflict","message":"changed"}' },
    { status: 409, reason: "Conflict", message: "GET /api/x: 409 changed" },
  ],
  [
    "a proxy's page",
    { status: 502, body: "<html>Bad Gateway</html>" },
    { status: 502, reason: "Unknown", message: "GET /api/x: 502 <html>Bad Gateway</html>" },
  ],
  ["nothing", { status: 503, body: "" }, { status: 503, reason: "Unknown", message: "GET /api/x: 503 " }],
] as const)("an error is told in one line: %s", async (_, reply, expected) => {
  server.intercept = () => reply;
  await expect(apiClient(server.address).get("/api/x")).rejects.toMatchObject(expected);
});

test("a server that never answers is given up", async () => {
  server.intercept = () => "hang";
  await expect(apiClient(server.address, 50).get("/api/x")).rejects.toMatchObject({ status: 0, reason: "Unreachable" });
});

test("a missing token, or no server at all, is an ApiError too", async () => {
  await expect(apiClient({ ...server.address, tokenFile: "/nonexistent/token" }).get("/api/x")).rejects.toMatchObject({
    status: 0,
  });
  await expect(apiClient({ ...server.address, baseUrl: "http://127.0.0.1:1" }).get("/api/x")).rejects.toMatchObject({
    status: 0,
    message: expect.stringContaining("ECONNREFUSED"),
  });
});

test.each([
  [{ KUBERNETES_SERVICE_HOST: "10.96.0.1", KUBERNETES_SERVICE_PORT: "443" }, "https://10.96.0.1:443"],
  [{ KUBERNETES_SERVICE_HOST: "fd00::1", KUBERNETES_SERVICE_PORT: "443" }, "https://[fd00::1]:443"],
  [{}, undefined],
])("the cluster of %j", (env, baseUrl) => {
  expect(inClusterAddress(env)?.baseUrl).toBe(baseUrl);
});

test("a kept connection that the server has closed meanwhile is replaced; one that it closes at once is an error", async () => {
  const api = apiClient(server.address);
  await api.create("/api/v1/nodes", { metadata: { name: "a" } });
  let drops = 1;
  server.intercept = () => {
    drops -= 1;
    return drops >= 0 ? "drop" : undefined;
  };
  expect(await api.get("/api/v1/nodes/a")).toMatchObject({ metadata: { name: "a" } });
  drops = 2;
  await expect(api.get("/api/v1/nodes/a")).rejects.toMatchObject({ status: 0, reason: "Unreachable" });
});
