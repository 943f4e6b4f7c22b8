import { systemNamespace } from "../../runtime/names.ts";
import { Refusal } from "../../runtime/refusal.ts";
import { type ApiError, apiClient, inClusterAddress } from "./api.ts";
import { bundleAccess, type MayReadBundle } from "./bundle-access.ts";
import { type Confinement, clusterConfinement } from "./confinement.ts";
import { type InstallerMetrics, newMetrics } from "./metrics.ts";
import { patientApi } from "./patience.ts";
import { localReporter, nodeReporter, type Reporter } from "./reporter.ts";
import { grantedTickets, leaseTickets, type Tickets } from "./tickets.ts";

/** The cluster as the installer's loop sees it. */
export interface Cluster {
  /** NODE_NAME, or undefined outside a cluster. */
  nodeName: string | undefined;
  reporter: Reporter;
  tickets: Tickets;
  confinement: Confinement;
  metrics: InstallerMetrics;
  /** Who may have this node's bundle; outside a cluster nobody asks. */
  mayReadBundle: MayReadBundle;
}

/** Outside a cluster: labels, Events and status go nowhere, and every ticket is granted. */
export function withoutKubernetes(now: () => Date): Cluster {
  const metrics = newMetrics();
  return {
    nodeName: undefined,
    reporter: localReporter(metrics, now),
    tickets: { ...grantedTickets },
    confinement: { require: async () => {} },
    metrics,
    mayReadBundle: async () => false,
  };
}

export interface ConnectOptions {
  group: string;
  atOnce: number;
  startupTaint?: string | undefined;
  /** `Host`'s clock. */
  now: () => Date;
  uptime: () => number;
  delay: (ms: number) => Promise<void>;
  onError: (error: ApiError) => void;
}

/**
 * The cluster that this pod runs in, as its environment says: KUBERNETES_SERVICE_HOST and _PORT (from the kubelet),
 * NODE_NAME and POD_NAMESPACE (downward API). Without that environment there is no cluster.
 */
export function connectKubernetes(options: ConnectOptions, env: NodeJS.ProcessEnv): Cluster {
  const address = inClusterAddress(env);
  if (address === undefined) return withoutKubernetes(options.now);
  const nodeName = env.NODE_NAME;
  if (nodeName === undefined || nodeName === "") {
    throw new Refusal(
      "no-node-name",
      "NODE_NAME is not set. The installer needs to know its node: set it from spec.nodeName through the downward API.",
    );
  }
  const metrics = newMetrics();
  const api = patientApi(apiClient(address), options);
  const namespace = env.POD_NAMESPACE ?? systemNamespace;
  return {
    nodeName,
    reporter: nodeReporter({ api, nodeName, metrics, ...options }),
    tickets: leaseTickets(api, { namespace, nodeName, ...options }),
    confinement: clusterConfinement({ api, namespace, nodeName, ...options }),
    metrics,
    mayReadBundle: bundleAccess(api, namespace, nodeName),
  };
}
