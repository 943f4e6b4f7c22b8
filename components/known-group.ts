import type * as pulumi from "@pulumi/pulumi";
import type * as z from "zod";
import type { aksCocoNodePoolArgs } from "./aks-coco-node-pool.ts";
import { known } from "./arguments.ts";
import { defaults } from "./config/defaults.ts";
import type { Derived, GivenRuntime } from "./config/derivation.ts";
import { at, type GroupPart, type Terms, ways } from "./config/group-part.ts";
import type { RuntimeList } from "./config/runtime-rules.ts";
import type { CheckedGroup } from "./group.ts";
import type { overheadArgs } from "./runtime-classes.ts";

/* Groups among a component's arguments as the rules see them, which are those of stacks: by what is known of them now. */

/** What arguments call the keys of a group's nodes. */
const terms: Terms = {
  nodes: "",
  missing: "nodeSelector",
  paths: { selector: "nodeSelector", names: "nodeNames", hosts: "ssh.hosts", pool: "pool", poolName: "pool.pool" },
  words: { selector: "nodeSelector", names: "nodeNames", hosts: "ssh", pool: "pool" },
};
/** Where nodes are neither made nor prepared. */
const termsOfInstaller: Terms = { ...terms, words: { selector: "nodeSelector", names: "nodeNames" } };
/** Where the hosts are all that there is. */
const termsOfHosts: Terms = { ...terms, paths: { ...terms.paths, hosts: "hosts" } };

type Hosts = readonly { name: string; address: pulumi.Input<string>; port: pulumi.Input<number> }[];

interface Group extends CheckedGroup {
  runtimes: (Pick<GivenRuntime, "platform" | "kata"> & {
    overhead?: z.output<typeof overheadArgs>;
    classNames?: string[] | undefined;
    currentFor?: string[] | undefined;
  })[];
  pool?: z.output<typeof aksCocoNodePoolArgs> | undefined;
  ssh?: { hosts: Hosts } | undefined;
}

export const groupAmong = (group: Group, i: number): GroupPart => part(group, `groups[${i}]`, terms);

export const onlyGroup = (group: Group): GroupPart => part(group, "", termsOfInstaller);

function part(group: Group, key: string, terms: Terms): GroupPart {
  const { nodeSelector, nodeNames, ssh, pool, distribution, runtimes, ignoreNodes } = group;
  const given = { selector: nodeSelector, names: nodeNames, hosts: ssh, pool };
  return {
    name: group.group,
    formerly: group.formerly,
    key,
    terms,
    used: ways.filter((way) => given[way] !== undefined),
    nodes: {
      selector: known(nodeSelector),
      names: known(nodeNames),
      hosts: ssh && knownHosts(ssh.hosts),
      pool: pool && { name: pool.pool, count: known(pool.count), labels: known(pool.labels) },
    },
    distribution,
    runtimes: runtimes.map(({ platform, overhead, kata }) => ({ platform, overhead: known(overhead), kata })),
    tolerations: known(group.tolerations),
    minimumNodes: known(group.minimumNodes),
    ignoreNodes,
    verifySandbox: group.verifySandbox,
    stallTimeout: known(group.stallTimeout),
  };
}

const knownHosts = (hosts: Hosts) =>
  hosts.map(({ name, address, port }) => ({ name, address: known(address), port: known(port) }));

/** Hosts that are all that a component has. */
export const onlyHosts = (hosts: Hosts) => ({
  name: "",
  key: "",
  terms: termsOfHosts,
  nodes: { hosts: knownHosts(hosts) },
});

/** A group's runtimes, once they are derived. */
export const runtimesOf = (
  group: Pick<GroupPart, "name" | "key">,
  runtimes: Derived<GivenRuntime & Group["runtimes"][number]>[],
): RuntimeList => ({
  name: group.name,
  key: at(group, "runtimes"),
  runtimes: runtimes.map(({ platform, manifest, spec, given }) => ({
    handler: spec.handler,
    platform,
    payload: manifest.name,
    overhead: known(given.overhead ?? { teeKeys: defaults.teeKeys }),
    classNames: given.classNames,
    currentFor: given.currentFor,
  })),
});
