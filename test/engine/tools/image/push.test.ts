import { once } from "node:events";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, expect, test, vi } from "vitest";
import { readText } from "../../../../tools/http/client.ts";
import { pushImage } from "../../../../tools/image/push.ts";
import { readImage } from "../../../../tools/oci/layout.ts";
import { buildSimpleImage } from "../../../../tools/oci/one-layer.ts";
import { Repository } from "../../../../tools/oci/registry.ts";
import { startRegistry, type TestRegistry, user } from "../oci/registry.ts";

let directory: string;
let layoutDir: string;
let digest: string;
const registries = {} as Record<"open" | "password" | "tokens", TestRegistry>;
const quiet = () => {};

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "push-test-"));
  layoutDir = join(directory, "image");
  const entries = [{ path: "f", type: "file" as const, content: Buffer.alloc(3e6, "x"), mode: 0o644 }];
  ({ digest } = await buildSimpleImage({ layoutDir, entries, entrypoint: ["/f"] }, quiet));
  for (const kind of ["open", "password", "tokens"] as const) registries[kind] = await startRegistry(kind);
});
afterAll(async () => {
  for (const registry of Object.values(registries)) await registry.stop();
  await rm(directory, { recursive: true });
});
afterEach(() => vi.unstubAllEnvs());

/** No credentials of whoever runs the tests. */
async function withDockerConfig(config: unknown): Promise<void> {
  const home = await mkdtemp(join(directory, "docker-"));
  await writeFile(join(home, "config.json"), JSON.stringify(config));
  vi.stubEnv("DOCKER_CONFIG", home);
  vi.stubEnv("REGISTRY_USERNAME", "");
}

const manifest = (method: "GET" | "HEAD") => ({
  method,
  path: `manifests/${digest}`,
  headers: { accept: "application/vnd.oci.image.manifest.v1+json" },
});

async function pull(registry: string, repository: string, ca?: string): Promise<string> {
  return await readText(await new Repository({ registry, repository, ca }).send(manifest("GET"), [200]));
}

/** What the registry accepts from whoever reads the pushed image, once it has asked for a login. */
async function acceptedLogin(registry: string, repository: string): Promise<string | undefined> {
  const reader = new Repository({ registry, repository });
  (await reader.send(manifest("HEAD"), [200])).resume();
  return reader.authorization;
}
const basic = `Basic ${Buffer.from(`${user.name}:${user.password}`).toString("base64")}`;

test("a pushed image is there by its digest, and a second push asks one question", async () => {
  const { url, host, requests } = registries.open;
  const reference = await pushImage({ layoutDir, registry: url, repository: "team/installer" }, quiet);
  expect(reference).toBe(`${host}/team/installer@${digest}`);
  const image = await readImage(layoutDir);
  expect(await pull(url, "team/installer")).toBe(image.content.toString());
  const before = requests.length;
  expect(await pushImage({ layoutDir, registry: url, repository: "team/installer" }, quiet)).toBe(reference);
  await vi.waitUntil(() => requests.length > before);
  expect(requests.slice(before)).toEqual([`HEAD /v2/team/installer/manifests/${digest}`]);
});

test("another image with a layer that is there uploads only what is new", async () => {
  const { url, requests } = registries.open;
  const other = join(directory, "other");
  const entries = [{ path: "f", type: "file" as const, content: Buffer.alloc(3e6, "x"), mode: 0o644 }];
  await buildSimpleImage({ layoutDir: other, entries, entrypoint: ["/g"] }, quiet);
  await pushImage({ layoutDir, registry: url, repository: "shared" }, quiet);
  const before = requests.length;
  await pushImage({ layoutDir: other, registry: url, repository: "shared" }, quiet);
  await vi.waitUntil(() => requests.slice(before).some((request) => request.includes("PUT /v2/shared/manifests/")));
  expect(requests.slice(before).filter((request) => request.startsWith("PUT /v2/shared/blobs/uploads/"))).toHaveLength(
    1,
  );
});

