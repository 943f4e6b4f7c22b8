/** Stands between a client and an API server: counts, throttles as API priority and fairness does, and breaks connections. */
import { once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { Agent, request } from "node:https";
import type { AddressInfo } from "node:net";
import { parse } from "yaml";
import * as z from "zod";

export interface CountingProxy {
  /** Content of a kubeconfig with the server's identity and the proxy's address. */
  kubeconfig: string;
  /** Of the requests that were passed on, "GET /api/v1/nodes?limit=500". */
  passed: string[];
  /** Connections that clients opened, answers of 429, connections that were broken, bytes of answers' bodies. */
  counts: { connections: number; throttled: number; broken: number; bytes: number };
  /** Throttles and breaks the next request, or does nothing to it. */
  next: () => "throttle" | "break" | undefined;
  /** Answers in the server's place where it returns something. */
  instead: (path: string) => string | undefined;
  close(): Promise<void>;
}

const kubeconfigSchema = z.looseObject({
  clusters: z.tuple([
    z.looseObject({ cluster: z.looseObject({ server: z.string(), "certificate-authority-data": z.string() }) }),
  ]),
});

/** @param kubeconfig content, of a server with TLS and a user with a token */
export async function countingProxy(kubeconfig: string): Promise<CountingProxy> {
  const config = kubeconfigSchema.parse(parse(kubeconfig));
  const [{ cluster }] = config.clusters;
  const ca = Buffer.from(cluster["certificate-authority-data"], "base64");
  const agent = new Agent({ keepAlive: true, ca });

  const answer = (incoming: IncomingMessage, response: ServerResponse) => {
    const path = incoming.url ?? "";
    const trouble = proxy.next();
    if (trouble === "break") {
      proxy.counts.broken += 1;
      incoming.socket.destroy();
      return;
    }
    if (trouble === "throttle") {
      proxy.counts.throttled += 1;
      incoming.resume();
      const body = {
        kind: "Status",
        status: "Failure",
        reason: "TooManyRequests",
        message: "Too many requests",
        code: 429,
      };
      response.writeHead(429, { "retry-after": "1", "content-type": "application/json" }).end(JSON.stringify(body));
      return;
    }
    proxy.passed.push(`${incoming.method} ${path}`);
    const own = proxy.instead(path);
    if (own !== undefined) {
      proxy.counts.bytes += own.length;
      response.end(own);
      return;
    }
    const { host: _, connection: __, ...headers } = incoming.headers;
    const outgoing = request(cluster.server + path, { agent, method: incoming.method, headers }, (answered) => {
      response.writeHead(answered.statusCode ?? 500, answered.headers);
      answered.on("data", (chunk: Buffer) => {
        proxy.counts.bytes += chunk.length;
      });
      answered.pipe(response);
    });
    outgoing.on("error", () => response.destroy());
    incoming.pipe(outgoing);
  };

  const server = createServer(answer).listen(0, "127.0.0.1");
  server.on("connection", () => {
    proxy.counts.connections += 1;
  });
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  const { "certificate-authority-data": _, ...rest } = cluster;
  const here = { ...rest, server: `http://127.0.0.1:${port}`, "insecure-skip-tls-verify": true };
  const proxy: CountingProxy = {
    kubeconfig: JSON.stringify({ ...config, clusters: [{ ...config.clusters[0], cluster: here }] }),
    passed: [],
    counts: { connections: 0, throttled: 0, broken: 0, bytes: 0 },
    next: () => undefined,
    instead: () => undefined,
    async close() {
      server.closeAllConnections();
      agent.destroy();
      server.close();
      await once(server, "close");
    },
  };
  return proxy;
}
