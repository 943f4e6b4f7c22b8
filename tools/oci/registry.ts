import type { IncomingMessage } from "node:http";
import type { Readable } from "node:stream";
import * as z from "zod";
import { fromJson } from "../../runtime/from-json.ts";
import { printable } from "../../runtime/printable.ts";
import { Refusal } from "../../runtime/refusal.ts";
import { isLoopback, isPrivate } from "../../runtime/web-address.ts";
import { connectionProblem, discard, readText, send } from "../http/client.ts";
import { type Credentials, registryCredentials } from "./credentials.ts";

export interface RegistryOptions {
  /** "https://ghcr.io", "http://10.0.0.1:5000"; without a scheme https. */
  registry: string;
  repository: string;
  /** Certificate authorities in PEM. */
  ca?: string | undefined;
}

export interface RegistryRequest {
  method: "GET" | "HEAD" | "POST" | "PUT";
  /** Below /v2/<repository>/, or a whole URL as a registry's Location says. */
  path: string | URL;
  headers?: Record<string, string>;
  body?: () => Readable | Buffer;
  /** Not to be tried again by itself: an upload that broke off is begun anew by who began it. */
  once?: boolean;
}

export const attempts = 4;
const transient = new Set([429, 500, 502, 503, 504]);
/** What can stand in a header (RFC 6750: token68), and no server would send more. */
const token = z.string().regex(/^[!-~]{1,16384}$/);
const tokenSchema = z.object({ token: token.optional(), access_token: token.optional() });

/** One repository of a registry (OCI distribution API, version 2), with whatever authentication it asks for. */
export class Repository {
  readonly origin: URL;
  readonly name: string;
  readonly #ca: string | undefined;
  #authorization: string | undefined;
  #credentials: Promise<Credentials | undefined> | undefined;

  constructor({ registry, repository, ca }: RegistryOptions) {
    this.origin = registryUrl(registry);
    this.name = repository;
    this.#ca = ca;
    if (!/^[a-z0-9]+([._/-]+[a-z0-9]+)*$/.test(repository))
      throw new Refusal(
        "repository-name",
        `"${repository}" is no repository name: it must be lower-case letters, digits and ._/- such as team/node-installer.`,
      );
  }

  /** As references write it: host and repository, without the scheme. */
  get reference(): string {
    return `${this.origin.host === "registry-1.docker.io" ? "docker.io" : this.origin.host}/${this.name}`;
  }

  /** The header's value that the registry accepted, once it has asked for one. */
  get authorization(): string | undefined {
    return this.#authorization;
  }

  /**
   * Sends the request, authenticating when asked to and trying again where that may help. Any status but those in
   * `expected` is a Refusal that says who answered what, and what to do.
   */
  async send(request: RegistryRequest, expected: number[]): Promise<IncomingMessage> {
    const url = request.path instanceof URL ? request.path : new URL(`/v2/${this.name}/${request.path}`, this.origin);
    // Where a registry sends an upload to a store of another host, that has its own way to know who asks. Scheme and port
    // are part of whom we talk to: another port is another server, and without TLS it may be anybody.
    const isOwn = url.origin === this.origin.origin;
    const last = request.once ? 1 : attempts;
    for (let attempt = 1, challenged = false; ; attempt++) {
      let response: IncomingMessage;
      try {
        response = await send({
          method: request.method,
          url,
          headers: {
            ...request.headers,
            ...(isOwn && this.#authorization ? { authorization: this.#authorization } : {}),
          },
          ...(request.body ? { body: request.body } : {}),
          ca: this.#ca,
        });
      } catch (error) {
        if (error instanceof Refusal) throw error;
        if (attempt < last && isTransient(error)) {
          await pause(attempt);
          continue;
        }
        throw this.#unreachable(error);
      }
      const status = response.statusCode ?? 0;
      if (expected.includes(status)) return response;
      if (status === 401 && isOwn && !challenged) {
        challenged = true;
        const challenge = response.headers["www-authenticate"] ?? "";
        await readText(response);
        this.#authorization = await this.#authorize(challenge);
        if (this.#authorization) continue;
      }
      if (transient.has(status) && attempt < last) {
        discard(response);
        await pause(attempt, Number(response.headers["retry-after"]));
        continue;
      }
      throw this.#refused(request.method, url, status, await readText(response).catch(() => ""));
    }
  }

  async #authorize(challenge: string): Promise<string | undefined> {
    this.#credentials ??= registryCredentials(this.origin);
    const credentials = await this.#credentials;
    const basic = credentials?.username
      ? `Basic ${Buffer.from(`${credentials.username}:${credentials.password}`).toString("base64")}`
      : undefined;
    const { bearer, isBasic } = readChallenges(challenge);
    if (bearer === undefined) return isBasic ? basic : undefined;
    const { realm, service, scope } = bearer;
    if (!realm || !URL.canParse(realm)) return undefined;
    const url = new URL(realm);
    if (!mayAskForToken(url, this.origin))
      throw new Refusal(
        "registry-realm",
        `The registry ${this.origin.origin} wants a login at ${url.origin}, where nothing that is sent is hidden from others: refused. Its token server must be https.`,
      );
    const query = { ...(service ? { service } : {}), scope: scope || `repository:${this.name}:pull,push` };
    const identityToken = credentials?.identityToken;
    const response = identityToken
      ? await this.#token(url, {
          method: "POST",
          headers: { "content-type": "application/x-www-form-urlencoded" },
          body: () =>
            Buffer.from(
              new URLSearchParams({
                ...query,
                grant_type: "refresh_token",
                client_id: "contrast-runtime",
                refresh_token: identityToken,
              }).toString(),
            ),
        })
      : await this.#token(new URL(`${url}${url.search ? "&" : "?"}${new URLSearchParams(query)}`), {
          method: "GET",
          ...(basic ? { headers: { authorization: basic } } : {}),
        });
    const text = await readText(response);
    if (response.statusCode !== 200) throw this.#refused("GET", url, response.statusCode ?? 0, text);
    return `Bearer ${tokenIn(text, url)}`;
  }

  async #token(url: URL, request: Omit<RegistryRequest, "path">): Promise<IncomingMessage> {
    try {
      return await send({ ...request, url, ca: this.#ca });
    } catch (error) {
      throw this.#unreachable(error, url);
    }
  }

  #unreachable(error: unknown, url = this.origin): Refusal {
    const problem = connectionProblem(error);
    const advice = /certificate|self-signed/i.test(problem)
      ? "Give the certificate of its authority with --ca."
      : /wrong version number|EPROTO/.test(problem)
        ? "It does not speak TLS: write http:// before its name if that is meant."
        : "Check its name and port, the network and the proxy settings.";
    return new Refusal("registry-unreachable", `The registry ${url.origin} cannot be reached: ${problem}. ${advice}`);
  }

  #refused(method: string, url: URL, status: number, body: string): Refusal {
    const ways = isPrivate(this.origin) ? `docker login ${this.origin.host}, or ` : "";
    const advice =
      status === 401 || status === 403
        ? `Log in (${ways}REGISTRY_USERNAME and REGISTRY_PASSWORD) with a user who may use the repository ${this.name}.`
        : status === 404
          ? `Check the registry's address and that the repository ${this.name} and the digest exist.`
          : status === 413
            ? "The registry or the proxy before it limits the size of uploads: raise the limit."
            : status === 507 || /no space/i.test(body)
              ? "The registry's disk is full."
              : "See the registry's own log, and run the command again.";
    const said = printable(errorWords(body), 300);
    return new Refusal(
      transient.has(status) ? "registry-busy" : "registry-refused",
      `The registry ${this.origin.origin} answered ${status} to ${method} ${printable(url.pathname, 300)}${said ? ` (${said})` : ""}. ${advice}`,
    );
  }
}

