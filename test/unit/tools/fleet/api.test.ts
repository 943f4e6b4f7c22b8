import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { KubeConfig } from "@kubernetes/client-node";
import { afterEach, beforeEach, describe, expect, onTestFinished, test } from "vitest";
import { ApiError } from "../../../../node-installer/kubernetes/api.ts";
import { installerName, statusAnnotation } from "../../../../runtime/names.ts";
import { Broken, each, type FleetApi, fleetApi, pauseAfter, width } from "../../../../tools/fleet/api.ts";
import { observeFleet } from "../../../../tools/fleet/observe.ts";
import { startTlsServer } from "../../../fakes/tls-server.ts";
import { tlsAuthority } from "../../../fixtures/tls-authority.ts";
import { until } from "../../../until.ts";
import { handler, status } from "./fleet-fixture.ts";

/** What the server was asked, and what it does: JSON is its answer, a number the status of one. */
let asked: string[];
let connections: number;
let answer: (path: string, request: IncomingMessage, response: ServerResponse) => object | number | "break";
let server: ReturnType<typeof createServer>;
let api: FleetApi;

beforeEach(async () => {
  [asked, connections] = [[], 0];
  server = createServer((request, response) => {
    request.resume();
    request.on("end", () => {
      asked.push(`${request.method} ${request.url}`);
      const said = answer(request.url ?? "", request, response);
      if (said === "break") request.socket.destroy();
      else if (typeof said === "number")
        response
          .writeHead(said, { "retry-after": "0" })
          .end(JSON.stringify({ reason: "Test", message: `it says ${said}` }));
      else response.end(JSON.stringify(said));
    });
  }).listen(0, "127.0.0.1");
  server.on("connection", () => {
    connections += 1;
  });
  await new Promise((resolve) => server.once("listening", resolve));
  const { port } = server.address() as AddressInfo;
  const kubeconfig = new KubeConfig();
  kubeconfig.loadFromClusterAndUser(
    { name: "c", server: `http://127.0.0.1:${port}`, skipTLSVerify: true },
    { name: "u" },
  );
  api = await fleetApi(kubeconfig);
});
afterEach(() => {
  server.closeAllConnections();
  server.close();
});

const named = (name: string) => ({ metadata: { name } });
const names = (item: { metadata: { name: string } }) => [item.metadata.name];

describe("a list", () => {
  test("comes in pages, on one connection, and what is throttled or broken off is asked for again", async () => {
    const troubles: (number | "break")[] = [429, "break", 503];
    answer = (path) => {
      const second = path.includes("continue=more");
      const trouble = second ? troubles.shift() : undefined;
      if (trouble !== undefined) return trouble;
      return second ? { metadata: {}, items: [named("b")] } : { metadata: { continue: "more" }, items: [named("a")] };
    };
    expect(await api.list("/api/v1/nodes", { labelSelector: "a=b" }, names)).toEqual(["a", "b"]);
    expect(asked[0]).toBe("GET /api/v1/nodes?labelSelector=a%3Db&limit=125");
    expect(asked).toHaveLength(5);
    // One more for the one that broke.
    expect(connections).toBe(2);
  });

  test("that lasts longer than the server keeps its state is begun anew, and no object is in it twice", async () => {
    let expired = false;
    answer = (path) => {
      if (!path.includes("continue")) return { metadata: { continue: "more" }, items: [named("a")] };
      if (expired) return { items: [named("b")] };
      expired = true;
      return 410;
    };
    expect(await api.list("/api/v1/nodes", {}, names)).toEqual(["a", "b"]);
  });

  test("of nothing, as Go writes it, is empty; what is no list is an error that says so", async () => {
    answer = () => ({ items: null });
    expect(await api.listMetadata("/api/v1/nodes", {}, names)).toEqual([]);
    answer = () => ({ hello: "from a proxy" });
    await expect(api.list("/api/v1/nodes", {}, names)).rejects.toThrow("what the API server answered is no list");
  });
});

test("an object that a lost answer's request made is made; one that was there before is an error", async () => {
  const answers: (number | "break")[] = ["break", 409];
  answer = () => answers.shift() ?? 409;
  await api.create("/api/v1/namespaces/a/pods", named("a"));
  await expect(api.create("/api/v1/namespaces/a/pods", named("a"))).rejects.toMatchObject({ status: 409 });
});

test("what the server refuses is not asked again, and its words are the error's", async () => {
  answer = () => 403;
  await expect(api.get("/api/v1/nodes/a")).rejects.toThrow("it says 403");
  expect(asked).toHaveLength(1);
});

