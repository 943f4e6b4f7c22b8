/**
 * The API server as the fleet's commands see it: one client with kept connections, whose lists come in pages and whose
 * requests outlast a server that throttles, restarts or closes connections.
 */
import type { RequestOptions } from "node:https";
import { setTimeout as delay } from "node:timers/promises";
import { promisify } from "node:util";
import { gunzip } from "node:zlib";
import type { KubeConfig } from "@kubernetes/client-node";
import * as z from "zod";
import { ApiError, isStatus, retryAfter } from "../../node-installer/kubernetes/api.ts";
import { grown } from "../../node-installer/kubernetes/patience.ts";
import { fromJson } from "../../runtime/from-json.ts";
import { printable } from "../../runtime/printable.ts";
import { connectionProblem } from "../http/client.ts";

/** Requests under way at a time. */
export const width = 24;

/** Objects of a page. With `resourceVersion=0` the server would ignore it, and answer all at once (1.36). */
const pageSize = 125;

/** A page of nodes is some MB. */
const longestAnswer = 256 << 20;
const silenceMs = 60_000;
/** Of a whole answer, however slowly it comes. */
const longestMs = 300_000;

/** How long a server that has answered before may be away, and how long one may throttle. */
const awayMs = 30_000;
const throttledMs = 300_000;

export interface Asked {
  headers?: Record<string, string>;
  /** With one it is a POST. */
  body?: object;
  /** Bytes of the answer. */
  longest?: number;
}

/** Paths begin with `/api`, queries are separate. Every call throws `ApiError`. */
export interface FleetApi {
  /** The answer's text. */
  text(path: string, more?: Asked): Promise<string>;
  get<T>(path: string): Promise<T>;
  /** Each object of a collection as what `reduce` makes of it: a page is kept no longer than that takes. */
  list<T, R>(path: string, query: Query, reduce: (item: T) => R[]): Promise<R[]>;
  /** The same of the objects' metadata alone, which is a tenth of a node. */
  listMetadata<R>(path: string, query: Query, reduce: (item: Metadata) => R[]): Promise<R[]>;
  /** An object that is there already is an error, unless an earlier attempt of this very call may have made it. */
  create(path: string, object: object): Promise<void>;
  /** JSON merge patch (RFC 7396). `check`: the server decides, and changes nothing. */
  mergePatch(path: string, patch: object, options?: { check?: true }): Promise<void>;
  /** An object that is not there, or another one by now, is none to delete: false. */
  remove(path: string, options?: { uid?: string; gracePeriodSeconds?: number }): Promise<boolean>;
}

export interface Query {
  labelSelector?: string;
  fieldSelector?: string;
}

export interface Metadata {
  metadata: {
    name: string;
    deletionTimestamp?: string;
    labels?: Record<string, string>;
    annotations?: Record<string, string>;
  };
}

const metadataList = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
const fieldManager = "contrast-runtime";

/** One line about an error of the API server's, or of the way there. */
export const describeError = (error: unknown): string =>
  printable(error instanceof Error ? error.message || error.name : String(error));

/** Runs `work` for each item, at most `width` at a time; the results in the items' order. The first error ends it. */
export async function each<T, R>(items: Iterable<T>, work: (item: T) => Promise<R>): Promise<R[]> {
  const results: R[] = [];
  const next = [...items].entries();
  let failed = false;
  const worker = async () => {
    for (const [index, item] of next) {
      if (failed) return;
      try {
        results[index] = await work(item);
      } catch (error) {
        failed = true;
        throw error;
      }
    }
  };
  await Promise.all(Array.from({ length: width }, worker));
  return results;
}

