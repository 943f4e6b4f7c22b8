export interface Leaf {
  path: string;
  before: unknown;
  after: unknown;
}

/** Leaves of two trees that differ, by path such as `spec.containers[0].image`. */
export function leafChanges(before: unknown, after: unknown, path = ""): Leaf[] {
  if (isTree(before) && isTree(after) && Array.isArray(before) === Array.isArray(after)) {
    const keys = [...new Set([...Object.keys(before), ...Object.keys(after)])].sort();
    const child = (key: string) => (Array.isArray(before) ? `${path}[${key}]` : path === "" ? key : `${path}.${key}`);
    return keys.flatMap((key) => leafChanges(before[key], after[key], child(key)));
  }
  return JSON.stringify(plain(before)) === JSON.stringify(plain(after)) ? [] : [{ path, before, after }];
}

/** Kubernetes leaves out what is false or empty, and so does a refreshed state. */
const plain = (value: unknown): unknown =>
  value === false || value === null || (isTree(value) && Object.keys(value).length === 0) ? undefined : value;

const isTree = (value: unknown): value is Record<string, unknown> => typeof value === "object" && value !== null;

/** What a list holds; of a list that only the update will know, the text that stands for it. */
export const items = <T = unknown>(value: unknown): T[] =>
  (Array.isArray(value) ? value : value === undefined || value === null ? [] : [value]) as T[];
