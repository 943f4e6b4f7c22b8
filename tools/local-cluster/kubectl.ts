import { join } from "node:path";
import * as z from "zod";
import type { RunResult } from "../process/run.ts";
import { kubeconfigFile } from "./certificates.ts";
import type { ClusterLayout } from "./layout.ts";
import { runInNetwork } from "./network.ts";

/**
 * Runs kubectl as the cluster's administrator; its cache is removed with the cluster.
 * @param kubernetes directory of the Kubernetes programs
 */
export const kubectl = (
  cluster: ClusterLayout,
  kubernetes: string,
  args: string[],
  input?: string,
): Promise<RunResult> => {
  const flags = {
    kubeconfig: kubeconfigFile(cluster, "admin"),
    "cache-dir": join(cluster.directory, "kubectl-cache"),
  };
  const words = Object.entries(flags).map(([name, value]) => `--${name}=${value}`);
  return runInNetwork(cluster, [join(kubernetes, "kubectl"), ...words, ...args], input);
};

const nodeList = z.object({
  items: z.array(
    z.object({
      metadata: z.object({ name: z.string(), labels: z.record(z.string(), z.string()).default({}) }),
      status: z.object({
        conditions: z
          .array(
            z.object({
              type: z.string(),
              status: z.string(),
              message: z.string().default(""),
              lastHeartbeatTime: z.string().nullish(),
            }),
          )
          .default([]),
      }),
    }),
  ),
});

export interface NodeReport {
  name: string;
  labels: Record<string, string>;
  ready: boolean;
  /** The kubelet's own words. */
  reason: string;
  /** When the kubelet last said so, in milliseconds; 0 for never. */
  reported: number;
}

/** What the API server knows about the nodes; `undefined` while it does not answer. */
export async function nodeReports(cluster: ClusterLayout, kubernetes: string): Promise<NodeReport[] | undefined> {
  const { code, stdout } = await kubectl(cluster, kubernetes, ["get", "nodes", "-o", "json", "--request-timeout=10s"]);
  if (code !== 0) return undefined;
  return nodeList.parse(JSON.parse(stdout)).items.map(({ metadata, status }) => {
    const condition = status.conditions.find(({ type }) => type === "Ready");
    return {
      ...metadata,
      ready: condition?.status === "True",
      reason: condition?.message ?? "its kubelet has not reported yet",
      reported: condition?.lastHeartbeatTime ? Date.parse(condition.lastHeartbeatTime) : 0,
    };
  });
}