export async function fleetApi(kubeconfig: KubeConfig): Promise<FleetApi> {
  const http = await exchanger(kubeconfig);
  let hasAnswered = false;

  const ask = async (request: ApiRequest, onRetry: () => void = () => {}): Promise<string> => {
    const startedAt = performance.now();
    for (let retries = 0; ; retries += 1) {
      try {
        const text = await http(request);
        hasAnswered = true;
        return text;
      } catch (error) {
        if (error instanceof ApiError && error.status > 0) hasAnswered = true;
        const pause = pauseAfter(error, { retries, elapsedMs: performance.now() - startedAt, hasAnswered });
        if (pause === undefined) throw error;
        await delay(pause);
        onRetry();
      }
    }
  };
  const json = async <T>(request: ApiRequest): Promise<T> => parsed<T>(await ask(request));

  /** A list that lasts longer than the server keeps its state (five minutes) is begun anew. */
  const list = async <T, R>(path: string, query: Query, reduce: (item: T) => R[], accept?: string): Promise<R[]> => {
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await pages(path, query, reduce, accept);
      } catch (error) {
        if (!isStatus(error, 410) || attempt === 3) throw error;
      }
    }
  };
  const pages = async <T, R>(path: string, query: Query, reduce: (item: T) => R[], accept?: string): Promise<R[]> => {
    const all: R[] = [];
    const parameters = new URLSearchParams({ ...query, limit: `${pageSize}` });
    for (;;) {
      const page = await json<{ metadata?: { continue?: string }; items?: T[] | null }>({
        method: "GET",
        path: `${path}?${parameters}`,
        ...(accept !== undefined && { headers: { accept } }),
      });
      if (page.items === undefined) throw new ApiError(0, "NoList", "what the API server answered is no list");
      // Of an empty list of metadata there are none instead.
      for (const item of page.items ?? []) all.push(...reduce(item));
      if (!page.metadata?.continue) return all;
      parameters.set("continue", page.metadata.continue);
    }
  };

  return {
    text: (path, more = {}) => ask({ method: more.body === undefined ? "GET" : "POST", path, ...more }),
    get: (path) => json({ method: "GET", path }),
    list,
    listMetadata: (path, query, reduce) => list(path, query, reduce, metadataList),
    async create(path, object) {
      let mayExist = false;
      const request: ApiRequest = { method: "POST", path: `${path}?fieldManager=${fieldManager}`, body: object };
      try {
        await ask(request, () => {
          mayExist = true;
        });
      } catch (error) {
        if (!mayExist || !isStatus(error, 409)) throw error;
      }
    },
    async mergePatch(path, patch, { check } = {}) {
      const query = `fieldManager=${fieldManager}${check ? "&dryRun=All" : ""}`;
      const headers = { "content-type": "application/merge-patch+json" };
      await ask({ method: "PATCH", path: `${path}?${query}`, body: patch, headers });
    },
    async remove(path, { uid, ...options } = {}) {
      const body = {
        apiVersion: "v1",
        kind: "DeleteOptions",
        ...options,
        ...(uid !== undefined && { preconditions: { uid } }),
      };
      try {
        await ask({ method: "DELETE", path, body });
        return true;
      } catch (error) {
        if (isStatus(error, 404) || (uid !== undefined && isStatus(error, 409))) return false;
        throw error;
      }
    },
  };
}

/** Whatever stands between here and the API server may answer in its place. */
function parsed<T>(text: string): T {
  const { data, success } = fromJson.safeParse(text);
  if (!success) throw new ApiError(0, "NoJson", "what the API server answered is no JSON");
  return data as T;
}

/** A connection that broke before the answer's end; `refused`: there was none. */
export class Broken extends ApiError {
  readonly refused: boolean;
  constructor(error: unknown) {
    super(0, "Unreachable", connectionProblem(error), { cause: error });
    const code = error instanceof Error && "code" in error ? error.code : undefined;
    this.refused = !["ECONNRESET", "EPIPE", "ETIMEDOUT"].includes(String(code));
  }
}

/** An answer that goes wrong in itself, and would again. */
class Endless extends ApiError {
  constructor(message: string) {
    super(0, "Endless", message);
  }
}

/** A status that another attempt may not meet. */
class Throttled extends ApiError {}

/**
 * Milliseconds until the next attempt, or undefined if there is none: what the server asks for, and not less than a
 * half to the whole of a pause that doubles from a half second to eight. A server that never answered is not waited for:
 * its address may be wrong.
 *
 * @param random from 0 to 1
 */
export function pauseAfter(
  error: unknown,
  { retries, elapsedMs, hasAnswered }: { retries: number; elapsedMs: number; hasAnswered: boolean },
  random = Math.random(),
): number | undefined {
  const backOff = grown(retries + 1, 500, 8_000) * (0.5 + random / 2);
  if (error instanceof Throttled) {
    const pause = Math.max(error.retryAfterMs, backOff);
    const patience = error.retryAfterMs === 0 && error.status !== 429 ? awayMs : throttledMs;
    return elapsedMs + pause <= patience ? pause : undefined;
  }
  if (!(error instanceof Broken) || (error.refused && !hasAnswered)) return undefined;
  return elapsedMs + backOff <= awayMs ? backOff : undefined;
}

