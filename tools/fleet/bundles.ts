import type { V1Pod } from "@kubernetes/client-node";
import * as z from "zod";
import { longestBundle } from "../../node-installer/host/bundle.ts";
import { ApiError } from "../../node-installer/kubernetes/api.ts";
import { fromJson } from "../../runtime/from-json.ts";
import {
  bundleAudience,
  bundleReader,
  bundleTokenHeader,
  groupOfInstaller,
  healthPort,
  partOfLabel,
} from "../../runtime/names.ts";
import { Refusal } from "../../runtime/refusal.ts";
import { describeError, each, type FleetApi } from "./api.ts";
import { nameOf } from "./name-of.ts";
import { selectorText } from "./observe.ts";

export interface Collected {
  group: string;
  node: string;
  /** The node's bundle; or why there is none, as one printable line: what a node answers is its own words. */
  bundle?: string;
  problem?: string;
}

const labelSelector = selectorText(partOfLabel);

/** Of a token: the API server gives none for less. */
const tokenSeconds = 600;

/**
 * The bundle of every node that has an installer, through the API server's proxy to their health ports. What is needed is
 * to list pods of the namespace, to `get` their subresource `proxy`, and to create tokens of the ServiceAccount
 * `bundle-reader`: each node is shown one that no other node, nor the API server, takes. Each bundle is handed to `take`
 * as it comes. A node that is busy answers as a server that throttles does, and is asked again.
 */
export async function collectBundles(
  api: FleetApi,
  namespace: string,
  take: (collected: Collected) => Promise<void>,
): Promise<void> {
  const pods = await api
    .list(`/api/v1/namespaces/${namespace}/pods`, { labelSelector }, installer)
    .catch((error: unknown) => {
      throw new Refusal("unreachable", `The API server cannot be queried: ${sentenceOf(error)}.`);
    });
  await each(pods, async ({ name, group, node }) => {
    const result = await bundleOf(api, namespace, name, node).then(
      (bundle) => ({ bundle }),
      (error: unknown) => ({ problem: sentenceOf(error) }),
    );
    await take({ group, node, ...result });
  });
}

function installer(pod: V1Pod) {
  const group = groupOfInstaller(pod.metadata?.labels?.["app.kubernetes.io/name"] ?? "");
  const node = pod.spec?.nodeName;
  if (group === undefined || node === undefined || pod.status?.phase !== "Running") return [];
  return [{ name: nameOf(pod), group, node }];
}

const sentenceOf = (error: unknown): string =>
  error instanceof ApiError && error.status > 0
    ? `the API server answered ${error.status}: ${describeError(error)}`
    : describeError(error);

const tokenRequestSchema = fromJson.pipe(z.object({ status: z.object({ token: z.string() }) }));

async function bundleOf(api: FleetApi, namespace: string, pod: string, node: string): Promise<string> {
  const account = `/api/v1/namespaces/${namespace}/serviceaccounts/${bundleReader}`;
  const body = {
    apiVersion: "authentication.k8s.io/v1",
    kind: "TokenRequest",
    spec: { audiences: [bundleAudience(node)], expirationSeconds: tokenSeconds },
  };
  const answer = await api.text(`${account}/token`, { body }).catch((error: unknown) => {
    const who = `no token of the ServiceAccount ${bundleReader} (examples/ci/fleet-reader.yaml)`;
    throw new Error(`${who}: ${sentenceOf(error)}`);
  });
  const { data } = tokenRequestSchema.safeParse(answer);
  if (data === undefined) throw new Error("what it answered is no token");
  return api.text(`/api/v1/namespaces/${namespace}/pods/${pod}:${healthPort}/proxy/bundle`, {
    headers: { [bundleTokenHeader]: data.status.token },
    longest: longestBundle,
  });
}
