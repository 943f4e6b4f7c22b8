import { handlerLabelPrefix } from "../../runtime/names.ts";
import { platforms } from "../../runtime/platforms.ts";
import { isAtLeast } from "../../runtime/version.ts";
import { poolSelector } from "../aks-coco-node-pool.ts";
import { clusterOptions } from "./local-cluster.ts";
import type { Mistake } from "./mistakes.ts";
import type { ClusterConfiguration, GroupShape, RegistryConfiguration } from "./schema.ts";

/** What parsed; a part with a mistake of its own is absent, and rules that need it are skipped. */
export interface Parts {
  stack: string;
  cluster: ClusterConfiguration | undefined;
  installerImage: string | undefined;
  registry: RegistryConfiguration | undefined;
  groups: ReadonlyMap<string, GroupShape>;
}

/** All mistakes that concern more than one key. */
export function checkRules({ stack, cluster, installerImage, registry, groups }: Parts): Mistake[] {
  const mistakes: Mistake[] = [];
  const mistake = (key: string, message: string) => mistakes.push({ key, message });

  if (cluster?.kind === "local" && !clusterOptions.shape.name.safeParse(stack).success) {
    mistake(
      "cluster.kind",
      `"local" names the cluster after the stack, but "${stack}" is not a lower-case DNS label of at most 30 characters that begins with a letter: rename the stack with pulumi stack rename.`,
    );
  }
  if (cluster && cluster.kind !== "local" && installerImage === "local") {
    mistake(
      "installerImage",
      `"local" is an image for local clusters only. With cluster.kind ${cluster.kind}, name an image by digest: registry/repository@sha256:<64 hex digits>.`,
    );
  }
  if (registry?.prefix !== undefined && installerImage === "local") {
    mistake("registry.prefix", 'has no effect on the image "local". Remove it, or name installerImage by digest.');
  }
  if (registry?.pullSecret !== undefined && !isDockerConfiguration(registry.pullSecret)) {
    mistake(
      "registry.pullSecret",
      '[secret] must be the content of a .dockerconfigjson: {"auths": {"<registry>": {"auth": …}}}.',
    );
  }
  if (registry?.pullSecret !== undefined && cluster?.kind === "yaml") {
    mistake(
      "registry.pullSecret",
      `[secret] would be written into ${cluster.directory} in plain text. Let the nodes' own set-up log in to the registry, and remove it here.`,
    );
  }
  if (registry?.ca !== undefined && ![...groups.values()].some(({ nodes }) => nodes.hosts)) {
    mistake(
      "registry.ca",
      "reaches nodes by SSH only, and no group has nodes.hosts. Let the nodes' own set-up trust it, and remove it here.",
    );
  }
  for (const [name, group] of groups) checkGroup(`groups.${name}`, group, cluster, mistake);
  checkOverlap(groups, mistake);
  return mistakes;
}

type Report = (key: string, message: string) => void;

