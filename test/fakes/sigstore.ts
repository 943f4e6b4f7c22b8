import { generateKeyPairSync } from "node:crypto";
import { once } from "node:events";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { fulcioHandler, initializeCA, initializeCTLog, initializeTLog, rekorHandler } from "@sigstore/mock";

export interface Sigstore {
  /** Addresses of the authority and of the log. */
  fulcio: string;
  rekor: string;
  stop(): Promise<void>;
}

/** Sigstore's authority and log as servers on the loopback, with keys made here. */
export async function startSigstore(): Promise<Sigstore> {
  const pair = () => generateKeyPairSync("ec", { namedCurve: "prime256v1" });
  const ctLog = await initializeCTLog(pair());
  const authority = await initializeCA(pair(), ctLog);
  const log = await initializeTLog("http://rekor.test", pair());
  // The key that is certified is the one that was asked for; nobody checks the token's signature.
  const [fulcio, rekor] = await Promise.all([
    serve(fulcioHandler(authority, { strict: true })),
    serve(rekorHandler(log, { strict: true })),
  ]);
  return {
    fulcio: fulcio.url,
    rekor: rekor.url,
    async stop() {
      await Promise.all([fulcio.server, rekor.server].map(stopped));
    },
  };
}

async function serve({ path, fn }: ReturnType<typeof fulcioHandler>): Promise<{ url: string; server: Server }> {
  const server = createServer(async (request, response) => {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk);
    if (request.url !== path) return response.writeHead(404).end();
    const { statusCode, response: body, contentType = "application/json" } = await fn(Buffer.concat(chunks).toString());
    response.writeHead(statusCode, { "content-type": contentType }).end(body);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, server };
}

async function stopped(server: Server): Promise<void> {
  server.closeAllConnections();
  server.close();
  await once(server, "close");
}
