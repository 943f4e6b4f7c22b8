import { poolSelector } from "../../runtime/names.ts";
import { at, type GroupPart, type Labels, listed } from "./group-part.ts";
import type { Mistake } from "./mistakes.ts";

/** Finds what is listed twice, and nodes that are in two groups, as far as that can be seen without a cluster. */
export const checkOverlap = (groups: readonly GroupPart[]): Mistake[] => [
  ...namedTwice(groups),
  ...stillThere(groups),
  ...listedTwice(groups),
  ...selectedTwice(groups),
  ...unselected(groups),
];

function* namedTwice(groups: readonly GroupPart[]): Iterable<Mistake> {
  for (const [i, group] of groups.entries()) {
    const first = groups.findIndex(({ name }) => name === group.name);
    if (first < i) yield { key: at(group, "group"), message: `${JSON.stringify(group.name)} is listed twice.` };
  }
}

function* stillThere(groups: readonly GroupPart[]): Iterable<Mistake> {
  for (const group of groups) {
    const { name, formerly } = group;
    if (!groups.some((other) => other.name === formerly)) continue;
    yield {
      key: at(group, "formerly"),
      message:
        formerly === name
          ? `"${formerly}" is the group's name of now. Remove it.`
          : `"${formerly}" is also a group of its own. A group that is renamed goes by its new name alone: remove "${formerly}" in this update; another group of that name can come in the next.`,
    };
  }
}

type Listing = Pick<GroupPart, "name" | "key" | "terms" | "nodes">;

export function* listedTwice(groups: readonly Listing[]): Iterable<Mistake> {
  const owners = new Map<string, Listing>();
  for (const group of groups) {
    for (const { thing, path, shown } of claims(group)) {
      const owner = owners.get(thing);
      if (owner === undefined) owners.set(thing, group);
      else
        yield {
          key: at(group, path),
          message:
            owner === group
              ? `"${shown}" is listed twice.`
              : `"${shown}" is already in group ${owner.name}. A node is in one group only.`,
        };
    }
  }
}

/** What a group names, each of which only one group may have: nodes, hosts' addresses, pools. */
function claims({ nodes, terms: { paths } }: Listing): { thing: string; path: string; shown: string }[] {
  const { names = [], hosts = [], pool } = nodes;
  return [
    ...names.map((name, i) => ({ thing: `node ${name}`, path: `${paths.names}[${i}]`, shown: name })),
    ...hosts.flatMap(({ name, address, port }, i) => [
      { thing: `node ${name}`, path: `${paths.hosts}[${i}].name`, shown: name },
      ...(address !== undefined && port !== undefined
        ? [{ thing: `address ${address}:${port}`, path: `${paths.hosts}[${i}].address`, shown: address }]
        : []),
    ]),
    ...(pool ? [{ thing: `pool ${pool.name}`, path: paths.poolName, shown: pool.name }] : []),
  ];
}

function* selectedTwice(groups: readonly GroupPart[]): Iterable<Mistake> {
  for (const [i, group] of groups.entries()) {
    const { nodes, terms } = group;
    for (const { name, nodes: others } of groups.slice(0, i)) {
      // Two pools are compared by name.
      if (!(nodes.selector ?? others.selector) || !within(labelsOf(nodes), labelsOf(others))) continue;
      yield {
        key: at(group, nodes.selector ? terms.paths.selector : terms.paths.pool),
        message: `also selects nodes of group ${name}. A node is in one group only.`,
      };
    }
  }
}

function* unselected(groups: readonly GroupPart[]): Iterable<Mistake> {
  if (groups.length < 2) return;
  for (const group of groups) {
    if (group.used.length > 0) continue;
    yield {
      key: at(group, group.terms.missing),
      message: `is missing. With several groups, each must say which nodes are its own: ${listed(group.terms, " or ")}.`,
    };
  }
}

const labelsOf = ({ selector, pool }: GroupPart["nodes"]): Labels => selector ?? (pool ? poolSelector(pool.name) : {});

/** Whether every node with all the labels of one has all those of the other, or vice versa. */
function within(a: Labels, b: Labels): boolean {
  const [few, many] = Object.keys(a).length < Object.keys(b).length ? [a, b] : [b, a];
  return Object.keys(few).length > 0 && Object.entries(few).every(([key, value]) => many[key] === value);
}