function checkGroup(key: string, group: GroupShape, cluster: ClusterConfiguration | undefined, mistake: Report): void {
  checkNodes(`${key}.nodes`, group, cluster, mistake);
  const { distribution, runtimes, tolerations, ignoreNodes, minimumNodes } = group;
  const onAks = cluster?.kind === "aks";

  if (onAks && distribution.name !== "aks") {
    mistake(
      `${key}.distribution.name`,
      `"${distribution.name}" is not how the nodes of an AKS cluster run containerd. Allowed with cluster.kind aks: aks.`,
    );
  }

  if (distribution.containerdVersion !== undefined && !isAtLeast(distribution.containerdVersion, "1.7.0")) {
    mistake(
      `${key}.distribution.containerdVersion`,
      `"${distribution.containerdVersion}" is out of support and ignores where a runtime's shim is. Allowed: 1.7.0 and later.`,
    );
  }
  const tees = [...new Set(runtimes.map(({ platform }) => platforms[platform].tee))].filter((tee) => tee !== "none");
  if (tees.length > 1) {
    mistake(
      `${key}.runtimes`,
      `need ${tees.map((tee) => tee.toUpperCase()).join(" and ")}, which no processor has together. Make a group for each.`,
    );
  }
  for (const [i, { platform, overhead }] of runtimes.entries()) {
    if (overhead?.teeKeys && platforms[platform].extendedResource === undefined) {
      mistake(
        `${key}.runtimes[${i}].overhead.teeKeys`,
        `has no effect: nodes of "${platform}" advertise no keys. Remove it.`,
      );
    }
    const isAks = distribution.name === "aks";
    if (platform === "aks-clh-snp" && !isAks && !onAks) {
      mistake(
        `${key}.runtimes[${i}].platform`,
        `"${platform}" runs on AKS only, and the group's distribution is "${distribution.name}". Allowed here: ${metal}.`,
      );
    }
    if (isAks && platforms[platform].host.virtualization === "kvm") {
      mistake(
        `${key}.runtimes[${i}].platform`,
        `"${platform}" needs /dev/kvm, which AKS nodes do not have. Allowed here: aks-clh-snp.`,
      );
    }
  }
  for (const [i, { operator, value, key: taint }] of tolerations.entries()) {
    if (operator === "Exists" && value !== undefined) {
      mistake(
        `${key}.tolerations[${i}].value`,
        `${JSON.stringify(value)} has no meaning with operator "Exists". Remove it, or use "Equal".`,
      );
    }
    if (operator === "Equal" && taint === undefined) {
      mistake(`${key}.tolerations[${i}].key`, 'is missing. Only operator "Exists" tolerates every key.');
    }
  }
  const names = group.nodes.names ?? group.nodes.hosts?.map(({ name }) => name);
  const waitedFor = names?.filter((name) => !ignoreNodes.includes(name)).length ?? group.nodes.pool?.count;
  if (waitedFor !== undefined && minimumNodes > waitedFor) {
    const ignored = names && waitedFor < names.length ? " without those of ignoreNodes" : "";
    mistake(
      `${key}.minimumNodes`,
      `${minimumNodes} is more than the number of nodes that the group lists, ${waitedFor}${ignored}.`,
    );
  }
  for (const [i, node] of ignoreNodes.entries()) {
    if (ignoreNodes.indexOf(node) < i) mistake(`${key}.ignoreNodes[${i}]`, `"${node}" is listed twice.`);
    if (names && !names.includes(node)) {
      mistake(`${key}.ignoreNodes[${i}]`, `"${node}" is not a node of the group. Allowed: ${names.join(", ")}.`);
    }
  }
}

const metal = Object.entries(platforms)
  .filter(([, { host }]) => host.virtualization !== "mshv")
  .map(([name]) => name)
  .join(", ");