test("requests under way are bounded, and the first that fails ends the rest", async () => {
  let [now, most, done] = [0, 0, 0];
  const work = async (item: number) => {
    now += 1;
    most = Math.max(most, now);
    await new Promise((resolve) => setImmediate(resolve));
    now -= 1;
    done += 1;
    if (item === 100) throw new Error("the hundredth");
    return item;
  };
  const items = Array.from({ length: 1_000 }, (_, index) => index);
  expect(await each(items.slice(200), work)).toEqual(items.slice(200));
  expect(most).toBe(width);
  done = 0;
  await expect(each(items, work)).rejects.toThrow("the hundredth");
  expect(done).toBeLessThan(200);
});

test("an authority's and a client's certificates in files are read again, also where connections are kept", async () => {
  const [old, next] = [tlsAuthority("old"), tlsAuthority("next")];
  const rotated = await startTlsServer(old.issue("server"), old.certificate + next.certificate);
  onTestFinished(() => rotated.close());
  const write = async (user: string, { key, cert }: { key: string; cert: string }) => ({
    name: user,
    certFile: await rotated.write("client.crt", cert),
    keyFile: await rotated.write("client.key", key),
  });
  const caFile = await rotated.write("ca.crt", old.certificate);
  const kubeconfig = new KubeConfig();
  kubeconfig.loadFromClusterAndUser(
    { name: "c", server: rotated.baseUrl, caFile, skipTLSVerify: false },
    await write("u", old.issue("first")),
  );
  const client = await fleetApi(kubeconfig);
  expect(await client.get("/api")).toEqual({ client: "first" });
  await write("u", next.issue("second"));
  expect(await client.get("/api")).toEqual({ client: "second" });

  // The server is first, the file comes while the command waits.
  rotated.serve(next.issue("server"));
  rotated.closeConnections();
  const before = rotated.connections();
  const waiting = client.get("/api");
  await until("the client to see the certificate", async () => rotated.connections() > before);
  await rotated.write("ca.crt", next.certificate);
  expect(await waiting).toEqual({ client: "second" });
});

describe("the pause before another attempt", () => {
  const now = { retries: 0, elapsedMs: 0, hasAnswered: true };
  test("grows, and is spread", () => {
    const broken = networkError("ECONNRESET");
    expect(pauseAfter(broken, now, 0)).toBe(250);
    expect(pauseAfter(broken, now, 1)).toBe(500);
    expect(pauseAfter(broken, { ...now, retries: 3 }, 1)).toBe(4_000);
    expect(pauseAfter(broken, { ...now, retries: 30 }, 1)).toBe(8_000);
  });
  test("ends: after half a minute without an answer, or at once where none ever came", () => {
    expect(pauseAfter(networkError("ECONNREFUSED"), { ...now, elapsedMs: 29_900 }, 1)).toBeUndefined();
    expect(pauseAfter(networkError("ECONNREFUSED"), { ...now, hasAnswered: false })).toBeUndefined();
    expect(pauseAfter(networkError("ECONNRESET"), { ...now, hasAnswered: false })).toBeDefined();
  });
  test("is none after what another attempt would meet again", () => {
    expect(pauseAfter(new ApiError(404, "NotFound", "no"), now)).toBeUndefined();
    expect(pauseAfter(new TypeError("a bug"), now)).toBeUndefined();
  });
  function networkError(code: string) {
    return new Broken(Object.assign(new Error(code), { code }));
  }
});

