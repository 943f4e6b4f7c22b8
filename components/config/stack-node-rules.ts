import type { Rule } from "./group-part.ts";
import type { ClusterConfiguration, GroupShape } from "./schema.ts";

/** A group among the stack's parts. */
export interface StackGroup {
  /** Where it stands: `groups.<name>`. */
  key: string;
  group: GroupShape;
  cluster: ClusterConfiguration | undefined;
}

/** What must hold of a group in a stack alone: programs have other arguments, and know no kind of cluster. */
export const stackNodeRules: Rule<StackGroup>[] = [
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
        message:
          `"${pool.name}" would be created or scaled with KataCcIsolation. Microsoft retired that service and its node ` +
          "images in March 2026: Azure most likely refuses. What works on AKS today are peer pods (a confidential VM beside " +
          "the node for each pod) and node pools of confidential VMs, neither of which needs this program: docs/aks.md. A pool " +
          "that still has nodes is used as it is with existing: true; it cannot grow. To try it all the same, set " +
          'cluster.retiredService to "acknowledged".',
      };
  },

  function* distributionOnAks({ key, group: { distribution }, cluster }) {
    if (cluster?.kind === "aks" && distribution.name !== "aks")
      yield {
        key: `${key}.distribution.name`,
        message: `"${distribution.name}" is not how the nodes of an AKS cluster run containerd. Allowed with cluster.kind aks: aks.`,
      };
  },
];