function checkNodes(
  key: string,
  { nodes }: GroupShape,
  cluster: ClusterConfiguration | undefined,
  mistake: Report,
): void {
  const ways = (["selector", "names", "hosts", "pool"] as const).filter((way) => nodes[way] !== undefined);
  if (ways.length > 1) mistake(key, `has ${ways.join(" and ")}. Allowed: one of selector, names, hosts, pool.`);

  const { hosts, pool, selector } = nodes;
  for (const [where, labels] of [
    [`${key}.selector`, selector],
    [`${key}.pool.labels`, pool?.labels],
  ] as const) {
    for (const label of Object.keys(labels ?? {}).filter((name) => name.startsWith(handlerLabelPrefix))) {
      mistake(
        `${where}.${label}`,
        "is a label that a node's installer sets once the node serves the handler, and pods follow it there. Remove it.",
      );
    }
  }
  for (const label of Object.keys(pool?.labels ?? {}).filter((name) => name.startsWith("kubernetes.azure.com/"))) {
    mistake(
      `${key}.pool.labels.${label}`,
      "is in a prefix that AKS keeps for itself, and Azure refuses it. Remove it.",
    );
  }
  if (hosts && cluster && cluster.kind !== "kubeconfig") {
    mistake(
      `${key}.hosts`,
      `are reached by SSH, and with cluster.kind ${cluster.kind} nodes are not ours to set up. Use selector or names.`,
    );
  }
  if (hosts && !nodes.ssh)
    mistake(`${key}.ssh`, "is missing. Expected the user and privateKey with which hosts are reached.");
  if (!hosts && nodes.ssh) mistake(`${key}.ssh`, "has no effect without nodes.hosts. Remove it.");
  if (!hosts && nodes.joinCommand !== undefined)
    mistake(`${key}.joinCommand`, "has no effect without nodes.hosts. Remove it.");
  if (pool && cluster && cluster.kind !== "aks") {
    mistake(`${key}.pool`, `is an AKS node pool, and cluster.kind is ${cluster.kind}. Use selector, names or hosts.`);
  }
  if (!pool || cluster?.kind !== "aks") return;
  const managed = (["vmSize", "count", "zones", "maxPods", "labels"] as const).filter(
    (name) => pool[name] !== undefined,
  );
  if (pool.existing && managed.length > 0) {
    mistake(
      `${key}.pool.${managed[0]}`,
      "has no effect on an existing pool, which is used as it is. Remove it, or remove existing.",
    );
  }
  if (pool.existing) return;
  if (pool.vmSize === undefined)
    mistake(
      `${key}.pool.vmSize`,
      "is missing. Expected a size that runs SNP guests, such as Standard_DC4as_cc_v5, or existing: true.",
    );
  if (pool.count === undefined)
    mistake(`${key}.pool.count`, "is missing. Expected the pool's number of nodes, or existing: true.");
  if (cluster.retiredService !== "acknowledged") {
    mistake(
      `${key}.pool`,
      `"${pool.name}" would be created or scaled with KataCcIsolation. Microsoft retired that service and its node images in March 2026: Azure most likely refuses. Use an existing pool (existing: true), or set cluster.retiredService to "acknowledged".`,
    );
  }
}

/** Finds nodes that are in two groups, as far as that can be seen without a cluster. */
function checkOverlap(groups: ReadonlyMap<string, GroupShape>, mistake: Report): void {
  const owners = new Map<string, string>();
  const claim = (thing: string, key: string, group: string, shown: string) => {
    const owner = owners.get(thing);
    if (owner === undefined) owners.set(thing, group);
    else if (owner === group) mistake(key, `${shown} is listed twice.`);
    else mistake(key, `${shown} is already in group ${owner}. A node is in one group only.`);
  };
  for (const [group, { nodes }] of groups) {
    const key = `groups.${group}.nodes`;
    const { names, hosts, pool, selector } = nodes;
    for (const [i, name] of (names ?? []).entries()) claim(`node ${name}`, `${key}.names[${i}]`, group, `"${name}"`);
    for (const [i, { name, address, port }] of (hosts ?? []).entries()) {
      claim(`node ${name}`, `${key}.hosts[${i}].name`, group, `"${name}"`);
      claim(`address ${address}:${port}`, `${key}.hosts[${i}].address`, group, `"${address}"`);
    }
    if (pool) claim(`pool ${pool.name}`, `${key}.pool.name`, group, `"${pool.name}"`);
    for (const [other, { nodes: others }] of groups) {
      if (other === group) break;
      // Two pools are compared by name above.
      if (!(selector ?? others.selector) || !within(labelsOf(nodes), labelsOf(others))) continue;
      mistake(
        `${key}.${selector ? "selector" : "pool"}`,
        `also selects nodes of group ${other}. A node is in one group only.`,
      );
    }
    if (!names && !hosts && !pool && !selector && groups.size > 1) {
      mistake(
        key,
        "is missing. With several groups, each must say which nodes are its own: selector, names, hosts or pool.",
      );
    }
  }
}

const labelsOf = ({ selector, pool }: GroupShape["nodes"]): Record<string, string> =>
  selector ?? (pool ? poolSelector(pool.name) : {});

/** Whether every node with all the labels of one has all those of the other, or vice versa. */
function within(a: Record<string, string>, b: Record<string, string>): boolean {
  const [few, many] = Object.keys(a).length < Object.keys(b).length ? [a, b] : [b, a];
  return Object.keys(few).length > 0 && Object.entries(few).every(([key, value]) => many[key] === value);
}

function isDockerConfiguration(text: string): boolean {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null && "auths" in value;
  } catch {
    return false;
  }
}
