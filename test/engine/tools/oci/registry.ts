import { type ChildProcess, spawn } from "node:child_process";
import { createPrivateKey, randomUUID, sign, X509Certificate } from "node:crypto";
import { once } from "node:events";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import type { Server } from "node:http";
import { createServer } from "node:https";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { check } from "../../../../tools/process/run.ts";
import { requireHostPrograms } from "../../../../tools/programs/host-packages.ts";
import { registryProgram } from "../../../../tools/programs/pinned.ts";

export const user = { name: "tester", password: "open-sesame" };
const passwordHash = "$2b$05$abcdefghijklmnopqrstuutXu9KzOt.1yBoZUeFWoT/914/JfszCO";

export interface TestRegistry {
  url: string;
  host: string;
  /** The certificate to trust, for a registry with TLS. */
  ca: string;
  /** "METHOD path" of every request, in order of their end. */
  requests: string[];
  stop(): Promise<void>;
}

/** Debian's docker-registry on a free port of the loopback: plain, with a password, or with TLS and bearer tokens. */
export async function startRegistry(kind: "open" | "password" | "tokens"): Promise<TestRegistry> {
  const program = await registryProgram(() => {});
  const directory = await mkdtemp(join(tmpdir(), "registry-test-"));
  const certificate = kind === "tokens" ? await makeCertificate(directory) : { key: "", certificate: "" };
  const tokens = kind === "tokens" ? await startTokenServer(certificate) : undefined;
  const auth = {
    open: "",
    password: `auth: { htpasswd: { realm: test, path: ${join(directory, "htpasswd")} } }`,
    tokens: `auth: { token: { realm: "${tokens?.url}", service: test, issuer: test, rootcertbundle: ${join(directory, "cert.pem")} } }`,
  }[kind];
  const tls = kind === "tokens" ? `, tls: { certificate: ${directory}/cert.pem, key: ${directory}/key.pem }` : "";
  await writeFile(join(directory, "htpasswd"), `${user.name}:${passwordHash}\n`);
  await writeFile(
    join(directory, "config.yml"),
    `version: 0.1
log: { accesslog: { disabled: false }, level: info, formatter: json }
storage: { filesystem: { rootdirectory: ${directory}/data }, delete: { enabled: true } }
http: { addr: "127.0.0.1:0", secret: test${tls} }
${auth}
`,
  );
  const child = spawn(program, ["serve", join(directory, "config.yml")], { stdio: ["ignore", "pipe", "pipe"] });
  const requests: string[] = [];
  createInterface({ input: child.stdout }).on("line", (line) => {
    const [, request] = /"((?:GET|HEAD|POST|PUT|PATCH) [^" ]+)/.exec(line) ?? [];
    if (request) requests.push(request);
  });
  const host = await listeningAddress(child);
  return {
    url: `${tls ? "https" : "http"}://${host}`,
    host,
    ca: certificate.certificate,
    requests,
    stop: async () => {
      child.kill();
      if (child.exitCode === null) await once(child, "exit");
      await tokens?.stop();
      await rm(directory, { recursive: true });
    },
  };
}

function listeningAddress(child: ChildProcess): Promise<string> {
  const said: string[] = [];
  return new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("exit", () => reject(new Error(`the registry ended:\n${said.join("\n")}`)));
    if (!child.stderr) throw new Error("standard error is a pipe");
    createInterface({ input: child.stderr }).on("line", (line) => {
      said.push(line);
      const [, address] = /listening on (127\.0\.0\.1:\d+)/.exec(line) ?? [];
      if (address) resolve(address);
    });
  });
}

/** Of an authority of its own, for 127.0.0.1. */
export async function makeCertificate(directory: string): Promise<{ key: string; certificate: string }> {
  await requireHostPrograms([{ program: "openssl", package: "openssl" }], () => {});
  const [key, certificate] = [join(directory, "key.pem"), join(directory, "cert.pem")];
  await check("openssl", [
    ..."req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=test -addext subjectAltName=IP:127.0.0.1".split(" "),
    ...["-keyout", key, "-out", certificate],
  ]);
  return { key: await readFile(key, "utf8"), certificate: await readFile(certificate, "utf8") };
}

/** Gives tokens as the registry's specification has them to whoever knows the password. */
async function startTokenServer(pair: {
  key: string;
  certificate: string;
}): Promise<{ url: string; stop(): Promise<void> }> {
  const key = createPrivateKey(pair.key);
  const chain = [new X509Certificate(pair.certificate).raw.toString("base64")];
  const encoded = (value: unknown) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const server: Server = createServer({ key: pair.key, cert: pair.certificate }, (request, response) => {
    const url = new URL(request.url ?? "/", "http://token");
    const expected = `Basic ${Buffer.from(`${user.name}:${user.password}`).toString("base64")}`;
    if (request.headers.authorization !== expected) return void response.writeHead(401).end("{}");
    const [type, name, actions = ""] = (url.searchParams.get("scope") ?? "").split(":");
    const now = Math.floor(Date.now() / 1000);
    const claims = {
      iss: "test",
      sub: user.name,
      aud: url.searchParams.get("service"),
      exp: now + 300,
      nbf: now - 10,
      iat: now,
      jti: randomUUID(),
      access: [{ type, name, actions: actions.split(",") }],
    };
    const signed = `${encoded({ typ: "JWT", alg: "RS256", x5c: chain })}.${encoded(claims)}`;
    const token = `${signed}.${sign("sha256", Buffer.from(signed), key).toString("base64url")}`;
    response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify({ token }));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    url: `https://127.0.0.1:${(server.address() as AddressInfo).port}/token`,
    stop: async () => {
      server.close();
      server.closeAllConnections();
    },
  };
}
