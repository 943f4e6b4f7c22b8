import * as z from "zod";
import { type ContainerdVersion, containerdVersions } from "../../runtime/containerd-versions.ts";
import { Refusal } from "../../runtime/refusal.ts";
import { dnsLabel } from "../../runtime/spec.ts";
import { labels } from "./kubernetes-names.ts";
import { check } from "./mistakes.ts";

const defaultContainerdVersion: ContainerdVersion = "2.4";

const nodeOptions = z.strictObject({
  name: dnsLabel(40).describe("The node's name."),
  containerd: z
    .enum(containerdVersions)
    .default(defaultContainerdVersion)
    .describe("Minor version of the node's containerd."),
  labels: labels.default({}).describe("The node's labels."),
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
  const { value, mistakes } = check(clusterOptions, input, "");
  if (value !== undefined) return value;
  const lines = mistakes.map(({ key, message }) => `  ${key || "options"}: ${message}`);
  throw new Refusal("cluster-options", `The local cluster's options are not usable:\n${lines.join("\n")}`);
}
