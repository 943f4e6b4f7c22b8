/**
 * The few calls of the Kubernetes API that an installer uses, on top of a map: for what a real API server does only rarely,
 * such as failing halfway. What the real one decides is tested against the real one.
 */

import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer, type IncomingMessage } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { ApiAddress } from "../../node-installer/kubernetes/api.ts";

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

export interface FakeObject {
  metadata: { name: string; uid: string } & Record<string, unknown>;
  [key: string]: unknown;
}

type Json = Record<string, unknown>;
const isObject = (value: unknown): value is Json =>
  typeof value === "object" && value !== null && !Array.isArray(value);

/** RFC 7396. */
function merge(target: unknown, patch: unknown): unknown {
  if (!isObject(patch)) return patch;
  const result: Json = isObject(target) ? { ...target } : {};
  for (const [key, value] of Object.entries(patch)) {
    if (value === null) delete result[key];
    else result[key] = merge(result[key], value);
  }
  return result;
}

const failure = (status: number, reason: string) => ({
  status,
  body: JSON.stringify({ kind: "Status", reason, message: `the fake says ${reason}` }),
});

export async function startFakeApiServer(): Promise<FakeApiServer> {
  const directory = await mkdtemp(join(tmpdir(), "fake-api-"));
  let uid = 0;
  let connections = 0;
  const objects = new Map<string, FakeObject>();

  /** Of leases in a namespace, or of pods in all of them, by node and phase; undefined: no such collection. */
  const listed = (path: string, fieldSelector: string): FakeObject[] | undefined => {
    const isPods = path === "/api/v1/pods";
    if (!isPods && !path.endsWith("/leases")) return undefined;
    const inside = isPods ? /^[/]api[/]v1[/]namespaces[/][^/]+[/]pods[/]/ : new RegExp(`^${path}/`);
    const terms = fieldSelector.split(",").filter(Boolean);
    return [...objects].flatMap(([key, object]) => {
      const field = (name: string) =>
        name.split(".").reduce<unknown>((at, part) => (at as Json | undefined)?.[part], object);
      const holds = (term: string) => {
        const [name = "", not = "", value] = term.split(/(!?)=/);
        return (field(name) === value) !== (not === "!");
      };
      return inside.test(key) && terms.every(holds) ? [object] : [];
    });
  };

  const answer = (
    method: string,
    path: string,
    body: Json,
    fieldSelector: string,
  ): { status: number; body: string } => {
    const existing = objects.get(path);
    if (method === "POST") {
      const metadata = body.metadata as { name: string };
      const created = `${path}/${metadata.name}`;
      if (objects.has(created)) return failure(409, "AlreadyExists");
      uid += 1;
      objects.set(created, { ...body, metadata: { ...metadata, uid: `uid-${uid}` } });
      return { status: 201, body: JSON.stringify(objects.get(created)) };
    }
    const items = method === "GET" ? listed(path, fieldSelector) : undefined;
    if (items !== undefined) return { status: 200, body: JSON.stringify({ items }) };
    if (existing === undefined) return failure(404, "NotFound");
    if (method === "PATCH") objects.set(path, merge(existing, body) as FakeObject);
    if (method === "DELETE") {
      const { preconditions } = body as { preconditions?: { uid: string } };
      if (preconditions !== undefined && preconditions.uid !== existing.metadata.uid) return failure(409, "Conflict");
      objects.delete(path);
    }
    return { status: 200, body: JSON.stringify(objects.get(path) ?? {}) };
  };

  /** Only a probe is ever tried: refused by the policy for its kind, else allowed; either way nothing is kept. */
  const dryRun = (path: string): { status: number; body: string } => {
    const kind = path.includes("/nodes/") ? "-node" : path.endsWith("/events") ? "-events" : "-tickets";
    const policy = [...fake.policies].find((name) => name.endsWith(kind));
    if (policy === undefined) return { status: 200, body: "{}" };
    const message = `forbidden: ValidatingAdmissionPolicy '${policy}' with binding '${policy}' denied request: An installer may only …`;
    return { status: 403, body: JSON.stringify({ kind: "Status", reason: "Forbidden", message }) };
  };

  const fake: FakeApiServer = {
    address: { baseUrl: "", tokenFile: join(directory, "token"), caFile: join(directory, "ca.crt") },
    objects,
    policies: new Set(),
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
    const [path = "", query = ""] = (request.url ?? "").split("?");
    const parameters = new URLSearchParams(query);
    const isDryRun = parameters.get("dryRun") === "All";
    const fieldSelector = parameters.get("fieldSelector") ?? "";
    const reply =
      fake.intercept(name) ?? (isDryRun ? dryRun(path) : answer(request.method ?? "", path, body, fieldSelector));
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
