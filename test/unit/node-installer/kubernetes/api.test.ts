import { afterEach, beforeEach, expect, onTestFinished, test } from "vitest";
import { apiClient, inClusterAddress } from "../../../../node-installer/kubernetes/api.ts";
import { type FakeApiServer, startFakeApiServer } from "../../../fakes/fake-api-server.ts";
import { startTlsServer } from "../../../fakes/tls-server.ts";
import { tlsAuthority } from "../../../fixtures/tls-authority.ts";

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

test("a server's certificate and its authority change under a client that keeps its connection", async () => {
  const [old, next] = [tlsAuthority("old"), tlsAuthority("next")];
  const rotated = await startTlsServer(old.issue("first"), old.certificate);
  onTestFinished(() => rotated.close());
  const caFile = await rotated.write("ca.crt", old.certificate);
  const tokenFile = await rotated.write("token", "t");
  const api = apiClient({ baseUrl: rotated.baseUrl, caFile, tokenFile });
  const ask = () => api.get("/api");
  await Promise.all([ask(), ask()]);
  const before = rotated.connections();
  await ask();
  expect(rotated.connections()).toBe(before);

  // Another certificate of the same authority: open connections stay, and their successors see it.
  rotated.serve(old.issue("second"));
  await ask();
  expect(rotated.connections()).toBe(before);
  rotated.closeConnections();
  await ask();
  expect(rotated.connections()).toBe(before + 1);

  // Another authority. The server has its certificate before the kubelet has written the new file, and is distrusted so long.
  rotated.serve(next.issue("third"));
  rotated.closeConnections();
  await expect(ask()).rejects.toMatchObject({ status: 0, reason: "Unreachable" });
  await rotated.write("ca.crt", old.certificate + next.certificate);
  await ask();
  const during = rotated.connections();
  await rotated.write("ca.crt", next.certificate);
  await ask();
  await ask();
  // No connection that was opened under an authority that is trusted no longer is used on.
  expect(rotated.connections()).toBe(during + 1);
});

test("an authority that is trusted no longer is not trusted on a connection that is still open", async () => {
  const [old, next] = [tlsAuthority("old"), tlsAuthority("next")];
  const stale = await startTlsServer(old.issue("first"), old.certificate);
  onTestFinished(() => stale.close());
  const caFile = await stale.write("ca.crt", old.certificate);
  const api = apiClient({ baseUrl: stale.baseUrl, caFile, tokenFile: await stale.write("token", "t") });
  await api.get("/api");
  await stale.write("ca.crt", next.certificate);
  await expect(api.get("/api")).rejects.toMatchObject({ status: 0, reason: "Unreachable" });
});
