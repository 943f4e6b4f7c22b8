import { readFile } from "node:fs/promises";
import type { Agent } from "node:http";

/**
 * The API server answered with an error, or not at all: then `status` is 0 and the cause is in the message. `reason`
 * is the API's own word ("Conflict", "AlreadyExists", "NotFound", "Forbidden", …).
 */
export class ApiError extends Error {
  override readonly name = "ApiError";
  readonly status: number;
  readonly reason: string;
  /** How long the answer asks to wait before the next attempt; 0 if it says nothing. */
  readonly retryAfterMs: number;

  constructor(
    status: number,
    reason: string,
    message: string,
    { retryAfterMs = 0, ...options }: ErrorOptions & { retryAfterMs?: number } = {},
  ) {
    super(message, options);
    this.status = status;
    this.reason = reason;
    this.retryAfterMs = retryAfterMs;
  }
}

export const isStatus = (error: unknown, ...statuses: number[]): boolean =>
  error instanceof ApiError && statuses.includes(error.status);

export interface ApiAddress {
  /** "https://10.96.0.1:443" */
  baseUrl: string;
  /** Files of the mounted service account; read again for every request, because the kubelet renews both. */
  tokenFile: string;
  caFile: string;
}

/** The few verbs that an installer needs. Paths start with `/api` or `/apis`; answers are the parsed JSON objects. */
export interface Api {
  get<T>(path: string): Promise<T>;
  create<T>(path: string, object: object): Promise<T>;
  /** JSON merge patch (RFC 7396): null removes a key, an empty patch reads. */
  mergePatch<T>(path: string, patch: object): Promise<T>;
  delete(path: string, preconditions?: { uid: string }): Promise<void>;
}

const serviceAccountDirectory = "/var/run/secrets/kubernetes.io/serviceaccount";

/** The API server of the cluster that this process runs in; undefined where it does not run in one. */
export function inClusterAddress(env: NodeJS.ProcessEnv): ApiAddress | undefined {
  const { KUBERNETES_SERVICE_HOST: host, KUBERNETES_SERVICE_PORT: port } = env;
  if (host === undefined || port === undefined) return undefined;
  return {
    baseUrl: `https://${host.includes(":") ? `[${host}]` : host}:${port}`,
    tokenFile: `${serviceAccountDirectory}/token`,
    caFile: `${serviceAccountDirectory}/ca.crt`,
  };
}

/** A client of one API server. Every call throws `ApiError`, after at most `timeoutMs`. */
export function apiClient(address: ApiAddress, timeoutMs = 10_000): Api {
  let agent: Agent | undefined;
  /** Keeps a connection for the next request: a new one costs the API server more than what most ask for. */
  const keeping = async (protocol: string) => {
    agent ??= new (protocol === "http:" ? await import("node:http") : await import("node:https")).Agent({
      keepAlive: true,
      maxFreeSockets: 1,
    });
    return agent;
  };
  const call = async <T>(method: string, path: string, body?: object, contentType = "application/json"): Promise<T> => {
    try {
      const [token, ca] = await Promise.all([readFile(address.tokenFile, "utf8"), readFile(address.caFile, "utf8")]);
      const headers = {
        authorization: `Bearer ${token.trim()}`,
        accept: "application/json",
        "user-agent": "contrast-installer",
      };
      const payload = body && { contentType, text: JSON.stringify(body) };
      const url = new URL(path, address.baseUrl);
      const exchange = { url, method, headers, ca, timeoutMs, payload, agent: await keeping(url.protocol) };
      return (await send(exchange).catch((error) => {
        if (error instanceof StaleConnection) return send(exchange);
        throw error;
      })) as T;
    } catch (error) {
      if (error instanceof ApiError) throw error;
      const cause = error instanceof Error ? error.message : String(error);
      throw new ApiError(0, "Unreachable", `${method} ${path}: ${cause}`, { cause: error });
    }
  };
  return {
    get: (path) => call("GET", path),
    create: (path, object) => call("POST", path, object),
    mergePatch: (path, patch) => call("PATCH", path, patch, "application/merge-patch+json"),
    delete: async (path, preconditions) => {
      await call("DELETE", path, { kind: "DeleteOptions", apiVersion: "v1", ...(preconditions && { preconditions }) });
    },
  };
}

interface Exchange {
  url: URL;
  method: string;
  headers: Record<string, string>;
  /** The certificates, as PEM, that the server's is checked against. */
  ca: string;
  timeoutMs: number;
  payload: { contentType: string; text: string } | undefined;
  agent: Agent;
}

/** The server closed a kept connection just when it was used again, without having read the request. */
class StaleConnection extends Error {
  override readonly name = "StaleConnection";
}

/** One request; resolves with the answer's JSON. */
async function send({ url, method, headers, ca, timeoutMs, payload, agent }: Exchange): Promise<unknown> {
  const allHeaders =
    payload === undefined
      ? headers
      : { ...headers, "content-type": payload.contentType, "content-length": String(Buffer.byteLength(payload.text)) };
  // Loaded only when needed: that takes as long as everything else at startup.
  const { request: open } = await (url.protocol === "http:" ? import("node:http") : import("node:https"));
  return new Promise((resolve, reject) => {
    // The signal bounds the whole exchange; a socket's own timeout would only bound its silence.
    const options = { method, headers: allHeaders, signal: AbortSignal.timeout(timeoutMs), agent };
    const request = open(url, { ...options, ca });
    request.on("error", (error: NodeJS.ErrnoException) => {
      const isStale = request.reusedSocket && (error.code === "ECONNRESET" || error.code === "EPIPE");
      if (isStale) reject(new StaleConnection(error.message, { cause: error }));
      else if (error.name === "AbortError") reject(new Error(`no answer within ${timeoutMs} ms`, { cause: error }));
      else reject(error);
    });
    request.on("response", (response) => {
      const chunks: Buffer[] = [];
      response.on("data", (chunk: Buffer) => chunks.push(chunk));
      response.on("error", reject);
      response.on("end", () => {
        const text = Buffer.concat(chunks).toString("utf8");
        const status = response.statusCode ?? 0;
        if (status >= 200 && status < 300) return resolve(parse(text));
        const answer = parse(text) as { reason?: string; message?: string };
        const message = answer.message ?? response.statusMessage ?? "no message";
        const retryAfterMs = retryAfter(response.headers["retry-after"]);
        const sentence = `${method} ${url.pathname}: ${status} ${message}`;
        reject(new ApiError(status, answer.reason ?? "Unknown", sentence, { retryAfterMs }));
      });
    });
    request.end(payload?.text);
  });
}

/**
 * Milliseconds that the header `Retry-After` asks to wait, at most two minutes; 0 if it asks for nothing. In whole seconds,
 * as API servers write it: a date, which proxies may send, and nonsense count as nothing.
 */
export function retryAfter(header: string | undefined): number {
  return header !== undefined && /^\d{1,4}$/.test(header) ? Math.min(Number(header), longestRetryAfter) * 1000 : 0;
}

/** Seconds: nobody makes an installer sleep for hours. */
const longestRetryAfter = 120;

/** Proxies and load balancers may answer with HTML or nothing, which must not end in a SyntaxError. */
function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return { message: text.slice(0, 200) };
  }
}
