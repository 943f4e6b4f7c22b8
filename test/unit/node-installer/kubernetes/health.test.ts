import { connect } from "node:net";
import { afterEach, expect, test } from "vitest";
import { apiClient } from "../../../../node-installer/kubernetes/api.ts";
import { bundleAccess } from "../../../../node-installer/kubernetes/bundle-access.ts";
import { type HealthServer, serveHealth } from "../../../../node-installer/kubernetes/health.ts";
import { newMetrics } from "../../../../node-installer/kubernetes/metrics.ts";
import type { NodeStatus } from "../../../../node-installer/kubernetes/status.ts";
import { bundleAudience, bundleTokenHeader } from "../../../../runtime/names.ts";
import { startFakeApiServer } from "../../../fakes/fake-api-server.ts";

const handler = "contrast-cc-metal-qemu-snp-00000001";
const tenant = "tenant-of-somebody";
let health: HealthServer | undefined;
afterEach(async () => health?.close());

const metrics = { ...newMetrics(), restarts: 2, failures: { "gate-failed": 1 } };
let status: NodeStatus | undefined;
let taken = 0;
async function serve(mayRead: (token: string) => Promise<boolean> = async () => true): Promise<string> {
  taken = 0;
  const take = async () => `{"bundle":${++taken}}`;
  health = await serveHealth({
    port: 0,
    group: "g",
    nodeName: "a",
    status: () => status,
    metrics,
    bundle: { mayRead, take },
  });
  return `http://127.0.0.1:${health.port}`;
}
const get = async (url: string, options?: RequestInit) => {
  const response = await fetch(url, options);
  return { status: response.status, text: await response.text() };
};

test("the port says how the node is, and nothing about pods", async () => {
  const url = await serve();
  status = undefined;
  expect((await get(`${url}/healthz`)).status).toBe(200);
  expect(await get(`${url}/readyz`)).toMatchObject({ status: 503, text: expect.stringContaining('"starting"') });
  const said = { reason: `process sh of ${tenant}`, pods: [`${tenant}/web`], handlers: [handler], specHash: "0" };
  for (const state of ["failed", "blocked"] as const) {
    status = { state, code: "gate-failed", ...said };
    const { status: code, text } = await get(`${url}/readyz?verbose`);
    expect(code).toBe(state === "failed" ? 503 : 200);
    expect(JSON.parse(text)).toEqual({ node: "a", group: "g", state, code: "gate-failed" });
    const { text: rendered } = await get(`${url}/metrics`);
    expect(rendered).not.toContain(tenant);
    expect(rendered).toContain(`contrast_installer_state{state="${state}",group="g"} 1`);
    expect(rendered).toContain('contrast_installer_containerd_restarts_total{group="g"} 2');
    expect(rendered).toContain('contrast_installer_failures_total{code="gate-failed",group="g"} 1');
    expect(rendered).toContain(`contrast_installer_handler_served{handler="${handler}",group="g"} 1`);
  }
  for (const path of ["/snapshot", "/etc/passwd"]) expect((await get(url + path)).status).toBe(404);
  expect((await get(`${url}/healthz`, { method: "POST", body: "x" })).status).toBe(405);
});

test("a bundle is given for a token only, and is taken once for those who ask together", async () => {
  const url = await serve(async (token) => token === "good");
  const bundle = (token?: string) =>
    get(`${url}/bundle`, token === undefined ? {} : { headers: { [bundleTokenHeader]: token } });
  expect((await bundle()).status).toBe(401);
  expect((await bundle("bad")).status).toBe(403);
  const answers = await Promise.all([bundle("good"), bundle("good")]);
  expect(answers).toEqual([1, 2].map(() => ({ status: 200, text: '{"bundle":1}' })));
  expect(taken).toBe(1);
});

test("an error's words stay on the node", async () => {
  const url = await serve(async () => {
    throw new Error(tenant);
  });
  const answer = await get(`${url}/bundle`, { headers: { [bundleTokenHeader]: "x" } });
  expect(answer).toEqual({ status: 500, text: "error\n" });
});

test("connections that say nothing keep nobody else out", async () => {
  await serve();
  const port = health?.port ?? 0;
  const silent = Array.from({ length: 40 }, () => connect({ port, host: "127.0.0.1" }).on("error", () => {}));
  await Promise.all(silent.slice(0, 4).map((socket) => new Promise((done) => socket.once("connect", done))));
  // All but four of one address are closed at once, and another address is answered.
  await Promise.all(silent.slice(4).map((socket) => new Promise((done) => socket.once("close", done))));
  const answer = await new Promise<string>((resolve, reject) => {
    const socket = connect({ port, host: "127.0.0.1", localAddress: "127.0.0.2" });
    socket.on("data", (data) => resolve(data.toString())).on("error", reject);
    socket.write("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
  });
  expect(answer).toMatch(/^HTTP\/1\.1 200 /);
  for (const socket of silent) socket.destroy();
});

const token = (seconds: number) => {
  const part = (value: object) => Buffer.from(JSON.stringify(value)).toString("base64url");
  return `${part({ alg: "RS256" })}.${part({ iat: 0, exp: seconds })}.c2ln`;
};
const account = "system:serviceaccount:ns:bundle-reader";
const mine = { authenticated: true, audiences: [bundleAudience("a")], user: { username: account } };
test.each([
  ["the reader's own", token(600), mine, true],
  [
    "one of another account",
    token(600),
    { ...mine, user: { username: "system:serviceaccount:tenant:bundle-reader" } },
    false,
  ],
  ["one for another node", token(600), { ...mine, audiences: [bundleAudience("b")] }, false],
  ["one whose audience the API server does not tell", token(600), { ...mine, audiences: undefined }, false],
  ["one that the API server does not know", token(600), { authenticated: false }, false],
  ["one that lives too long", token(86_400), mine, false],
  ["no token", "x", mine, false],
])("a token: %s", async (_, shown, answer, expected) => {
  const server = await startFakeApiServer();
  server.intercept = () => ({ status: 201, body: JSON.stringify({ status: answer }) });
  try {
    expect(await bundleAccess(apiClient(server.address), "ns", "a")(shown)).toBe(expected);
  } finally {
    await server.close();
  }
});