describe("a look at 1,200 nodes", () => {
  const group = "metal";
  const name = installerName(group);
  const many = Array.from({ length: 1_200 }, (_, index) => `node-${index}`);
  const node = (name: string, labels: object = { pool: "metal" }) => ({
    metadata: { name, labels, annotations: { [statusAnnotation(group)]: JSON.stringify(status("ready")) } },
    status: { conditions: [{ type: "Ready", status: "True" }] },
  });
  const pod = (node: string) => ({
    metadata: { name: `${name}-${node}`, labels: { "controller-revision-hash": "1" } },
    spec: { nodeName: node },
    status: { phase: "Running", conditions: [{ type: "Ready", status: "True" }] },
  });
  const volumes = [{ name: "spec", configMap: { name: "map" } }];
  const daemonSet = (template: object) => ({
    metadata: { namespace: "ns", name, uid: "1", generation: 1 },
    spec: { selector: { matchLabels: { app: name } }, template: { spec: { ...template, containers: [], volumes } } },
    status: { desiredNumberScheduled: many.length, observedGeneration: 1 },
  });
  const spec = JSON.stringify({ atOnce: 1, runtimes: [{ handler }] });
  /** As the API server: pages of what `limit` says. */
  const pages = (path: string, all: object[]) => {
    const query = new URL(path, "http://a").searchParams;
    const [from, limit] = [Number(query.get("continue") ?? 0), Number(query.get("limit"))];
    const next = from + limit < all.length ? { continue: `${from + limit}` } : {};
    return { metadata: next, items: all.slice(from, from + limit) };
  };
  const serve = (template: object, others: object[] = []) => {
    answer = (path) => {
      if (path.includes("/daemonsets/")) return daemonSet(template);
      if (path.includes("/configmaps/")) return { metadata: { name: "map" }, data: { "spec.json": spec } };
      if (path.includes("/pods")) return pages(path, many.map(pod));
      if (path.startsWith("/api/v1/nodes/")) return node(path.slice("/api/v1/nodes/".length), {});
      if (path.includes("/nodes?labelSelector=pool%3Dmetal"))
        return pages(
          path,
          many.map((name) => node(name)),
        );
      if (path.includes("/nodes?")) return pages(path, [...many.map((name) => node(name)), ...others]);
      return { items: [] };
    };
  };

  test("takes a request for each 125 of nodes, of pods and of all metadata, and four more", async () => {
    serve({ nodeSelector: { pool: "metal" } });
    const fleet = await observeFleet(api, "ns", group);
    expect(fleet.nodes).toHaveLength(1_200);
    expect(fleet.nodes.every(({ selected, pod, labelled }) => selected && pod?.ready && labelled.length === 0)).toBe(
      true,
    );
    expect(asked).toHaveLength(10 + 10 + 10 + 4);
    expect(connections).toBeLessThanOrEqual(7);
  });

  test("finds the node that left the group with something on it, and asks for it alone", async () => {
    serve({ nodeSelector: { pool: "metal" } }, [node("left", {}), { metadata: { name: "never-in-it" } }]);
    const { nodes } = await observeFleet(api, "ns", group);
    expect(nodes.filter(({ selected }) => !selected).map(({ name }) => name)).toEqual(["left"]);
    expect(asked.filter((line) => line.startsWith("GET /api/v1/nodes/"))).toEqual(["GET /api/v1/nodes/left"]);
  });

  test("asks for a few named nodes by name", async () => {
    const matchFields = [{ key: "metadata.name", operator: "In", values: ["node-3", "node-4"] }];
    const terms = { nodeSelectorTerms: [{ matchFields }] };
    serve({ affinity: { nodeAffinity: { requiredDuringSchedulingIgnoredDuringExecution: terms } } });
    await observeFleet(api, "ns", group);
    expect(asked).toEqual(expect.arrayContaining(["GET /api/v1/nodes/node-3", "GET /api/v1/nodes/node-4"]));
  });
});

/** A group with one node, which these pods keep from removing a runtime. */
function serveBlocked(pods: string[], handlers: string[], podAt: (path: string) => object | undefined): void {
  const annotations = { [statusAnnotation("metal")]: JSON.stringify(status("blocked", { pods })) };
  const spec = { atOnce: 1, runtimes: handlers.map((handler) => ({ handler })) };
  answer = (path) => {
    if (path.includes("/daemonsets/"))
      return {
        metadata: { namespace: "ns", name: "d" },
        spec: { selector: {}, template: { spec: { volumes: [{ name: "spec", configMap: { name: "map" } }] } } },
      };
    if (path.includes("/configmaps/"))
      return { metadata: { name: "map" }, data: { "spec.json": JSON.stringify(spec) } };
    if (path.includes("/nodes")) return { items: [{ metadata: { name: "a", annotations } }] };
    return podAt(path) ?? { items: [] };
  };
}

test("a pod that was made again with a runtime that stays is not the one that keeps another", async () => {
  const running: Record<string, object> = {
    "cart-0": { runtimeClassName: "contrast-cc-new" },
    "cart-1": { runtimeClassName: "contrast-cc-old" },
    "cart-2": {},
  };
  serveBlocked(["shop/cart-0", "shop/cart-1", "shop/cart-2"], ["contrast-cc-new"], (path) => {
    const [, name] = /\/shop\/pods\/(.+)$/.exec(path) ?? [];
    return name === undefined ? undefined : { ...named(name), spec: running[name] };
  });
  const { endedPods } = await observeFleet(api, "ns", "metal");
  expect([...endedPods]).toEqual(["shop/cart-0"]);
});

test("of blocked nodes' pods a few are asked for by name, and of many of a namespace the names are listed", async () => {
  const pods = [...Array.from({ length: 30 }, (_, index) => `shop/cart-${index}`), "other/basket"];
  serveBlocked(pods, [], (path) => {
    if (path.includes("/namespaces/shop/pods?")) return { items: [named("cart-7")] };
    return path.includes("/other/pods/basket") ? named("basket") : undefined;
  });
  const { endedPods } = await observeFleet(api, "ns", "metal");
  expect(endedPods.size).toBe(29);
  expect(endedPods.has("shop/cart-7") || endedPods.has("other/basket")).toBe(false);
  expect(asked.filter((line) => /shop|other/.test(line))).toHaveLength(2);
});
