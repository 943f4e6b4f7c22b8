import type { ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { type InstallerMetrics, renderMetrics } from "./metrics.ts";
import { isReady, type NodeStatus } from "./status.ts";

export interface HealthOptions {
  port: number;
  group: string;
  nodeName: string;
  /** undefined until the first report. */
  status: () => NodeStatus | undefined;
  metrics: InstallerMetrics;
  /** The node's bundle for the fleet plan, as JSON without secrets; served at /snapshot if given. */
  snapshot?: () => Promise<string>;
}

export interface HealthServer {
  port: number;
  close(): Promise<void>;
}

/**
 * /healthz: 200 while the process lives; a node that failed is no reason to restart the installer. /readyz: 200 once
 * the spec is served, else 503, the status as JSON. /metrics: Prometheus. /snapshot: the node's bundle.
 */
export async function serveHealth(options: HealthOptions): Promise<HealthServer> {
  const answer = async (path: string, response: ServerResponse): Promise<void> => {
    const send = (code: number, contentType: string, body: string) =>
      response.writeHead(code, { "content-type": contentType }).end(body);
    const { group, nodeName: node } = options;
    const status = options.status();
    if (path === "/healthz") send(200, "text/plain", "ok\n");
    else if (path === "/readyz") {
      const body = status ?? { state: "working", code: "starting", reason: "The installer is starting.", handlers: [] };
      const ready = status !== undefined && isReady(status);
      send(ready ? 200 : 503, "application/json", `${JSON.stringify({ node, group, ...body })}\n`);
    } else if (path === "/metrics") {
      const { contentType, text } = await renderMetrics(group, status, options.metrics);
      send(200, contentType, text);
    } else if (path === "/snapshot" && options.snapshot !== undefined) {
      send(200, "application/json", await options.snapshot());
    } else send(404, "text/plain", "not found\n");
  };

  const { createServer } = await import("node:http");
  const server = createServer((request, response) => {
    const path = (request.url ?? "/").split("?")[0] ?? "/";
    answer(path, response).catch((error: unknown) => {
      if (!response.headersSent) response.writeHead(500, { "content-type": "text/plain" });
      response.end(`${error instanceof Error ? error.message : String(error)}\n`);
    });
  });
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