/** Of a status's errors, those that another attempt may not meet: client-go's choice, and the gateways' in between. */
const isPassing = (status: number, retryAfterMs: number): boolean =>
  [429, 502, 503, 504].includes(status) || (status === 500 && retryAfterMs > 0);

interface ApiRequest extends Asked {
  method: "GET" | "POST" | "PATCH" | "DELETE";
  path: string;
}

type Exchange = (request: ApiRequest) => Promise<string>;

/**
 * One request and its answer, with the kubeconfig's identity, which its own library may renew before each. That library's
 * own requests neither keep connections nor obey a `Retry-After`.
 */
async function exchanger(kubeconfig: KubeConfig): Promise<Exchange> {
  const [http, https] = await Promise.all([import("node:http"), import("node:https")]);
  const cluster = kubeconfig.getCurrentCluster();
  const server = (cluster?.server ?? "").replace(/\/$/, "");
  const kept = { keepAlive: true, maxSockets: width };
  // One that leads through a proxy is the library's to make.
  const agent = cluster?.proxyUrl
    ? undefined
    : server.startsWith("http:")
      ? new http.Agent(kept)
      : new https.Agent(kept);

  return async ({ method, path, body, headers, longest = longestAnswer }) => {
    const url = new URL(server + path);
    const identity: RequestOptions = {};
    await kubeconfig.applyToHTTPSOptions(identity);
    const text = body === undefined ? undefined : JSON.stringify(body);
    const options = {
      ...identity,
      ...(agent !== undefined && { agent }),
      method,
      timeout: silenceMs,
      headers: {
        accept: "application/json",
        "accept-encoding": "gzip",
        "user-agent": fieldManager,
        ...(text !== undefined && { "content-type": "application/json", "content-length": Buffer.byteLength(text) }),
        ...headers,
        ...Object.fromEntries(Object.entries(identity.headers ?? {})),
      },
    };
    const { status, retryAfterMs, bytes } = await new Promise<Answer>((resolve, reject) => {
      const sent = (url.protocol === "http:" ? http : https).request(url, options, (response) => {
        const chunks: Buffer[] = [];
        let size = 0;
        response.on("data", (chunk: Buffer) => {
          chunks.push(chunk);
          size += chunk.length;
          // A node that goes wrong must not take the command with it.
          if (size > longest) response.destroy(new Endless(`the answer is longer than ${longest >> 20} MiB`));
        });
        response.on("error", reject);
        response.on("end", () => {
          const { statusCode: status = 0, headers } = response;
          const zipped = headers["content-encoding"] === "gzip";
          resolve({
            status,
            retryAfterMs: retryAfter(headers["retry-after"]),
            bytes: { zipped, all: Buffer.concat(chunks) },
          });
        });
      });
      sent.on("timeout", () => sent.destroy(new Error(`no answer within ${silenceMs / 1000} s`)));
      sent.on("error", reject);
      const late = setTimeout(
        () => sent.destroy(new Endless(`the answer was not there after ${longestMs / 1000} s`)),
        longestMs,
      );
      sent.once("close", () => clearTimeout(late));
      sent.end(text);
    }).catch((error: unknown) => {
      throw error instanceof ApiError ? error : new Broken(error);
    });
    const answer = (
      bytes.zipped ? await promisify(gunzip)(bytes.all, { maxOutputLength: longest }) : bytes.all
    ).toString();
    if (status >= 200 && status < 300) return answer;
    const { reason, message } = statusOf(answer);
    if (isPassing(status, retryAfterMs)) throw new Throttled(status, reason, message, { retryAfterMs });
    throw new ApiError(status, reason, message);
  };
}

interface Answer {
  status: number;
  retryAfterMs: number;
  bytes: { zipped: boolean; all: Buffer };
}

const statusSchema = fromJson.pipe(z.object({ reason: z.string().default("Unknown"), message: z.string() }));

function statusOf(text: string): { reason: string; message: string } {
  const { data } = statusSchema.safeParse(text);
  return data ?? { reason: "Unknown", message: text.trim().slice(0, 200) };
}
