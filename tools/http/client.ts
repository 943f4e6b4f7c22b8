import { once } from "node:events";
import type { Agent, IncomingMessage } from "node:http";
import { isIP } from "node:net";
import type { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { rootCertificates } from "node:tls";
import { printable } from "../../runtime/printable.ts";
import { Refusal } from "../../runtime/refusal.ts";

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
  /** Without a byte for this long, the connection counts as dead. @default a minute, ten for an upload */
  silenceMs?: number | undefined;
}

/**
 * Where a server says to go on. Never from https to http: whoever listens there would read what TLS was to hide (signed
 * addresses, tokens, the upload), and could answer in the server's place.
 *
 * @param location a Location header's value, absolute or relative to `from`
 */
export function nextUrl(location: string, from: URL): URL {
  const next = URL.canParse(location, from.href) ? new URL(location, from) : undefined;
  if (!next || !/^https?:$/.test(next.protocol))
    throw new Refusal(
      "redirects",
      `${from.origin} sends on to "${printable(location, 200)}", which is no web address.`,
    );
  if (from.protocol === "https:" && next.protocol === "http:")
    throw new Refusal(
      "redirects",
      `${from.origin} sends on to ${next.origin}, without TLS: refused. If that server is behind a proxy that ends TLS, let the proxy tell it so (X-Forwarded-Proto: https).`,
    );
  return next;
}

/** A registry may take minutes to store what it got. */
const usualSilenceMs = (method: string) => (method === "PUT" ? 600_000 : 60_000);
const maximalRedirects = 5;

/** With the first request: whoever imports the two, even one name, makes Node load its fetch, too (25 ms). */
const http = () => process.getBuiltinModule("node:http");
const https = () => process.getBuiltinModule("node:https");

const agents = new Map<string, Agent>();

/** Plain HTTP to an address is a server in this network, such as a local cluster's registry: no proxy reaches it. */
function agentFor(url: URL, ca = ""): Agent {
  const isDirect = url.protocol === "http:" && isIP(url.hostname) !== 0;
  const key = `${url.protocol} ${isDirect} ${ca}`;
  let agent = agents.get(key);
  if (agent === undefined) {
    const options = { keepAlive: true, ...(!isDirect && { proxyEnv: process.env }) };
    agent =
      url.protocol === "http:"
        ? new (http().Agent)(options)
        : new (https().Agent)({ ...options, ...(ca !== "" && { ca: [...rootCertificates, ca] }) });
    agents.set(key, agent);
  }
  return agent;
}

/** The response, whose body the caller reads or discards. Redirects of GET and HEAD are followed. */
export async function send(request: HttpRequest, redirects = 0): Promise<IncomingMessage> {
  const { method, url, headers = {}, ca, silenceMs = usualSilenceMs(method) } = request;
  const body = request.body?.();
  const { request: start } = url.protocol === "https:" ? https() : http();
  const outgoing = start(url, { method, headers, agent: agentFor(url, ca), timeout: silenceMs });
  let response: IncomingMessage | undefined;
  // Whoever reads the body must hear of it, and nobody else: an error of the request would end the process by then.
  outgoing.on("timeout", () => (response ?? outgoing).destroy(new Error(`no byte for ${silenceMs / 1000} s`)));
  outgoing.on("error", () => {});
  const answered = once(outgoing, "response") as Promise<[IncomingMessage]>;
  if (body === undefined || Buffer.isBuffer(body)) outgoing.end(body);
  // An answer before the body's end (an error, mostly) is the answer; the broken pipe behind it is not worth a word.
  else pipeline(body, outgoing).catch((error) => outgoing.destroy(error));
  [response] = await answered;
  const location = response.headers.location;
  if (
    [301, 302, 303, 307, 308].includes(response.statusCode ?? 0) &&
    location &&
    (method === "GET" || method === "HEAD")
  ) {
    discard(response);
    if (redirects === maximalRedirects)
      throw new Refusal("redirects", `${url.origin} redirects more than ${maximalRedirects} times.`);
    const next = nextUrl(location, url);
    const { authorization: _, ...anonymous } = headers;
    return await send(
      { ...request, url: next, headers: next.origin === url.origin ? headers : anonymous },
      redirects + 1,
    );
  }
  return response;
}

/** Longer answers than this are no manifests, tokens or error messages. */
const longestAnswer = 1 << 20;

/** Reads on to the end of a body that nobody needs, so that its connection can be used again; not of an endless one. */
export function discard(response: IncomingMessage): void {
  let size = 0;
  response.on("error", () => {});
  response.on("data", (chunk: Buffer) => {
    size += chunk.length;
    if (size > longestAnswer) response.destroy();
  });
}

/** The body as text, at most a mebibyte of it. */
export async function readText(response: IncomingMessage, limit = longestAnswer): Promise<string> {
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