test("a password from the environment, and from docker's configuration", async () => {
  const { url, host } = registries.password;
  vi.stubEnv("REGISTRY_USERNAME", user.name);
  vi.stubEnv("REGISTRY_PASSWORD", user.password);
  await pushImage({ layoutDir, registry: url, repository: "one" }, quiet);
  expect(await acceptedLogin(url, "one")).toBe(basic);
  await withDockerConfig({
    auths: { [host]: { auth: Buffer.from(`${user.name}:${user.password}`).toString("base64") } },
  });
  await pushImage({ layoutDir, registry: url, repository: "two" }, quiet);
  expect(await acceptedLogin(url, "two")).toBe(basic);
});

test("a credential helper of docker's configuration", async () => {
  const { url, host } = registries.password;
  const bin = join(directory, "bin");
  await mkdir(bin, { recursive: true });
  const answer = JSON.stringify({ ServerURL: host, Username: user.name, Secret: user.password });
  await writeFile(join(bin, "docker-credential-test"), `#!/bin/sh\n[ "$(cat)" = ${host} ] && echo '${answer}'\n`, {
    mode: 0o755,
  });
  await withDockerConfig({ credHelpers: { [host]: "test" } });
  vi.stubEnv("PATH", `${bin}:${process.env.PATH}`);
  await pushImage({ layoutDir, registry: url, repository: "three" }, quiet);
  expect(await acceptedLogin(url, "three")).toBe(basic);
});

test("without credentials the error names the registry, the status and what to do", async () => {
  const { url, host } = registries.password;
  await withDockerConfig({});
  await expect(pushImage({ layoutDir, registry: url, repository: "one" }, quiet)).rejects.toThrow(
    new RegExp(`^The registry ${url} answered 401 to HEAD .*docker login ${host}, or REGISTRY_USERNAME`),
  );
});

test("TLS with a private authority, and bearer tokens", async () => {
  const { url, ca } = registries.tokens;
  vi.stubEnv("REGISTRY_USERNAME", user.name);
  vi.stubEnv("REGISTRY_PASSWORD", user.password);
  await pushImage({ layoutDir, registry: url, repository: "team/installer", ca }, quiet);
  expect(JSON.parse(await pull(url, "team/installer", ca))).toHaveProperty("schemaVersion", 2);
  vi.stubEnv("REGISTRY_PASSWORD", "wrong");
  await expect(pushImage({ layoutDir, registry: url, repository: "more", ca }, quiet)).rejects.toThrow(/answered 401/);
});

test("an unknown authority, a plain registry spoken to with TLS, nobody at the port", async () => {
  await expect(pushImage({ layoutDir, registry: registries.tokens.url, repository: "a" }, quiet)).rejects.toThrow(
    /certificate.*--ca/,
  );
  await expect(pushImage({ layoutDir, registry: registries.open.host, repository: "a" }, quiet)).rejects.toThrow(
    /does not speak TLS: write http:\/\//,
  );
  await expect(pushImage({ layoutDir, registry: "http://127.0.0.1:1", repository: "a" }, quiet)).rejects.toThrow(
    /The registry http:\/\/127.0.0.1:1 cannot be reached: connect ECONNREFUSED/,
  );
});

test("an upload that breaks off is begun again", async () => {
  const seen: string[] = [];
  const server = createServer((request, response) => {
    seen.push(`${request.method}`);
    if (request.method === "HEAD") return void response.writeHead(404).end();
    if (request.method === "POST")
      return void response.writeHead(202, { location: "/v2/a/blobs/uploads/session?state=1" }).end();
    if (request.url?.includes("/manifests/"))
      return void request.resume().on("end", () => response.writeHead(201).end());
    // The first upload breaks off after its first bytes.
    if (seen.filter((method) => method === "PUT").length === 1)
      return void request.once("data", () => request.socket.destroy());
    request.resume().on("end", () => response.writeHead(201).end());
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  try {
    await pushImage({ layoutDir, registry: `http://127.0.0.1:${port}`, repository: "a" }, quiet);
    expect(seen.filter((method) => method === "POST")).toHaveLength(3);
  } finally {
    server.close();
  }
});
