import { request as httpRequest } from "node:http";
import { request as httpsRequest, type RequestOptions } from "node:https";
import type { KubeConfig } from "@kubernetes/client-node";
import { z } from "zod";
import { healthPort, installerName } from "../node-installer/kubernetes/names.ts";

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
  /** The node's bundle; or why there is none. */
  bundle?: string;
  problem?: string;
}

/** Requests under way at once. */
const atOnce = 16;
const timeoutMs = 60_000;
/** Bytes of an answer: a node that goes wrong must not take the job with it. */
const longest = 64e6;
const namePrefix = installerName("");

/**
 * The bundle of every node that has an installer, through the API server's proxy to their health ports: what is needed is
 * to list pods of the namespace and to `get` their subresource `proxy`. Each is handed to `take` as it comes.
 */
export async function collectBundles(
  kubeconfig: KubeConfig,
  namespace: string,
  take: (collected: Collected) => Promise<void>,
): Promise<void> {
  const get = await getter(kubeconfig);
  const pods = await installerPods(get, namespace);
  const next = pods.values();
  const work = async () => {
    for (const { name, group, node } of next) {
      const path = `/api/v1/namespaces/${namespace}/pods/${name}:${healthPort}/proxy/snapshot`;
      const result = await get(path).then(
        (bundle) => ({ bundle }),
        (error: Error) => ({ problem: error.message }),
      );
      await take({ group, node, ...result });
    }
  };
  await Promise.all(Array.from({ length: Math.min(atOnce, pods.length) }, work));
}

async function installerPods(get: Get, namespace: string): Promise<{ name: string; group: string; node: string }[]> {
  const pods: { name: string; group: string; node: string }[] = [];
  let token = "";
  do {
    const query = new URLSearchParams({ labelSelector: "app.kubernetes.io/part-of=contrast-runtime", limit: "500" });
    if (token !== "") query.set("continue", token);
    const { items, metadata } = podList.parse(JSON.parse(await get(`/api/v1/namespaces/${namespace}/pods?${query}`)));
    for (const { metadata: pod, spec, status } of items) {
      const label = pod.labels["app.kubernetes.io/name"] ?? "";
      if (!label.startsWith(namePrefix) || spec.nodeName === undefined || status.phase !== "Running") continue;
      pods.push({ name: pod.name, group: label.slice(namePrefix.length), node: spec.nodeName });
    }
    token = metadata.continue ?? "";
  } while (token !== "");
  return pods;
}

type Get = (path: string) => Promise<string>;

/** GET with the kubeconfig's identity. The library's own client parses what it thinks is JSON; a bundle stays text. */
async function getter(kubeconfig: KubeConfig): Promise<Get> {
  const server = (kubeconfig.getCurrentCluster()?.server ?? "").replace(/\/$/, "");
  return async (path) => {
    const url = new URL(server + path);
    const options: RequestOptions = { method: "GET", headers: { accept: "application/json" }, timeout: timeoutMs };
    await kubeconfig.applyToHTTPSOptions(options);
    const request = url.protocol === "http:" ? httpRequest : httpsRequest;
    return new Promise<string>((resolve, reject) => {
      const sent = request(url, options, (response) => {
        const chunks: Buffer[] = [];
        let size = 0;
        response.on("data", (chunk: Buffer) => {
          chunks.push(chunk);
          size += chunk.length;
          if (size > longest) response.destroy(new Error(`the answer is longer than ${longest / 1e6} MB`));
        });
        response.on("error", reject);
        response.on("end", () => {
          const text = Buffer.concat(chunks).toString("utf8");
          if (response.statusCode === 200) resolve(text);
          else reject(new Error(`the API server answered ${response.statusCode}: ${messageOf(text)}`));
        });
      });
      sent.on("timeout", () => sent.destroy(new Error(`no answer within ${timeoutMs / 1000} s`)));
      sent.on("error", reject);
      sent.end();
    });
  };
}

function messageOf(text: string): string {
  try {
    return (JSON.parse(text) as { message?: string }).message ?? text;
  } catch {
    return text.slice(0, 200);
  }
}
