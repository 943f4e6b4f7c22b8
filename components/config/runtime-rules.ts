import type { PlatformName } from "../../runtime/spec.ts";
import { mistakesOfClassNames, nameLists } from "./class-names.ts";
import type { Mistake } from "./mistakes.ts";

/** A group's runtimes, as they were derived. */
export interface RuntimeList {
  /** The group's name. */
  name: string;
  /** Where the list stands. */
  key: string;
  runtimes: readonly {
    handler: string;
    platform: PlatformName;
    /** The manifest's name. */
    payload: string;
    /** Absent if it is not known yet. */
    overhead?: { memory?: string | undefined; cpu?: string | undefined; teeKeys: boolean } | undefined;
    classNames?: readonly string[] | undefined;
    currentFor?: readonly string[] | undefined;
  }[];
}

/** Mistakes across runtimes: one listed twice in a group, with two overheads, or with names that it cannot have. */
export function checkRuntimes(lists: readonly RuntimeList[]): Mistake[] {
  return [...repetitions(lists), ...names(lists)];
}

/** A handler's names are the cluster's, so that every group that has it says the same. */
function names(lists: readonly RuntimeList[]): Mistake[] {
  const all = lists.flatMap(({ name, key, runtimes }) =>
    runtimes.map(({ handler, classNames = [], currentFor = [] }, i) => ({
      group: name,
      at: `${key}[${i}]`,
      handler,
      classNames,
      currentFor,
    })),
  );
  const first = [...new Map(all.toReversed().map((one) => [one.handler, one])).values()].reverse();
  const differing = all.flatMap((named): Mistake[] => {
    const { handler, at } = named;
    const other = first.find((one) => one.handler === handler);
    if (other === undefined) return [];
    const message = `gives ${handler} other names than group ${other.group}. A RuntimeClass is there for the whole cluster: list the same names in both.`;
    return nameLists
      .filter((list) => !isSame(named[list], other[list]))
      .map((list) => ({ key: `${at}.${list}`, message }));
  });
  const wrong = mistakesOfClassNames(first).map(({ index, list, place, message }) => ({
    key: `${first[index]?.at}.${list}[${place}]`,
    message: `"${first[index]?.[list][place]}" ${message}.`,
  }));
  return [...differing, ...wrong];
}

const isSame = (a: readonly string[], b: readonly string[]): boolean =>
  JSON.stringify(a.toSorted()) === JSON.stringify(b.toSorted());

function repetitions(lists: readonly RuntimeList[]): Mistake[] {
  const mistakes: Mistake[] = [];
  const overheads = new Map<string, { group: string; overhead: string }>();
  for (const { name, key, runtimes } of lists) {
    const seen = new Set<string>();
    for (const { platform, payload, handler, overhead } of runtimes) {
      if (seen.has(handler))
        mistakes.push({ key, message: `lists ${handler} (${platform}, ${payload}) twice. Remove one.` });
      seen.add(handler);
      if (overhead === undefined) continue;
      const own = JSON.stringify([overhead.memory, overhead.cpu, overhead.teeKeys]);
      const other = overheads.get(handler);
      if (other && other.overhead !== own) {
        mistakes.push({
          key,
          message: `gives ${handler} a different overhead than group ${other.group}. A handler has one RuntimeClass, and that has one overhead.`,
        });
      }
      overheads.set(handler, { group: name, overhead: own });
    }
  }
  return mistakes;
}
