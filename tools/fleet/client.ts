import type { KubeConfig } from "@kubernetes/client-node";
import { printable } from "../../runtime/printable.ts";
import { Refusal } from "../../runtime/refusal.ts";

/**
 * The cluster to talk to. KUBECONFIG_CONTENT holds the content of a kubeconfig, so that a stack can keep it as a secret
 * and no machine's paths enter its state; without it, kubectl's own rules apply (KUBECONFIG, ~/.kube/config). The client
 * library is loaded here, because loading it takes longer than everything else.
 */
export async function loadKubeConfig(env: NodeJS.ProcessEnv): Promise<KubeConfig> {
  const { KubeConfig } = await import("@kubernetes/client-node");
  const config = new KubeConfig();
  const content = env.KUBECONFIG_CONTENT;
  const isContent = content !== undefined && content !== "";
  try {
    if (isContent) config.loadFromString(content);
    else config.loadFromDefault();
  } catch (error) {
    const source = isContent ? "KUBECONFIG_CONTENT" : "kubeconfig";
    throw new Refusal("kubeconfig", `The ${source} cannot be read: ${error instanceof Error ? error.message : error}`);
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

export const isNotFound = (error: unknown): boolean =>
  typeof error === "object" && error !== null && "code" in error && error.code === 404;

/** One line about an error of the Kubernetes client, whose own message contains the whole response with its headers. */
export function describeError(error: unknown): string {
  if (typeof error === "object" && error !== null && "body" in error) {
    const body = typeof error.body === "string" ? parseMessage(error.body) : messageOf(error.body);
    if (body !== undefined) return printable(body);
  }
  if (!(error instanceof Error)) return printable(String(error));
  const cause = error.cause instanceof Error ? `: ${error.cause.message}` : "";
  return printable(`${error.message.split("\n")[0]}${cause}`);
}

function messageOf(body: unknown): string | undefined {
  const message = typeof body === "object" && body !== null && "message" in body ? body.message : undefined;
  return typeof message === "string" ? message : undefined;
}

function parseMessage(body: string): string | undefined {
  try {
    return messageOf(JSON.parse(body));
  } catch {
    return undefined;
  }
}

/** The client has no time limits of its own, and a hanging connection must not hold up a rollout forever. */
export async function within<T>(timeoutMs: number, what: string, action: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const timeout = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: no answer within ${timeoutMs / 1000} s`)), timeoutMs);
  });
  try {
    return await Promise.race([action, timeout]);
  } finally {
    clearTimeout(timer);
  }
}