/**
 * Whether user and password, and the token that they buy, may pass between us and the server that a registry names for
 * logging in. It often is another host (Docker Hub's is auth.docker.io), and who gives a registry a password trusts it to
 * choose one; but nobody on the way may read along, so it must be https. Only a registry that is spoken to without TLS
 * itself may name a plain server: on its own host, for there the way is as open already, or on this machine.
 */
function mayAskForToken(realm: URL, registry: URL): boolean {
  if (realm.protocol === "https:") return true;
  if (realm.protocol !== "http:" || registry.protocol !== "http:") return false;
  return realm.hostname === registry.hostname || (isLoopback(realm) && isLoopback(registry));
}

/** The parameters of the Bearer challenge, if there is one, and whether Basic is offered: a header may hold several. */
export function readChallenges(header: string): { bearer: Record<string, string> | undefined; isBasic: boolean } {
  const challenges = header.split(/(?:^|,)\s*(?=(?:basic|bearer)(?:[\s,]|$))/i);
  const of = (scheme: string) => challenges.find((challenge) => challenge.toLowerCase().startsWith(scheme));
  const parameters = of("bearer")?.matchAll(/([a-z]+)="([^"]*)"/gi);
  return {
    bearer: parameters && Object.fromEntries([...parameters].map(([, key = "", value = ""]) => [key, value])),
    isBasic: of("basic") !== undefined,
  };
}

function tokenIn(text: string, url: URL): string {
  let answer: unknown;
  try {
    answer = JSON.parse(text);
  } catch {
    answer = undefined;
  }
  const { token, access_token } = tokenSchema.safeParse(answer).data ?? {};
  const found = token ?? access_token;
  if (found !== undefined) return found;
  throw new Refusal(
    "registry-token",
    `${url.origin}${url.pathname}, which the registry names for logging in, answered without a token (${printable(errorWords(text), 300) || "nothing"}). Check the registry's configuration of its token server.`,
  );
}

function registryUrl(registry: string): URL {
  const text = /^https?:\/\//.test(registry) ? registry : `https://${registry}`;
  if (!URL.canParse(text) || new URL(text).pathname !== "/")
    throw new Refusal(
      "registry-name",
      `"${registry}" is no registry: it must be a host, perhaps with http:// and a port.`,
    );
  const url = new URL(text);
  // The name that people write is not the one that serves the API.
  if (url.host === "docker.io") url.host = "registry-1.docker.io";
  return url;
}

/** The registry's own error, as the API's specification has it, or the start of whatever it said. */
function errorWords(body: string): string {
  const { data } = fromJson.pipe(errorsSchema).safeParse(body);
  if (data === undefined) return body.slice(0, 1000);
  return data.errors.map(({ code, message }) => [code, message].filter(Boolean).join(": ")).join("; ");
}

const errorsSchema = z.object({
  errors: z.array(z.object({ code: z.string().optional(), message: z.string().optional() })),
});

const transientCodes = new Set<string | undefined>(["ECONNRESET", "EPIPE", "ETIMEDOUT", "EAI_AGAIN"]);
const isTransient = (error: unknown) => transientCodes.has((error as NodeJS.ErrnoException).code);

/** Longer with each attempt, or as long as the registry asks, within reason. */
export const pause = (attempt: number, retryAfterSeconds = Number.NaN) =>
  new Promise((wake) =>
    setTimeout(wake, Number.isFinite(retryAfterSeconds) ? Math.min(retryAfterSeconds, 60) * 1000 : 250 * 2 ** attempt),
  );
