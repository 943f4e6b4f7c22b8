import { poolSelector } from "../runtime/names.ts";
import type { GroupConfiguration } from "./config/read.ts";
import type { ClusterConfiguration } from "./config/schema.ts";
import type { NodeGroupArgs } from "./contrast-runtime.ts";

/** Turns a group of the stack's configuration into the component's arguments. */
export function nodeGroup(configuration: GroupConfiguration, cluster: ClusterConfiguration): NodeGroupArgs {
  const { name, nodes, runtimes, ...group } = configuration;
  return {
    ...group,
    group: name,
    runtimes: runtimes.map(({ handler, ...runtime }) => runtime),
    ...selection(nodes, cluster),
    ...(cluster.kind === "local" && Object.keys(nodes).length === 0 && { minimumNodes: waitedFor(group, cluster) }),
  };
}

/** Every node of a cluster that we make is waited for, also one that is added later. */
const waitedFor = (
  { minimumNodes }: Pick<GroupConfiguration, "minimumNodes">,
  cluster: { nodes?: unknown[] | undefined },
) => Math.max(minimumNodes, cluster.nodes?.length ?? 1);

function selection(
  { selector, names, hosts, ssh, joinCommand, pool }: GroupConfiguration["nodes"],
  cluster: ClusterConfiguration,
) {
  if (selector) return { nodeSelector: selector };
  if (names) return { nodeNames: names };
  if (hosts && ssh) return { ssh: { ...ssh, hosts, joinCommand } };
  if (!pool || cluster.kind !== "aks") return {};
  if (pool.existing) return { nodeSelector: poolSelector(pool.name) };
  const { vmSize, count, zones, maxPods, labels } = pool;
  if (vmSize === undefined || count === undefined)
    throw new Error("the rules refuse a new pool without size and count");
  return {
    pool: {
      resourceGroup: cluster.resourceGroup,
      cluster: cluster.name,
      pool: pool.name,
      vmSize,
      count,
      ...(zones && { zones }),
      ...(maxPods !== undefined && { maxPods }),
      ...(labels && { labels }),
    },
  };
}
