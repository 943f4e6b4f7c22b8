import { oldestContainerd } from "../../runtime/containerd-versions.ts";
import { platforms } from "../../runtime/platforms.ts";
import { isAtLeast } from "../../runtime/version.ts";
import type { GroupPart, Rule } from "./rules.ts";

/** What must hold within a group, but for its nodes: see node-rules.ts. */
export const groupRules: Rule<GroupPart>[] = [
  function* distributionOnAks({ key, group: { distribution }, cluster }) {
    if (cluster?.kind === "aks" && distribution.name !== "aks")
      yield {
        key: `${key}.distribution.name`,
        message: `"${distribution.name}" is not how the nodes of an AKS cluster run containerd. Allowed with cluster.kind aks: aks.`,
      };
  },

  function* supportedContainerd({ key, group: { distribution } }) {
    const version = distribution.containerdVersion;
    if (version !== undefined && !isAtLeast(version, oldestContainerd))
      yield {
        key: `${key}.distribution.containerdVersion`,
        message: `"${version}" is out of support and ignores where a runtime's shim is. Allowed: ${oldestContainerd} and later.`,
      };
  },

  function* oneProcessor({ key, group: { runtimes } }) {
    const tees = new Set(runtimes.map(({ platform }) => platforms[platform].tee));
    tees.delete("none");
    if (tees.size > 1)
      yield {
        key: `${key}.runtimes`,
        message: `need ${[...tees].map((tee) => tee.toUpperCase()).join(" and ")}, which no processor has together. Make a group for each.`,
      };
  },

  function* keysOfTees({ key, group: { runtimes } }) {
    for (const [i, { platform, overhead }] of runtimes.entries()) {
      if (overhead?.teeKeys && platforms[platform].extendedResource === undefined)
        yield {
          key: `${key}.runtimes[${i}].overhead.teeKeys`,
          message: `has no effect: nodes of "${platform}" advertise no keys. Remove it.`,
        };
    }
  },

  function* platformOfNodes({ key, group: { distribution, runtimes }, cluster }) {
    for (const [i, { platform }] of runtimes.entries()) {
      const where = `${key}.runtimes[${i}].platform`;
      // Of another distribution in an AKS cluster, distributionOnAks has said what is wrong.
      if (platform === "aks-clh-snp" && distribution.name !== "aks" && cluster?.kind !== "aks")
        yield {
          key: where,
          message: `"${platform}" runs on AKS only, and the group's distribution is "${distribution.name}". Allowed here: ${metal}.`,
        };
      if (distribution.name === "aks" && platforms[platform].host.virtualization === "kvm")
        yield {
          key: where,
          message: `"${platform}" needs /dev/kvm, which AKS nodes do not have. Allowed here: aks-clh-snp.`,
        };
    }
  },

  function* taints({ key, group: { tolerations } }) {
    for (const [i, { operator, value, key: taint }] of tolerations.entries()) {
      if (operator === "Exists" && value !== undefined)
        yield {
          key: `${key}.tolerations[${i}].value`,
          message: `${JSON.stringify(value)} has no meaning with operator "Exists". Remove it, or use "Equal".`,
        };
      if (operator === "Equal" && taint === undefined)
        yield {
          key: `${key}.tolerations[${i}].key`,
          message: 'is missing. Only operator "Exists" tolerates every key.',
        };
    }
  },

  function* enoughNodes({ key, group }) {
    const { ignoreNodes, minimumNodes } = group;
    const names = listed(group);
    const waitedFor = names?.filter((name) => !ignoreNodes.includes(name)).length ?? group.nodes.pool?.count;
    if (waitedFor === undefined || minimumNodes <= waitedFor) return;
    const ignored = names && waitedFor < names.length ? " without those of ignoreNodes" : "";
    yield {
      key: `${key}.minimumNodes`,
      message: `${minimumNodes} is more than the number of nodes that the group lists, ${waitedFor}${ignored}.`,
    };
  },

  function* ignoredNodes({ key, group }) {
    const { ignoreNodes } = group;
    const names = listed(group);
    for (const [i, node] of ignoreNodes.entries()) {
      if (ignoreNodes.indexOf(node) < i)
        yield { key: `${key}.ignoreNodes[${i}]`, message: `"${node}" is listed twice.` };
      if (names && !names.includes(node))
        yield {
          key: `${key}.ignoreNodes[${i}]`,
          message: `"${node}" is not a node of the group. Allowed: ${names.join(", ")}.`,
        };
    }
  },
];

/** The group's nodes, where it lists them by name. */
const listed = ({ nodes }: GroupPart["group"]): string[] | undefined =>
  nodes.names ?? nodes.hosts?.map(({ name }) => name);

const metal = Object.entries(platforms)
  .filter(([, { host }]) => host.virtualization !== "mshv")
  .map(([name]) => name)
  .join(", ");
