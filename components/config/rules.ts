import { groupRules } from "./group-rules.ts";
import { clusterOptions } from "./local-cluster.ts";
import type { Mistake } from "./mistakes.ts";
import { nodeRules } from "./node-rules.ts";
import { checkOverlap } from "./overlap.ts";
import type { ClusterConfiguration, GroupShape, RegistryConfiguration } from "./schema.ts";

/** What parsed; a part with a mistake of its own is absent, and rules that need it are skipped. */
export interface Parts {
  stack: string;
  cluster: ClusterConfiguration | undefined;
  installerImage: string | undefined;
  registry: RegistryConfiguration | undefined;
  groups: ReadonlyMap<string, GroupShape>;
}

/** A group among the stack's parts. */
export interface GroupPart {
  /** Where it stands: `groups.<name>`. */
  key: string;
  group: GroupShape;
  cluster: ClusterConfiguration | undefined;
}

/** What must hold between keys: each breach is a mistake. */
export type Rule<Part> = (part: Part) => Iterable<Mistake>;

/** All mistakes that concern more than one key. */
export function checkRules(parts: Parts): Mistake[] {
  const { groups, cluster } = parts;
  const perGroup = [...nodeRules, ...groupRules];
  return [
    ...stackRules.flatMap((rule) => [...rule(parts)]),
    ...[...groups].flatMap(([name, group]) =>
      perGroup.flatMap((rule) => [...rule({ key: `groups.${name}`, group, cluster })]),
    ),
    ...checkOverlap(groups),
  ];
}

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

  function* pullSecret({ registry, cluster }) {
    if (registry?.pullSecret === undefined) return;
    const key = "registry.pullSecret";
    if (!isDockerConfiguration(registry.pullSecret))
      yield {
        key,
        message: '[secret] must be the content of a .dockerconfigjson: {"auths": {"<registry>": {"auth": …}}}.',
      };
    if (cluster?.kind === "yaml")
      yield {
        key,
        message: `[secret] would be written into ${cluster.directory} in plain text. Let the nodes' own set-up log in to the registry, and remove it here.`,
      };
  },

  function* authorities({ registry, groups }) {
    if (registry?.ca !== undefined && ![...groups.values()].some(({ nodes }) => nodes.hosts))
      yield {
        key: "registry.ca",
        message:
          "reaches nodes by SSH only, and no group has nodes.hosts. Let the nodes' own set-up trust it, and remove it here.",
      };
  },
];

function isDockerConfiguration(text: string): boolean {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null && "auths" in value;
  } catch {
    return false;
  }
}
