import { handlerLabelPrefix } from "../../runtime/names.ts";
import type { GroupPart, Rule } from "./rules.ts";

/** What must hold of the nodes that a group names, selects, reaches or creates. */
export const nodeRules: Rule<GroupPart>[] = [
  function* oneWay({ key, group: { nodes } }) {
    const ways = (["selector", "names", "hosts", "pool"] as const).filter((way) => nodes[way] !== undefined);
    if (ways.length > 1)
      yield {
        key: `${key}.nodes`,
        message: `has ${ways.join(" and ")}. Allowed: one of selector, names, hosts, pool.`,
      };
  },

  function* labelsOfHandlers({ key, group: { nodes } }) {
    for (const [where, labels] of [
      [`${key}.nodes.selector`, nodes.selector],
      [`${key}.nodes.pool.labels`, nodes.pool?.labels],
    ] as const) {
      for (const label of labelsBelow(handlerLabelPrefix, labels))
        yield {
          key: `${where}.${label}`,
          message:
            "is a label that a node's installer sets once the node serves the handler, and pods follow it there. Remove it.",
        };
    }
  },

  function* labelsOfAzure({ key, group: { nodes } }) {
    for (const label of labelsBelow("kubernetes.azure.com/", nodes.pool?.labels))
      yield {
        key: `${key}.nodes.pool.labels.${label}`,
        message: "is in a prefix that AKS keeps for itself, and Azure refuses it. Remove it.",
      };
  },

  function* hosts({ key, group: { nodes }, cluster }) {
    if (nodes.hosts && cluster && cluster.kind !== "kubeconfig")
      yield {
        key: `${key}.nodes.hosts`,
        message: `are reached by SSH, and with cluster.kind ${cluster.kind} nodes are not ours to set up. Use selector or names.`,
      };
  },

  function* waysToHosts({ key, group: { nodes } }) {
    if (nodes.hosts && !nodes.ssh)
      yield {
        key: `${key}.nodes.ssh`,
        message: "is missing. Expected the user and privateKey with which hosts are reached.",
      };
    for (const name of ["ssh", "joinCommand"] as const)
      if (!nodes.hosts && nodes[name] !== undefined)
        yield { key: `${key}.nodes.${name}`, message: "has no effect without nodes.hosts. Remove it." };
  },

  function* poolOfAks({ key, group: { nodes }, cluster }) {
    if (nodes.pool && cluster && cluster.kind !== "aks")
      yield {
        key: `${key}.nodes.pool`,
        message: `is an AKS node pool, and cluster.kind is ${cluster.kind}. Use selector, names or hosts.`,
      };
  },

  function* existingPool({ key, group: { nodes }, cluster }) {
    const { pool } = nodes;
    if (!pool?.existing || cluster?.kind !== "aks") return;
    const [managed] = (["vmSize", "count", "zones", "maxPods", "labels"] as const).filter(
      (name) => pool[name] !== undefined,
    );
    if (managed)
      yield {
        key: `${key}.nodes.pool.${managed}`,
        message: "has no effect on an existing pool, which is used as it is. Remove it, or remove existing.",
      };
  },

  function* newPool({ key, group: { nodes }, cluster }) {
    const { pool } = nodes;
    if (!pool || pool.existing || cluster?.kind !== "aks") return;
    if (pool.vmSize === undefined)
      yield {
        key: `${key}.nodes.pool.vmSize`,
        message: "is missing. Expected a size that runs SNP guests, such as Standard_DC4as_cc_v5, or existing: true.",
      };
    if (pool.count === undefined)
      yield {
        key: `${key}.nodes.pool.count`,
        message: "is missing. Expected the pool's number of nodes, or existing: true.",
      };
    if (cluster.retiredService !== "acknowledged")
      yield {
        key: `${key}.nodes.pool`,
        message: `"${pool.name}" would be created or scaled with KataCcIsolation. Microsoft retired that service and its node images in March 2026: Azure most likely refuses. Use an existing pool (existing: true), or set cluster.retiredService to "acknowledged".`,
      };
  },
];

const labelsBelow = (prefix: string, labels: Record<string, string> = {}): string[] =>
  Object.keys(labels).filter((name) => name.startsWith(prefix));
