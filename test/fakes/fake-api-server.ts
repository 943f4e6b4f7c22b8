/**
 * The few calls of the Kubernetes API that an installer uses, over HTTP: for what a real API server does only rarely, such
 * as failing halfway. What the real one decides is tested against the real one.
 */

import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer, type IncomingMessage } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { ApiAddress } from "../../node-installer/kubernetes/api.ts";
import { type FakeObject, type Json, memoryApi } from "./memory-api.ts";

export interface FakeApiServer {
  address: ApiAddress;
  objects: Map<string, FakeObject>;
  /** "PATCH /api/v1/nodes/a", in order. */
  requests: string[];
  tokens: string[];
  /** Names of admission policies that are in force. What they refuse is as the real API server was seen to refuse it. */
  policies: Set<string>;
  /** Answers instead of the map if it returns something; "hang": never answers; "drop": closes the connection instead. */
  intercept: (request: string) => { status: number; body: string } | "hang" | "drop" | undefined;
  /** How many were opened. */
  connections: () => number;
  writeToken(token: string): Promise<void>;
  close(): Promise<void>;
}

export async function startFakeApiServer(): Promise<FakeApiServer> {
  const directory = await mkdtemp(join(tmpdir(), "fake-api-"));
  let connections = 0;
  const api = memoryApi();

  const fake: FakeApiServer = {
    address: { baseUrl: "", tokenFile: join(directory, "token"), caFile: join(directory, "ca.crt") },
    objects: api.objects,
    policies: api.policies,
    requests: [],
    tokens: [],
    intercept: () => undefined,
    connections: () => connections,
    writeToken: (token) => writeFile(join(directory, "token"), `${token}\n`),
    async close() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
      await rm(directory, { recursive: true });
    },
  };
  const server = createServer(async (request, response) => {
    const name = `${request.method} ${request.url}`;
    fake.requests.push(name);
    fake.tokens.push(request.headers.authorization ?? "");
    const body = await readBody(request);
    const reply = fake.intercept(name) ?? api.answer(request.method ?? "", request.url ?? "", body);
    if (reply === "drop") request.socket.destroy();
    else if (reply !== "hang") response.writeHead(reply.status, { "content-type": "application/json" }).end(reply.body);
  });
  server.on("connection", () => {
    connections += 1;
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  fake.address.baseUrl = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  await fake.writeToken("first");
  await writeFile(fake.address.caFile, "");
  return fake;
}

async function readBody(request: IncomingMessage): Promise<Json> {
  let text = "";
  for await (const chunk of request) text += chunk;
  return text === "" ? {} : (JSON.parse(text) as Json);
}
