import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer, type Server as HttpServer, type IncomingMessage, type ServerResponse } from "node:http";
import { createServer as createSecureServer, type Server as HttpsServer } from "node:https";
import { type AddressInfo, createServer as createTcpServer, type Server as TcpServer } from "node:net";
import { networkInterfaces, tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, expect, test, vi } from "vitest";
import { readText, send } from "../../../../tools/http/client.ts";
import { download } from "../../../../tools/http/download.ts";
import { pushImage } from "../../../../tools/image/push.ts";
import { buildSimpleImage } from "../../../../tools/oci/one-layer.ts";
import { Repository } from "../../../../tools/oci/registry.ts";
import { makeCertificate } from "./registry.ts";

type Handler = (request: IncomingMessage, response: ServerResponse) => void;

let directory: string;
let layoutDir: string;
let pair: { key: string; certificate: string };
const servers: (HttpServer | HttpsServer | TcpServer)[] = [];
/** What each request said, in order: "http GET /path authorization". */
let heard: string[];
const basic = `Basic ${Buffer.from("user:hush").toString("base64")}`;
const quiet = () => {};

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "credentials-test-"));
  pair = await makeCertificate(directory);
  layoutDir = join(directory, "image");
  await buildSimpleImage({ layoutDir, entries: [{ path: "f", type: "file", content: "f", mode: 0o644 }] }, quiet);
});
afterAll(() => rm(directory, { recursive: true }));
beforeEach(() => {
  heard = [];
  vi.stubEnv("REGISTRY_USERNAME", "user");
  vi.stubEnv("REGISTRY_PASSWORD", "hush");
});
afterEach(() => {
  vi.unstubAllEnvs();
  for (const server of servers.splice(0)) {
    server.close();
    if ("closeAllConnections" in server) server.closeAllConnections();
  }
});

const listening = (scheme: string, handler: Handler): Handler => {
  return (request, response) => {
    heard.push(`${scheme} ${request.method} ${request.url} ${request.headers.authorization ?? "anonymous"}`);
    handler(request, response);
  };
};

async function portOf(server: HttpServer | HttpsServer | TcpServer, address = "127.0.0.1"): Promise<number> {
  servers.push(server);
  server.listen(0, address);
  await once(server, "listening");
  return (server.address() as AddressInfo).port;
}

const plain = async (handler: Handler, address?: string) =>
  `http://${address ?? "127.0.0.1"}:${await portOf(createServer(listening("http", handler)), address)}`;
const secure = async (handler: Handler) =>
  `https://127.0.0.1:${await portOf(createSecureServer({ key: pair.key, cert: pair.certificate }, listening("https", handler)))}`;

/** One port that speaks both: to whoever does not begin with TLS, plain HTTP. */
async function both(handler: Handler): Promise<string> {
  const http = createServer(listening("http", handler));
  const https = createSecureServer({ key: pair.key, cert: pair.certificate }, listening("https", handler));
  const port = await portOf(
    createTcpServer((socket) => {
      socket.once("data", (first: Buffer) => {
        socket.pause();
        socket.unshift(first);
        (first[0] === 22 ? https : http).emit("connection", socket);
        process.nextTick(() => socket.resume());
      });
    }),
  );
  return `127.0.0.1:${port}`;
}

/** A registry that wants a password and has nothing; uploads go where `location` says. */
const passwordRegistry =
  (location: () => string, challenge = 'Basic realm="r"'): Handler =>
  (request, response) => {
    request.resume();
    if (request.headers.authorization === undefined)
      return void response.writeHead(401, { "www-authenticate": challenge }).end();
    if (request.method === "HEAD") return void response.writeHead(404).end();
    if (request.method === "POST") return void response.writeHead(202, { location: location() }).end();
    response.writeHead(201).end();
  };

const push = async (registry: string) =>
  await pushImage({ layoutDir, registry, repository: "team/installer", ca: pair.certificate }, quiet);

test("an upload that a registry with TLS sends on to plain HTTP of the same host and port is refused", async () => {
  const host: string = await both(passwordRegistry(() => `http://${host}/upload`));
  await expect(push(host)).rejects.toThrow(
    `https://${host} sends on to http://${host}, without TLS: refused. If that server is behind a proxy`,
  );
  expect(heard.filter((request) => request.startsWith("http "))).toEqual([]);
});

test("another port of the registry's host is another server: it gets the upload and no password", async () => {
  const store = await secure(
    (request, response) => void request.resume().on("end", () => response.writeHead(201).end()),
  );
  await push(await secure(passwordRegistry(() => `${store}/upload`)));
  const uploads = heard.filter((request) => request.includes("PUT /upload"));
  expect(uploads.length).toBeGreaterThan(0);
  for (const upload of uploads) expect(upload).toMatch(/ anonymous$/);
});

test.each(["ftp://127.0.0.1/upload", "http://[", "file:///etc/passwd"])(
  "an upload to %s is refused with a sentence",
  async (location) => {
    await expect(push(await secure(passwordRegistry(() => location)))).rejects.toThrow(/which is no web address/);
  },
);

