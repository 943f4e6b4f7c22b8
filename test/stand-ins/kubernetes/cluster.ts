/** The API server, accessed by REST and discovery, without a built-in list of kinds. */

import { existsSync } from "node:fs";
import { request as httpRequest } from "node:http";
import { request as httpsRequest, type RequestOptions } from "node:https";
import { createInterface } from "node:readline";
import { isObject, type Properties } from "../values.ts";
import { KubeConfig } from "./client.ts";

/** A refusal by the API server. */
export class ApiError extends Error {
  readonly code: number;
  readonly reason: string;

  constructor(code: number, reason: string, message: string) {
    super(message);
    this.code = code;
    this.reason = reason;
  }
}

/** No served API has such a kind: its definition is gone, or never existed. */
export class NoSuchKind extends Error {}

export interface Resource {
  plural: string;
  namespaced: boolean;
}

export interface ConnectOptions {
  /** Content or path; by default the environment's configuration. */
  kubeconfig?: string | undefined;
  context?: string | undefined;
  cluster?: string | undefined;
}

export interface Target {
  apiVersion: string;
  kind: string;
  namespace: string;
}

export class Cluster {
  readonly defaultNamespace: string;
  private readonly config: KubeConfig;
  private readonly server: URL;
  private readonly cancelled = new AbortController();
  private readonly kinds = new Map<string, Promise<Map<string, Resource>>>();

  private constructor(config: KubeConfig) {
    const cluster = config.getCurrentCluster();
    if (!cluster) throw new Error("the kubeconfig names no current cluster");
    this.config = config;
    this.server = new URL(cluster.server);
    this.defaultNamespace = config.getContextObject(config.getCurrentContext())?.namespace || "default";
  }

  /** @throws Error when the configuration is unusable or no server answers */
  static async connect({ kubeconfig, context, cluster }: ConnectOptions): Promise<Cluster> {
    const config = new KubeConfig();
    if (!kubeconfig) config.loadFromDefault();
    else if (existsSync(kubeconfig)) config.loadFromFile(kubeconfig);
    else config.loadFromString(kubeconfig);
    if (context) config.setCurrentContext(context);
    const current = config.getContextObject(config.getCurrentContext());
    if (cluster && current) config.contexts = [{ ...current, cluster }];
    const connected = new Cluster(config);
    await connected.request("GET", "/version");
    return connected;
  }

  /** @throws NoSuchKind */
  async resource({ apiVersion, kind }: { apiVersion: string; kind: string }): Promise<Resource> {
    let kinds = this.kinds.get(apiVersion);
    if (!kinds) {
      kinds = this.discover(apiVersion);
      this.kinds.set(apiVersion, kinds);
      // A missing definition may be created while this program runs.
      kinds
        .then((found) => found.has(kind) || this.kinds.delete(apiVersion))
        .catch(() => this.kinds.delete(apiVersion));
    }
    const resource = (await kinds).get(kind);
    if (!resource) throw new NoSuchKind(`no matches for kind "${kind}" in version "${apiVersion}"`);
    return resource;
  }

  private async discover(apiVersion: string): Promise<Map<string, Resource>> {
    const list = await this.request("GET", root(apiVersion)).catch((error: unknown) => {
      if (error instanceof ApiError && error.code === 404) return { resources: [] };
      throw error;
    });
    const resources = (list.resources ?? []) as { name: string; kind: string; namespaced: boolean }[];
    return new Map(
      resources
        .filter(({ name }) => !name.includes("/"))
        .map(({ name, kind, namespaced }) => [kind, { plural: name, namespaced }]),
    );
  }

  private async path(target: Target, name?: string): Promise<string> {
    const { plural, namespaced } = await this.resource(target);
    const place = namespaced ? `/namespaces/${target.namespace || this.defaultNamespace}` : "";
    return `${root(target.apiVersion)}${place}/${plural}${name === undefined ? "" : `/${name}`}`;
  }

  async get(target: Target, name: string): Promise<Properties> {
    return await this.request("GET", await this.path(target, name));
  }

  async create(target: Target, body: Properties, query: Record<string, string>): Promise<Properties> {
    return await this.request("POST", await this.path(target), { body, query });
  }

  async patch(
    target: Target,
    name: string,
    contentType: "application/apply-patch+yaml" | "application/json-patch+json" | "application/merge-patch+json",
    body: unknown,
    query: Record<string, string> = {},
  ): Promise<Properties> {
    return await this.request("PATCH", await this.path(target, name), { body, query, contentType });
  }

