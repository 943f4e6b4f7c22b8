import { setTimeout as sleep } from "node:timers/promises";
import type { KubeConfig } from "@kubernetes/client-node";
import { z } from "zod";
import { fromJson } from "../../runtime/from-json.ts";
import {
  bundleAudience,
  bundleReader,
  bundleTokenHeader,
  groupOfInstaller,
  healthPort,
  partOfLabel,
} from "../../runtime/names.ts";
import { printable } from "../../runtime/printable.ts";
import { Refusal } from "../../runtime/refusal.ts";
import { type Ask, asker, Refused } from "./api-server.ts";

const podListSchema = z.object({
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

const ownObjects = Object.entries(partOfLabel)
  .map(([label, value]) => `${label}=${value}`)
  .join();
/** Requests under way at once. */
const atOnce = 16;

/** Of a token: the API server gives none for less. */
const tokenSeconds = 600;

/** How often a node that is busy is asked, with a second between. */
const attempts = 20;

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
  const pods = await installerPods(ask, namespace).catch((error: Error) => {
    throw new Refusal("unreachable", `The API server cannot be queried: ${printable(error.message)}.`);
  });
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

const tokenRequestSchema = z.object({ status: z.object({ token: z.string() }) });

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
  const { token } = read(answer, tokenRequestSchema, "token").status;
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

/** Whatever stands between here and the API server may answer in its place. */
function read<T>(answer: string, schema: z.ZodType<T>, what: string): T {
  const { data } = fromJson.pipe(schema).safeParse(answer);
  if (data === undefined) throw new Error(`what it answered is no ${what}`);
  return data;
}

async function installerPods(ask: Ask, namespace: string): Promise<{ name: string; group: string; node: string }[]> {
  const pods: { name: string; group: string; node: string }[] = [];
  let token = "";
  do {
    const query = new URLSearchParams({ labelSelector: ownObjects, limit: "500" });
    if (token !== "") query.set("continue", token);
    const answer = await ask(`/api/v1/namespaces/${namespace}/pods?${query}`);
    const { items, metadata } = read(answer, podListSchema, "list of pods");
    for (const { metadata: pod, spec, status } of items) {
      const group = groupOfInstaller(pod.labels["app.kubernetes.io/name"] ?? "");
      if (group === undefined || spec.nodeName === undefined || status.phase !== "Running") continue;
      pods.push({ name: pod.name, group, node: spec.nodeName });
    }
    token = metadata.continue ?? "";
  } while (token !== "");
  return pods;
}
