import type { Diff, DiffKind } from "./plugin.ts";
import { equal, isObject, isSecret, type Properties, pathText, reveal, type Value } from "./values.ts";

/** The leaves that differ, by path. A change below one of the `replacing` properties replaces the resource. */
export function inputChanges(olds: Properties, news: Properties, replacing: string[]): Diff["changes"] {
  const changes: Diff["changes"] = new Map();
  const compare = (path: (string | number)[], old: Value | undefined, next: Value | undefined): void => {
    if (equal(old, next)) return;
    const isNested = !isSecret(old) && !isSecret(next);
    if (isNested && Array.isArray(old) && Array.isArray(next)) {
      for (let i = 0; i < Math.max(old.length, next.length); i++) compare([...path, i], old[i], next[i]);
    } else if (isNested && isObject(old) && isObject(next)) {
      for (const key of new Set([...Object.keys(old), ...Object.keys(next)]))
        compare([...path, key], old[key], next[key]);
    } else if (old === undefined || next === undefined || !equal(reveal(old), reveal(next))) {
      const kind: DiffKind = old === undefined ? "add" : next === undefined ? "delete" : "update";
      changes.set(pathText(path), { kind, replace: replacing.includes(String(path[0])) });
    }
  };
  for (const key of new Set([...Object.keys(olds), ...Object.keys(news)])) compare([key], olds[key], news[key]);
  return changes;
}