test("a registry with TLS that wants the password at a plain server does not get it there", async () => {
  const realm = await plain((_, response) => void response.end(JSON.stringify({ token: "t" })));
  const registry = await secure(passwordRegistry(() => "", `Bearer realm="${realm}/token",service="s"`));
  await expect(push(registry)).rejects.toThrow(
    `The registry ${registry} wants a login at ${realm}, where nothing that is sent is hidden from others: refused.`,
  );
  expect(heard.filter((request) => request.startsWith("http "))).toEqual([]);
});

test("a token server with TLS on another host and port gets the password: registries are made like that", async () => {
  const realm = await secure((_, response) => void response.end(JSON.stringify({ token: "t0k3n" })));
  const registry = await secure(passwordRegistry(() => "/upload", `Bearer realm="${realm}/token",service="s"`));
  await push(registry);
  expect(heard.find((request) => request.includes("/token"))).toMatch(new RegExp(`${basic}$`));
  expect(heard.at(-1)).toMatch(/Bearer t0k3n$/);
});

test("what a token server redirects to elsewhere is asked without the password", async () => {
  const elsewhere = await secure((_, response) => void response.end(JSON.stringify({ token: "t" })));
  const realm = await secure((_, response) => void response.writeHead(307, { location: `${elsewhere}/other` }).end());
  await push(await secure(passwordRegistry(() => "/upload", `Bearer realm="${realm}/token"`)));
  expect(heard.find((request) => request.includes("/other"))).toMatch(/ anonymous$/);
});

test.each([
  ["endless", "x".repeat(2 << 20), /longer than 1048576 bytes/],
  ["two lines", JSON.stringify({ token: "a\r\nx-injected: b" }), /answered without a token/],
])("a token that is %s ends the command with a sentence", async (_, answer, message) => {
  const realm = await secure((_, response) => void response.end(answer));
  const registry = await secure(passwordRegistry(() => "", `Bearer realm="${realm}/token"`));
  await expect(push(registry)).rejects.toThrow(message);
});

test("what a registry says of an error is shown without control characters, and not at length", async () => {
  const errors = [
    { code: "DENIED", message: `\u001b[2K\u001b]8;;https://evil.example\u0007no\r\n${"x".repeat(5000)}` },
  ];
  const registry = await secure((request, response) => {
    request.resume();
    response.writeHead(403).end(request.method === "HEAD" ? undefined : JSON.stringify({ errors }));
  });
  const repository = new Repository({ registry, repository: "a", ca: pair.certificate });
  const failure = await repository.send({ method: "GET", path: "manifests/x" }, [200]).catch((error: Error) => error);
  expect((failure as Error).message).toContain("DENIED: no xxx");
  expect((failure as Error).message).not.toMatch(/\p{Cc}/u);
  expect((failure as Error).message.length).toBeLessThan(900);
});

/** An address of this machine that is not the loopback's: for the client it is any host of a network. */
const outside = Object.values(networkInterfaces())
  .flat()
  .find((one) => one && !one.internal && one.family === "IPv4")?.address;

test("docker's stored login stays here when the registry speaks plain HTTP on the network; the environment's is sent", async () => {
  if (outside === undefined) throw new Error("this machine has no address but the loopback's");
  const registry = await plain(
    passwordRegistry(() => "/upload"),
    outside,
  );
  const { host } = new URL(registry);
  await writeFile(join(directory, "config.json"), JSON.stringify({ auths: { [host]: { auth: basic.slice(6) } } }));
  vi.stubEnv("DOCKER_CONFIG", directory);
  await push(registry);
  expect(heard.at(-1)).toMatch(new RegExp(`${basic}$`));
  heard = [];
  vi.stubEnv("REGISTRY_USERNAME", "");
  await expect(push(registry)).rejects.toThrow(
    `${join(directory, "config.json")} has a login for ${host}, which is not sent to ${registry}: others could read it there.`,
  );
  for (const request of heard) expect(request).toMatch(/ anonymous$/);
});

test("docker's stored login for a registry on this machine is sent without TLS: nobody is on the way", async () => {
  const registry = await plain(passwordRegistry(() => "/upload"));
  const { host } = new URL(registry);
  await writeFile(join(directory, "config.json"), JSON.stringify({ auths: { [host]: { auth: basic.slice(6) } } }));
  vi.stubEnv("DOCKER_CONFIG", directory);
  vi.stubEnv("REGISTRY_USERNAME", "");
  await push(registry);
  expect(heard.at(-1)).toMatch(new RegExp(`${basic}$`));
});

test("a download is not redirected from TLS to plain HTTP, and a login is not taken along to another port", async () => {
  const target = await plain((_, response) => void response.end("bytes"));
  const from = await secure((_, response) => void response.writeHead(302, { location: target }).end());
  const headers = { authorization: basic };
  const wanted = { url: from, sha256: "0".repeat(64), headers, ca: pair.certificate, directory };
  await expect(download(wanted, quiet)).rejects.toThrow(`${from} sends on to ${target}, without TLS: refused.`);
  expect(heard).toHaveLength(1);
  const other = await secure((_, response) => void response.end("bytes"));
  const moved = await secure((_, response) => void response.writeHead(302, { location: other }).end());
  await readText(await send({ method: "GET", url: new URL(moved), headers, ca: pair.certificate }));
  expect(heard.slice(1)).toEqual([`https GET / ${basic}`, "https GET / anonymous"]);
});
