import type { PlatformName } from "../../runtime/spec.ts";
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
  }[];
}

/** Mistakes across runtimes: one listed twice in a group, or with two overheads. */
export function checkRuntimes(lists: readonly RuntimeList[]): Mistake[] {
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
