import { poolSelector } from "../aks-coco-node-pool.ts";
import type { Mistake } from "./mistakes.ts";
import type { GroupShape } from "./schema.ts";

type Nodes = GroupShape["nodes"];
type Groups = ReadonlyMap<string, GroupShape>;

/** Finds nodes that are in two groups, as far as that can be seen without a cluster. */
export function checkOverlap(groups: Groups): Mistake[] {
  return [...listedTwice(groups), ...selectedTwice(groups), ...unselected(groups)];
}

function* listedTwice(groups: Groups): Iterable<Mistake> {
  const owners = new Map<string, string>();
  for (const [group, { nodes }] of groups) {
    for (const { thing, key, shown } of claims(nodes)) {
      const owner = owners.get(thing);
      if (owner === undefined) owners.set(thing, group);
      else
        yield {
          key: `groups.${group}.nodes.${key}`,
          message:
            owner === group
              ? `"${shown}" is listed twice.`
              : `"${shown}" is already in group ${owner}. A node is in one group only.`,
        };
    }
  }
}

/** What a group names, each of which only one group may have: nodes, hosts' addresses, pools. */
function claims({ names = [], hosts = [], pool }: Nodes): { thing: string; key: string; shown: string }[] {
  return [
    ...names.map((name, i) => ({ thing: `node ${name}`, key: `names[${i}]`, shown: name })),
    ...hosts.flatMap(({ name, address, port }, i) => [
      { thing: `node ${name}`, key: `hosts[${i}].name`, shown: name },
      { thing: `address ${address}:${port}`, key: `hosts[${i}].address`, shown: address },
    ]),
    ...(pool ? [{ thing: `pool ${pool.name}`, key: "pool.name", shown: pool.name }] : []),
  ];
}

function* selectedTwice(groups: Groups): Iterable<Mistake> {
  for (const [group, { nodes }] of groups) {
    for (const [other, { nodes: others }] of groups) {
      if (other === group) break;
      // Two pools are compared by name.
      if (!(nodes.selector ?? others.selector) || !within(labelsOf(nodes), labelsOf(others))) continue;
      yield {
        key: `groups.${group}.nodes.${nodes.selector ? "selector" : "pool"}`,
        message: `also selects nodes of group ${other}. A node is in one group only.`,
      };
    }
  }
}

function* unselected(groups: Groups): Iterable<Mistake> {
  if (groups.size < 2) return;
  for (const [group, { nodes }] of groups) {
    if (nodes.names || nodes.hosts || nodes.pool || nodes.selector) continue;
    yield {
      key: `groups.${group}.nodes`,
      message:
        "is missing. With several groups, each must say which nodes are its own: selector, names, hosts or pool.",
    };
  }
}

const labelsOf = ({ selector, pool }: Nodes): Record<string, string> =>
  selector ?? (pool ? poolSelector(pool.name) : {});

/** Whether every node with all the labels of one has all those of the other, or vice versa. */
function within(a: Record<string, string>, b: Record<string, string>): boolean {
  const [few, many] = Object.keys(a).length < Object.keys(b).length ? [a, b] : [b, a];
  return Object.keys(few).length > 0 && Object.entries(few).every(([key, value]) => many[key] === value);
}
