import { z } from "zod";
import { Refusal } from "../../runtime/refusal.ts";
import { dnsLabel } from "../../runtime/spec.ts";
import { labels } from "./kubernetes-names.ts";

/** Minor versions that a node of a local cluster can have. */
export const containerdVersions = ["1.7", "2.0", "2.1", "2.2", "2.3", "2.4"] as const;
export type ContainerdVersion = (typeof containerdVersions)[number];
const defaultContainerdVersion: ContainerdVersion = "2.4";

export const nodeOptions = z.strictObject({
  name: dnsLabel(40),
  /** Minor version of the node's containerd. */
  containerd: z.enum(containerdVersions).default(defaultContainerdVersion),
  labels: labels.default({}),
});
export type NodeOptions = z.output<typeof nodeOptions>;

export const clusterOptions = z.strictObject({
  /** Usually the stack's. Everything that the cluster has on the machine is named after it. */
  name: dnsLabel(30),
  nodes: z
    .array(nodeOptions)
    .min(1, { error: "must list at least one node" })
    .max(50, { error: "must list at most 50 nodes" })
    .refine((nodes) => new Set(nodes.map((node) => node.name)).size === nodes.length, {
      error: "must not list a name twice",
    })
    .default([{ name: "node-1", containerd: defaultContainerdVersion, labels: {} }]),
});
export type ClusterOptions = z.output<typeof clusterOptions>;
export type ClusterInput = z.input<typeof clusterOptions>;

/** @throws Refusal that lists every mistake with its key */
export function parseClusterOptions(input: unknown): ClusterOptions {
  const parsed = clusterOptions.safeParse(input);
  if (parsed.success) return parsed.data;
  const mistakes = parsed.error.issues.map(({ path, message }) => `  ${path.join(".") || "options"}: ${message}`);
  throw new Refusal("cluster-options", `The local cluster's options are not usable:\n${mistakes.join("\n")}`);
}
