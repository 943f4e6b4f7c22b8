import { startMarginSeconds } from "../../runtime/guest-start.ts";
import { platforms } from "../../runtime/platforms.ts";
import type { PlatformName } from "../../runtime/spec.ts";
import { at, type GroupPart, type Rule } from "./group-part.ts";

/** What must hold within a group, but for its nodes: see node-rules.ts. */
export const groupRules: Rule<GroupPart>[] = [
  function* oneProcessor(part) {
    const message = processors(part.runtimes.map(({ platform }) => platform));
    if (message !== undefined) yield { key: at(part, "runtimes"), message: `${message}.` };
  },

  function* keysOfTees(part) {
    for (const [i, { platform, overhead }] of part.runtimes.entries()) {
      if (overhead?.teeKeys && platforms[platform].extendedResource === undefined)
        yield {
          key: at(part, `runtimes[${i}].overhead.teeKeys`),
          message: `has no effect: nodes of "${platform}" advertise no keys. Remove it.`,
        };
    }
  },

  function* platformOfNodes(part) {
    const { distribution, runtimes, cluster } = part;
    for (const [i, { platform }] of runtimes.entries()) {
      const where = at(part, `runtimes[${i}].platform`);
      // Of another distribution in an AKS cluster, distributionOnAks has said what is wrong.
      if (platform === "aks-clh-snp" && distribution.name !== "aks" && cluster !== "aks")
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

  function* proofs(part) {
    const gpu = part.runtimes.find(({ platform }) => platforms[platform].gpu);
    if (part.verifySandbox && gpu !== undefined)
      yield {
        key: at(part, "verifySandbox"),
        message: `cannot pass with ${gpu.platform}: Kata asks the kubelet for the GPUs of each pod, and the kubelet does not know the proof's. Remove it; runtimes without a GPU can keep it in a group with nodes of their own.`,
      };
  },

  function* patience(part) {
    const { stallTimeout, runtimes } = part;
    if (!part.verifySandbox || stallTimeout === undefined) return;
    for (const [i, { kata }] of runtimes.entries()) {
      const { dial_timeout: seconds = 0, reconnect_timeout_ms: milliseconds = 0 } = kata?.agent ?? {};
      const longest = Math.max(Number(seconds), Number(milliseconds) / 1000) + startMarginSeconds;
      if (longest > stallTimeout)
        yield {
          key: at(part, "stallTimeout"),
          message: `${stallTimeout} is less than the ${longest} seconds that the proof of runtimes[${i}] may take, as its kata.agent says: a rollout would give up while the guest starts. Set ${longest} or more.`,
        };
    }
  },

  function* taints(part) {
    for (const [i, { operator, value, key }] of (part.tolerations ?? []).entries()) {
      if (operator === "Exists" && value !== undefined)
        yield {
          key: at(part, `tolerations[${i}].value`),
          message: `${JSON.stringify(value)} has no meaning with operator "Exists". Remove it, or use "Equal".`,
        };
      if (operator === "Equal" && key === undefined)
        yield {
          key: at(part, `tolerations[${i}].key`),
          message: 'is missing. Only operator "Exists" tolerates every key.',
        };
    }
  },

  function* enoughNodes(part) {
    const { nodes, ignoreNodes, minimumNodes } = part;
    const names = named(part);
    const waitedFor = names?.filter((name) => !ignoreNodes.includes(name)).length ?? nodes.pool?.count;
    if (minimumNodes === undefined || waitedFor === undefined || minimumNodes <= waitedFor) return;
    const ignored = names && waitedFor < names.length ? " without those of ignoreNodes" : "";
    yield {
      key: at(part, "minimumNodes"),
      message: `${minimumNodes} is more than the number of nodes that the group lists, ${waitedFor}${ignored}.`,
    };
  },

  function* ignoredNodes(part) {
    const { ignoreNodes } = part;
    const names = named(part);
    for (const [i, node] of ignoreNodes.entries()) {
      const key = at(part, `ignoreNodes[${i}]`);
      if (ignoreNodes.indexOf(node) < i) yield { key, message: `"${node}" is listed twice.` };
      if (names && !names.includes(node))
        yield { key, message: `"${node}" is not a node of the group. Allowed: ${names.join(", ")}.` };
    }
  },
];

/** What is wrong with platforms that need several kinds of processor. */
export function processors(all: readonly PlatformName[]): string | undefined {
  const tees = new Set(all.map((platform) => platforms[platform].tee));
  tees.delete("none");
  return tees.size > 1
    ? `need ${[...tees].map((tee) => tee.toUpperCase()).join(" and ")}, which no processor has together. Make a group for each`
    : undefined;
}

/** The group's nodes, where it lists them by name. */
const named = ({ nodes }: GroupPart): readonly string[] | undefined =>
  nodes.names ?? nodes.hosts?.map(({ name }) => name);

const metal = Object.entries(platforms)
  .filter(([, { host }]) => host.virtualization !== "mshv")
  .map(([name]) => name)
  .join(", ");
