import { request as httpRequest } from "node:http";
import { request as httpsRequest, type RequestOptions } from "node:https";
import { setTimeout as sleep } from "node:timers/promises";
import type { KubeConfig } from "@kubernetes/client-node";
import { z } from "zod";
import { longestBundle } from "../node-installer/host/bundle.ts";
import { bundleAudience, bundleReader, bundleTokenHeader, healthPort, installerName } from "../runtime/names.ts";
import { printable } from "../runtime/printable.ts";

const podList = z.object({
  metadata: z.object({ continue: z.string().optional() }).default({}),
  items: z.array(
    z.object({
      metadata: z.object({ name: z.string(), labels: z.record(z.string(), z.string()).default({}) }),
      spec: z.object({ nodeName: z.string().optional() }),
      status: z.object({ phase: z.string().optional() }).default({}),
    }),
  ),
});

export interface Collected {
  group: string;
  node: string;
  /** The node's bundle; or why there is none, as one printable line: what a node answers is its own words. */
  bundle?: string;
  problem?: string;
}

/** Requests under way at once. */
const atOnce = 16;
const timeoutMs = 60_000;
/** Of a whole answer, however slowly it comes: well above what a node under load takes. */
const longestMs = 300_000;
/** Of a token: the API server gives none for less. */
const tokenSeconds = 600;
/** How often a node that is busy is asked, with a second between. */
const attempts = 20;
const namePrefix = installerName("");

/**
 * The bundle of every node that has an installer, through the API server's proxy to their health ports. What is needed is
 * to list pods of the namespace, to `get` their subresource `proxy`, and to create tokens of the ServiceAccount
 * `bundle-reader`: each node is shown one that no other node, nor the API server, takes. Each bundle is handed to `take`
 * as it comes.
 */
export async function collectBundles(
  kubeconfig: KubeConfig,
  namespace: string,
  take: (collected: Collected) => Promise<void>,
): Promise<void> {
  const ask = await asker(kubeconfig);
  const pods = await installerPods(ask, namespace);
  const next = pods.values();
  const work = async () => {
    for (const { name, group, node } of next) {
      const result = await bundleOf(ask, namespace, name, node).then(
        (bundle) => ({ bundle }),
        (error: Error) => ({ problem: printable(error.message) }),
      );
      await take({ group, node, ...result });
    }
  };
  await Promise.all(Array.from({ length: Math.min(atOnce, pods.length) }, work));
}

const tokenRequest = z.object({ status: z.object({ token: z.string() }) });

async function bundleOf(ask: Ask, namespace: string, pod: string, node: string): Promise<string> {
  const account = `/api/v1/namespaces/${namespace}/serviceaccounts/${bundleReader}`;
  const request = {
    apiVersion: "authentication.k8s.io/v1",
    kind: "TokenRequest",
    spec: { audiences: [bundleAudience(node)], expirationSeconds: tokenSeconds },
  };
  const answer = await ask(`${account}/token`, { body: JSON.stringify(request) }).catch((error: Error) => {
    throw new Error(`no token of the ServiceAccount ${bundleReader} (examples/ci/fleet-reader.yaml): ${error.message}`);
  });
  const { token } = tokenRequest.parse(JSON.parse(answer)).status;
  const path = `/api/v1/namespaces/${namespace}/pods/${pod}:${healthPort}/proxy/bundle`;
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await ask(path, { headers: { [bundleTokenHeader]: token } });
    } catch (error) {
      if (!(error instanceof Refused) || error.code !== 429 || attempt === attempts) throw error;
      await sleep(1_000);
    }
  }
}

async function installerPods(ask: Ask, namespace: string): Promise<{ name: string; group: string; node: string }[]> {
  const pods: { name: string; group: string; node: string }[] = [];
  let token = "";
  do {
    const query = new URLSearchParams({ labelSelector: "app.kubernetes.io/part-of=contrast-runtime", limit: "500" });
    if (token !== "") query.set("continue", token);
    const { items, metadata } = podList.parse(JSON.parse(await ask(`/api/v1/namespaces/${namespace}/pods?${query}`)));
    for (const { metadata: pod, spec, status } of items) {
      const label = pod.labels["app.kubernetes.io/name"] ?? "";
      if (!label.startsWith(namePrefix) || spec.nodeName === undefined || status.phase !== "Running") continue;
      pods.push({ name: pod.name, group: label.slice(namePrefix.length), node: spec.nodeName });
    }
    token = metadata.continue ?? "";
  } while (token !== "");
  return pods;
}

/** GET, or POST if there is a body. Throws `Refused` where the answer is not one of success. */
type Ask = (path: string, more?: { headers?: Record<string, string>; body?: string }) => Promise<string>;

class Refused extends Error {
  readonly code: number | undefined;
  constructor(code: number | undefined, text: string) {
    super(`the API server answered ${code}: ${messageOf(text)}`);
    this.code = code;
  }
}

/** With the kubeconfig's identity. The library's own client parses what it thinks is JSON; a bundle stays text. */
async function asker(kubeconfig: KubeConfig): Promise<Ask> {
  const server = (kubeconfig.getCurrentCluster()?.server ?? "").replace(/\/$/, "");
  return async (path, { headers, body } = {}) => {
    const url = new URL(server + path);
    const options: RequestOptions = {
      method: body === undefined ? "GET" : "POST",
      headers: { accept: "application/json", ...(body && { "content-type": "application/json" }), ...headers },
      timeout: timeoutMs,
    };
    await kubeconfig.applyToHTTPSOptions(options);
    const request = url.protocol === "http:" ? httpRequest : httpsRequest;
    return new Promise<string>((resolve, reject) => {
      const sent = request(url, options, (response) => {
        const chunks: Buffer[] = [];
        let size = 0;
        response.on("data", (chunk: Buffer) => {
          chunks.push(chunk);
          size += chunk.length;
          // A node that goes wrong must not take the job with it.
          if (size > longestBundle) response.destroy(new Error(`the answer is longer than ${longestBundle >> 20} MiB`));
        });
        response.on("error", reject);
        response.on("end", () => {
          const text = Buffer.concat(chunks).toString("utf8");
          const { statusCode = 0 } = response;
          if (statusCode >= 200 && statusCode < 300) resolve(text);
          else reject(new Refused(statusCode, text));
        });
      });
      sent.on("timeout", () => sent.destroy(new Error(`no answer within ${timeoutMs / 1000} s`)));
      sent.on("error", reject);
      const late = setTimeout(
        () => sent.destroy(new Error(`the answer was not there after ${longestMs / 1000} s`)),
        longestMs,
      );
      sent.once("close", () => clearTimeout(late));
      sent.end(body);
    });
  };
}

function messageOf(text: string): string {
  try {
    return ((JSON.parse(text) as { message?: string }).message ?? text).slice(0, 500);
  } catch {
    return text.trim().slice(0, 200);
  }
}
