import { checkGroups } from "./group-check.ts";
import { type GroupPart, type Rule, type Terms, unusedAuthorities, ways } from "./group-part.ts";
import { clusterOptions } from "./local-cluster.ts";
import type { Mistake } from "./mistakes.ts";
import type { ClusterConfiguration, GroupShape, RegistryConfiguration } from "./schema.ts";
import { stackNodeRules } from "./stack-node-rules.ts";

/** What parsed; a part with a mistake of its own is absent, and rules that need it are skipped. */
export interface Parts {
  stack: string;
  cluster: ClusterConfiguration | undefined;
  installerImage: string | undefined;
  registry: RegistryConfiguration | undefined;
  groups: ReadonlyMap<string, GroupShape>;
}

/** All mistakes that concern more than one key. */
export function checkRules(parts: Parts): Mistake[] {
  const { cluster } = parts;
  const groups = [...parts.groups].map(([name, group]) => ({ key: `groups.${name}`, name, group, cluster }));
  return [
    ...stackRules.flatMap((rule) => [...rule(parts)]),
    ...groups.flatMap((group) => stackNodeRules.flatMap((rule) => [...rule(group)])),
    ...checkGroups(
      groups.map(
        ({ group, ...rest }): GroupPart => ({
          ...group,
          ...rest,
          cluster: cluster?.kind,
          terms,
          used: ways.filter((way) => group.nodes[way] !== undefined),
        }),
      ),
    ),
  ];
}

/** What a stack calls the keys of a group's nodes. */
const terms: Terms = {
  nodes: "nodes",
  missing: "nodes",
  paths: {
    selector: "nodes.selector",
    names: "nodes.names",
    hosts: "nodes.hosts",
    pool: "nodes.pool",
    poolName: "nodes.pool.name",
  },
  words: { selector: "selector", names: "names", hosts: "hosts", pool: "pool" },
};

const stackRules: Rule<Parts>[] = [
  function* stackName({ stack, cluster }) {
    if (cluster?.kind === "local" && !clusterOptions.shape.name.safeParse(stack).success)
      yield {
        key: "cluster.kind",
        message: `"local" names the cluster after the stack, but "${stack}" is not a lower-case DNS label of at most 30 characters that begins with a letter: rename the stack with pulumi stack rename.`,
      };
  },

  function* localImage({ cluster, installerImage }) {
    if (cluster && cluster.kind !== "local" && installerImage === "local")
      yield {
        key: "installerImage",
        message: `"local" is an image for local clusters only. With cluster.kind ${cluster.kind}, name an image by digest: registry/repository@sha256:<64 hex digits>.`,
      };
  },

  function* mirror({ registry, installerImage }) {
    if (registry?.prefix !== undefined && installerImage === "local")
      yield {
        key: "registry.prefix",
        message: 'has no effect on the image "local". Remove it, or name installerImage by digest.',
      };
  },

  function* authorities({ registry, groups }) {
    if (registry?.ca !== undefined && ![...groups.values()].some(({ nodes }) => nodes.hosts))
      yield { key: "registry.ca", message: unusedAuthorities("nodes.hosts") };
  },
];
