import { once } from "node:events";
import { Agent as HttpAgent, request as httpRequest, type IncomingMessage } from "node:http";
import { Agent as HttpsAgent, request as httpsRequest } from "node:https";
import { isIP } from "node:net";
import type { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { rootCertificates } from "node:tls";
import { Refusal } from "../../node-installer/runtime/refusal.ts";

/**
 * HTTP for large files: bodies stream, a silent peer is given up, and a private certificate authority can be trusted,
 * which fetch offers without further packages for none of the three. Proxies are those of HTTP_PROXY, HTTPS_PROXY and
 * NO_PROXY.
 */
export interface HttpRequest {
  method: "GET" | "HEAD" | "POST" | "PUT";
  url: URL;
  headers?: Record<string, string>;
  /** Opened anew for each attempt. */
  body?: () => Readable | Buffer;
  /** Certificate authorities in PEM, trusted besides the usual ones. */
  ca?: string | undefined;
}

/** Without a byte for this long, the connection counts as dead. A registry may take minutes to store what it got. */
const silenceMs = (method: string) => (method === "PUT" ? 600_000 : 60_000);
const maximalRedirects = 5;

const plainAgent = new HttpAgent({ keepAlive: true, proxyEnv: process.env });
/** Plain HTTP to an address is a server in this network, such as a local cluster's registry: no proxy reaches it. */
const directAgent = new HttpAgent({ keepAlive: true });
const secureAgents = new Map<string, HttpsAgent>();

function agentFor(url: URL, ca: string | undefined): HttpAgent {
  if (url.protocol === "http:") return isIP(url.hostname) ? directAgent : plainAgent;
  const key = ca ?? "";
  let agent = secureAgents.get(key);
  if (!agent) {
    agent = new HttpsAgent({
      keepAlive: true,
      proxyEnv: process.env,
      ...(ca ? { ca: [...rootCertificates, ca] } : {}),
    });
    secureAgents.set(key, agent);
  }
  return agent;
}

/** The response, whose body the caller reads or discards. Redirects of GET and HEAD are followed. */
export async function send(request: HttpRequest, redirects = 0): Promise<IncomingMessage> {
  const { method, url, headers = {}, ca } = request;
  const body = request.body?.();
  const start = url.protocol === "https:" ? httpsRequest : httpRequest;
  const outgoing = start(url, { method, headers, agent: agentFor(url, ca), timeout: silenceMs(method) });
  outgoing.on("timeout", () => outgoing.destroy(new Error(`no byte for ${silenceMs(method) / 1000} s`)));
  const answered = once(outgoing, "response") as Promise<[IncomingMessage]>;
  if (body === undefined || Buffer.isBuffer(body)) outgoing.end(body);
  // An answer before the body's end (an error, mostly) is the answer; the broken pipe behind it is not worth a word.
  else pipeline(body, outgoing).catch((error) => outgoing.destroy(error));
  const [response] = await answered;
  const location = response.headers.location;
  if (
    [301, 302, 303, 307, 308].includes(response.statusCode ?? 0) &&
    location &&
    (method === "GET" || method === "HEAD")
  ) {
    response.resume();
    if (redirects === maximalRedirects)
      throw new Refusal("redirects", `${url.origin} redirects more than ${maximalRedirects} times.`);
    const next = new URL(location, url);
    const { authorization: _, ...anonymous } = headers;
    return await send(
      { ...request, url: next, headers: next.origin === url.origin ? headers : anonymous },
      redirects + 1,
    );
  }
  return response;
}

/** The body as text, at most a mebibyte of it. */
export async function readText(response: IncomingMessage, limit = 1 << 20): Promise<string> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of response as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > limit) throw new Refusal("answer-too-long", `The answer is longer than ${limit} bytes.`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString();
}

/** What a failed connection means for a person: node's own words, without its stack. */
export function connectionProblem(error: unknown): string {
  const { code, message } = error as NodeJS.ErrnoException;
  // Trying several addresses of a name ends in an AggregateError without a message.
  return message || code || String(error);
}
