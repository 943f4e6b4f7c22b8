import { spawn } from "node:child_process";
import { once } from "node:events";
import { cp, mkdir, readFile, writeFile } from "node:fs/promises";
import type { IncomingMessage, ServerResponse } from "node:http";
import { createServer } from "node:https";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { packageRoot } from "../../tools/files/project.ts";
import { check } from "../../tools/process/run.ts";
import { requireHostPrograms } from "../../tools/programs/host-packages.ts";

/** The engine takes nothing for a repository's address whose host has no dot. */
const host = "forge.example";
const loopback = "127.0.0.1";

/**
 * Serves repositories at an address without a port: the engine does not find a package again whose folder has a colon in
 * its name. Needs root, for port 443 and for a name of its own.
 *
 * @param root holds them as OWNER/NAME.git
 */
export async function startNamedGitServer(root: string) {
  // Two runs do not meet.
  const address = `127.${(process.pid >> 16) & 255}.${(process.pid >> 8) & 255}.${process.pid & 255}`;
  const hosts = join(root, "hosts");
  await writeFile(hosts, `${loopback} localhost\n${address} ${host}\n`);
  return {
    ...(await serve(root, { name: host, kind: "DNS", address, port: 443 })),
    /** Words to put before a command so that it finds the server by its name. */
    prefix: ["unshare", "--mount", "sh", "-c", 'mount --bind "$0" /etc/hosts && exec "$@"', hosts],
  };
}

/**
 * This repository as far as `pulumi new` reads it: `templates/` as it is here, on the branch main.
 *
 * @returns also the address of each template, as the documents have it
 */
export async function serveTemplates(directory: string) {
  const root = join(directory, "git");
  const repository = join(root, "owner", "name.git");
  await mkdir(repository, { recursive: true });
  await cp(join(packageRoot, "templates"), join(repository, "templates"), { recursive: true });
  const git = (...words: string[]) => check("git", words, { cwd: repository });
  await git("init", "--quiet", "--initial-branch=main");
  await git("add", "templates");
  await git("-c", "user.name=a", "-c", "user.email=a@example.com", "commit", "--quiet", "--message", "templates");
  const server = await serve(root, { name: loopback, kind: "IP", address: loopback, port: 0 });
  return { ...server, template: (name: string) => `${server.address}/owner/name/tree/main/templates/${name}` };
}

interface Place {
  /** In its certificate and in its address. */
  name: string;
  kind: "DNS" | "IP";
  address: string;
  /** 0: any that is free. */
  port: number;
}

/**
 * Serves the repositories below a directory as a forge does, on loopback: git's own program for HTTP behind a certificate
 * that the returned bundle's readers trust, besides the machine's authorities.
 */
async function serve(root: string, { name, kind, address, port }: Place) {
  const [key, certificate, authorities] = ["key", "crt", "bundle"].map((name) => join(root, `server.${name}`)) as [
    string,
    string,
    string,
  ];
  await requireHostPrograms([{ program: "openssl", package: "openssl" }], () => {});
  await check("openssl", [
    ...["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1"],
    ...["-subj", `/CN=${name}`, "-addext", `subjectAltName=${kind}:${name}`, "-keyout", key, "-out", certificate],
  ]);
  const ours = await readFile(certificate, "utf8");
  const machines = process.env.SSL_CERT_FILE ?? "/etc/ssl/certs/ca-certificates.crt";
  await writeFile(authorities, (await readFile(machines, "utf8")) + ours);
  const backend = join((await check("git", ["--exec-path"])).trim(), "git-http-backend");
  const server = createServer({ key: await readFile(key), cert: ours }, (request, response) =>
    answer(backend, root, request, response),
  );
  server.listen(port, address);
  await once(server, "listening");
  return {
    address: `https://${name}${port === 0 ? `:${(server.address() as AddressInfo).port}` : ""}`,
    /** A PEM file. */
    authorities,
    async stop() {
      server.closeAllConnections();
      server.close();
      await once(server, "close");
    },
  };
}

/** One request by the common gateway interface. */
function answer(backend: string, root: string, request: IncomingMessage, response: ServerResponse): void {
  const { pathname, search } = new URL(request.url ?? "/", "https://localhost");
  const {
    "content-type": type = "",
    "content-encoding": encoding = "",
    "git-protocol": protocol = "",
  } = request.headers;
  const child = spawn(backend, [], {
    stdio: ["pipe", "pipe", "inherit"],
    env: {
      GIT_PROJECT_ROOT: root,
      GIT_HTTP_EXPORT_ALL: "1",
      // The repositories may be another user's.
      GIT_CONFIG_COUNT: "1",
      GIT_CONFIG_KEY_0: "safe.directory",
      GIT_CONFIG_VALUE_0: "*",
      REQUEST_METHOD: request.method ?? "GET",
      PATH_INFO: decodeURIComponent(pathname),
      QUERY_STRING: search.slice(1),
      CONTENT_TYPE: type,
      HTTP_CONTENT_ENCODING: encoding,
      HTTP_GIT_PROTOCOL: String(protocol),
      REMOTE_ADDR: "127.0.0.1",
    },
  });
  request.pipe(child.stdin);
  child.stdin.on("error", () => {});
  const chunks: Buffer[] = [];
  child.stdout.on("data", (chunk: Buffer) => chunks.push(chunk));
  child.on("close", () => {
    const all = Buffer.concat(chunks);
    const end = all.indexOf("\r\n\r\n");
    let status = 200;
    for (const line of all.subarray(0, end).toString().split("\r\n")) {
      const [name = "", value = ""] = line.split(": ");
      if (name.toLowerCase() === "status") status = Number.parseInt(value, 10);
      else response.setHeader(name, value);
    }
    response.writeHead(status).end(all.subarray(end + 4));
  });
}
