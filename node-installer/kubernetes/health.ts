import type { IncomingMessage, ServerResponse } from "node:http";
import type { AddressInfo, Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { bundleTokenHeader } from "../../runtime/names.ts";
import type { MayReadBundle } from "./bundle-access.ts";
import { type InstallerMetrics, renderMetrics } from "./metrics.ts";
import { isReady, type NodeStatus } from "./status.ts";

export interface HealthOptions {
  port: number;
  group: string;
  nodeName: string;
  /** undefined until the first report. */
  status: () => NodeStatus | undefined;
  metrics: InstallerMetrics;
  bundle?: {
    mayRead: MayReadBundle;
    /** The node's bundle for the fleet plan, as JSON. */
    take: () => Promise<string>;
  };
}

export interface HealthServer {
  port: number;
  close(): Promise<void>;
}

/**
 * What every pod of the cluster can reach, so that it says nothing about pods, and gives nobody a way to keep the kubelet
 * from its answers. /healthz: 200 while the process lives; a node that failed is no reason to restart the installer.
 * /readyz: 200 once the spec is served, else 503, with group, node, state and code as JSON; the reason is in the node's
 * annotation. /metrics: Prometheus. /bundle: the node's bundle, for who shows a token for it.
 */
export async function serveHealth(options: HealthOptions): Promise<HealthServer> {
  const { group, nodeName: node } = options;
  const bundle = options.bundle && bundleAnswers(options.bundle);
  const metrics = shared(() => renderMetrics(group, options.status(), options.metrics));
  const answer = async (request: IncomingMessage): Promise<Answer> => {
    if (request.method !== "GET") return { code: 405, text: "only GET\n", headers: { allow: "GET" } };
    // Nothing here has parameters; a kubelet's or a scraper's own are ignored.
    const path = (request.url ?? "").slice(0, longestUrl).split("?", 1)[0];
    if (path === "/healthz") return { code: 200, text: "ok\n" };
    if (path === "/readyz") {
      const status = options.status();
      const { state, code } = status ?? { state: "working", code: "starting" };
      const ready = status !== undefined && isReady(status);
      return json(ready ? 200 : 503, `${JSON.stringify({ node, group, state, code })}\n`);
    }
    if (path === "/metrics") {
      const { contentType, text } = await metrics();
      return { code: 200, text, headers: { "content-type": contentType } };
    }
    if (path === "/bundle" && bundle !== undefined) return bundle(request.headers[bundleTokenHeader]);
    return { code: 404, text: "not found\n" };
  };

  const { createServer } = await import("node:http");
  const server = createServer({ maxHeaderSize: 12 << 10, connectionsCheckingInterval: 500 }, (request, response) => {
    answer(request)
      // An error's words may hold the node's.
      .catch((): Answer => ({ code: 500, text: "error\n" }))
      .then((made) => send(response, made));
  });
  server.headersTimeout = 2_000;
  server.requestTimeout = 2_000;
  // Of silence: a node under load takes its time for a bundle.
  server.timeout = 60_000;
  server.on("connection", fewAtOnce());
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(options.port, resolve);
  });
  return {
    port: (server.address() as AddressInfo).port,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

interface Answer {
  code: number;
  text: string;
  headers?: Record<string, string>;
}

const json = (code: number, text: string): Answer => ({ code, text, headers: { "content-type": "application/json" } });
const longestUrl = 200;

/** One request for each connection: who wants to stay has to come again, behind the others. */
function send(response: ServerResponse, { code, text, headers }: Answer): void {
  response.writeHead(code, { "content-type": "text/plain", connection: "close", ...headers }).end(text);
}

const connectionsOfOne = 4;
const connectionsOfAll = 64;

/**
 * Few connections for each address, so that no pod can take them all from the kubelet, which comes from the node's; and
 * where many pods come, the newest connection takes the place of the oldest, which has had its time.
 */
function fewAtOnce(): (socket: Socket) => void {
  const open = new Map<Socket, string>();
  return (socket) => {
    const address = socket.remoteAddress ?? "";
    if ([...open.values()].filter((other) => other === address).length >= connectionsOfOne) return socket.destroy();
    const [oldest] = open.keys();
    if (oldest !== undefined && open.size >= connectionsOfAll) {
      open.delete(oldest);
      oldest.destroy();
    }
    open.set(socket, address);
    socket.once("close", () => open.delete(socket));
  };
}

/** Requests that come while one is answered share its answer. */
function shared<T>(make: () => Promise<T>): () => Promise<T> {
  let running: Promise<T> | undefined;
  return () => {
    running ??= make().finally(() => {
      running = undefined;
    });
    return running;
  };
}

/** How long a bundle counts as that of a node as it is now. */
const keptMs = 10_000;

/** Requests that wait for their turn; more are told to come again. */
const mostWaiting = 8;
/** Between a token that was refused and the next one: nobody makes a node ask the API server all the time. */
const afterRefusalMs = 250;

/** One request after the other. */
function bundleAnswers({ mayRead, take }: NonNullable<HealthOptions["bundle"]>) {
  let taken: { text: string; at: number } | undefined;
  const one = async (token: string): Promise<Answer> => {
    if (!(await mayRead(token))) return { code: 403, text: "The token is not one for this node's bundle.\n" };
    if (taken === undefined || performance.now() - taken.at > keptMs) {
      taken = { text: await take(), at: performance.now() };
    }
    return json(200, taken.text);
  };
  let waiting = 0;
  let last: Promise<unknown> = Promise.resolve();
  return async (token: string | string[] | undefined): Promise<Answer> => {
    if (typeof token !== "string") return { code: 401, text: "A token for this node's bundle is missing.\n" };
    if (waiting >= mostWaiting) return { code: 429, text: "busy\n", headers: { "retry-after": "1" } };
    waiting += 1;
    const turn = last.then(() => one(token));
    last = turn
      .then(({ code }) => (code === 200 ? undefined : sleep(afterRefusalMs, undefined, { ref: false })))
      .catch(() => undefined)
      .finally(() => {
        waiting -= 1;
      });
    return turn;
  };
}
