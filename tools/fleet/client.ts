import { setFlagsFromString } from "node:v8";
import type { KubeConfig } from "@kubernetes/client-node";
import { Refusal } from "../../runtime/refusal.ts";
import { whyNot } from "../../runtime/unreadable.ts";
import { type FleetApi, fleetApi } from "./api.ts";
import { kubernetesClient } from "./kubernetes-client.ts";

/** The cluster that the environment names. */
export async function connect(env: NodeJS.ProcessEnv): Promise<FleetApi> {
  // Of a page of a list nothing but a few fields outlives the next moment. V8 would take so much garbage for a reason to
  // give it more room, which for 5,000 nodes is a hundred megabytes.
  setFlagsFromString("--semi-space-growth-factor=1");
  return fleetApi(await loadKubeConfig(env));
}

/**
 * The cluster to talk to. KUBECONFIG_CONTENT holds the content of a kubeconfig, so that a stack can keep it as a secret
 * and no machine's paths enter its state; without it, kubectl's own rules apply (KUBECONFIG, ~/.kube/config). The client
 * library is loaded here, because loading it takes longer than everything else.
 */
async function loadKubeConfig(env: NodeJS.ProcessEnv): Promise<KubeConfig> {
  const { KubeConfig } = await kubernetesClient();
  const config = new KubeConfig();
  const content = env.KUBECONFIG_CONTENT;
  const isContent = content !== undefined && content !== "";
  try {
    if (isContent) config.loadFromString(content);
    else config.loadFromDefault();
  } catch (error) {
    const file = error instanceof Error && "path" in error ? String(error.path) : env.KUBECONFIG;
    const source = isContent ? "KUBECONFIG_CONTENT" : `The kubeconfig ${file ?? "~/.kube/config"}`;
    // The further lines of a YAML reader's message show the file's own, with whatever secret is in them.
    const [why] = whyNot(error).split("\n");
    throw new Refusal("kubeconfig", `${source} cannot be read: ${why}.`);
  }
  // The library's fallback if there is no configuration at all.
  if (config.getCurrentCluster()?.server === "http://localhost:8080") {
    throw new Refusal(
      "kubeconfig",
      "There is no kubeconfig: set KUBECONFIG_CONTENT or KUBECONFIG (in a clone, npm start makes a local cluster).",
    );
  }
  if (isContent && config.clusters.length === 0) {
    throw new Refusal(
      "kubeconfig",
      "KUBECONFIG_CONTENT lists no cluster: it must be the content of a kubeconfig, not its path.",
    );
  }
  if (config.getCurrentCluster() === null) {
    throw new Refusal(
      "kubeconfig",
      `The kubeconfig's current context "${config.getCurrentContext()}" names no cluster. Set KUBECONFIG_CONTENT or KUBECONFIG.`,
    );
  }
  return config;
}