  async delete(target: Target, name: string, options: Properties): Promise<void> {
    await this.request("DELETE", await this.path(target, name), { body: options });
  }

  /** Ends all waiting; what is being watched counts as not ready. */
  cancel(): void {
    this.cancelled.abort();
  }

  /**
   * Calls `seen` with the object now (`undefined` if it is gone) and after each change, until it returns true.
   * @returns false if the time is up or waiting was cancelled
   */
  async watch(
    target: Target,
    name: string,
    timeoutMs: number,
    seen: (object: Properties | undefined) => boolean,
  ): Promise<boolean> {
    const deadline = Date.now() + timeoutMs;
    while (Date.now() < deadline && !this.cancelled.signal.aborted) {
      const list = await this.request("GET", await this.path(target), {
        query: { fieldSelector: `metadata.name=${name}` },
      });
      const [object] = (list.items ?? []) as Properties[];
      if (seen(object && { apiVersion: target.apiVersion, kind: target.kind, ...object })) return true;
      const version = isObject(list.metadata) ? String(list.metadata.resourceVersion) : "";
      if (await this.follow(target, name, version, deadline - Date.now(), seen)) return true;
    }
    return false;
  }

  /** One watch request; false if it ends before `seen` returned true. */
  private async follow(
    target: Target,
    name: string,
    resourceVersion: string,
    timeoutMs: number,
    seen: (object: Properties | undefined) => boolean,
  ): Promise<boolean> {
    const query = {
      watch: "true",
      fieldSelector: `metadata.name=${name}`,
      resourceVersion,
      timeoutSeconds: `${Math.max(1, Math.ceil(timeoutMs / 1000))}`,
    };
    const call = await this.open("GET", `${await this.path(target)}?${new URLSearchParams(query)}`, {});
    call.end();
    return await new Promise<boolean>((resolve, reject) => {
      call.on("error", reject);
      call.on("response", (response) => {
        const stop = () => response.destroy();
        this.cancelled.signal.addEventListener("abort", stop);
        const lines = createInterface({ input: response });
        lines.on("line", (line) => {
          const { type, object } = JSON.parse(line) as { type: string; object: Properties };
          if (type === "ERROR") return void response.destroy();
          if (!seen(type === "DELETED" ? undefined : object)) return;
          resolve(true);
          response.destroy();
        });
        response.on("error", () => {});
        response.on("close", () => {
          this.cancelled.signal.removeEventListener("abort", stop);
          resolve(false);
        });
      });
    });
  }

  private async request(
    method: string,
    path: string,
    options: { body?: unknown; query?: Record<string, string>; contentType?: string } = {},
  ): Promise<Properties> {
    const { body, query = {}, contentType = "application/json" } = options;
    const parameters = new URLSearchParams(query).toString();
    const call = await this.open(method, parameters ? `${path}?${parameters}` : path, {
      timeout: 60_000,
      headers: body === undefined ? {} : { "content-type": contentType },
    });
    return await new Promise((resolve, reject) => {
      call.on("error", reject);
      call.on("timeout", () => call.destroy(new Error(`${this.server.origin} does not answer`)));
      call.on("response", (response) => {
        const chunks: Buffer[] = [];
        response.on("data", (chunk: Buffer) => chunks.push(chunk));
        response.on("error", reject);
        response.on("end", () => {
          const text = Buffer.concat(chunks).toString();
          const status = response.statusCode ?? 0;
          if (status < 300) return resolve(text ? JSON.parse(text) : {});
          reject(apiError(status, text));
        });
      });
      call.end(body === undefined ? undefined : JSON.stringify(body));
    });
  }

  private async open(method: string, path: string, extra: RequestOptions) {
    const options: RequestOptions = { method, headers: {}, ...extra };
    await this.config.applyToHTTPSOptions(options);
    const url = new URL(`${this.server.pathname.replace(/\/$/, "")}${path}`, this.server);
    return this.server.protocol === "http:"
      ? httpRequest(url, { method, headers: extra.headers ?? {} })
      : httpsRequest(url, options);
  }
}

const root = (apiVersion: string) => (apiVersion.includes("/") ? `/apis/${apiVersion}` : `/api/${apiVersion}`);

function apiError(status: number, text: string): ApiError {
  try {
    const { reason = "", message = text } = JSON.parse(text) as { reason?: string; message?: string };
    return new ApiError(status, reason, message);
  } catch {
    return new ApiError(status, "", text.slice(0, 1000));
  }
}
