import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:https";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { TLSSocket } from "node:tls";
import type { Issued } from "../fixtures/tls-authority.ts";

/** An API server of which only TLS matters; what it answers says which client certificate it saw. */
export interface TlsServer {
  baseUrl: string;
  /** For what a client reads again. */
  directory: string;
  /** How many connections were opened. */
  connections: () => number;
  /** New connections get this certificate; those that are open stay, as an API server's do. */
  serve(identity: Issued): void;
  closeConnections(): void;
  write(name: string, content: string): Promise<string>;
  close(): Promise<void>;
}

/** @param clients the certificate, in PEM, of the authority of clients that have certificates */
export async function startTlsServer(identity: Issued, clients: string): Promise<TlsServer> {
  const directory = await mkdtemp(join(tmpdir(), "tls-server-"));
  const asking = { ca: clients, requestCert: true, rejectUnauthorized: false };
  const server = createServer({ ...identity, ...asking }, ({ socket }, response) => {
    const { subject } = socket instanceof TLSSocket && socket.authorized ? socket.getPeerCertificate() : {};
    response.end(JSON.stringify({ client: subject?.CN }));
  }).listen(0, "127.0.0.1");
  let connections = 0;
  server.on("connection", () => {
    connections += 1;
  });
  await new Promise((resolve) => server.once("listening", resolve));
  const { port } = server.address() as AddressInfo;
  return {
    baseUrl: `https://127.0.0.1:${port}`,
    directory,
    connections: () => connections,
    serve: (identity) => server.setSecureContext({ ...identity, ...asking }),
    closeConnections: () => server.closeAllConnections(),
    async write(name, content) {
      const path = join(directory, name);
      await writeFile(path, content);
      return path;
    },
    async close() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
      await rm(directory, { recursive: true });
    },
  };
}
