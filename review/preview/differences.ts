export interface Difference {
  path: string;
  before: unknown;
  after: unknown;
  /** The values are secret, or the engine does not show them. */
  isHidden?: boolean;
}

/** Leaves of two trees that differ, by path such as `spec.containers[0].image`. */
export function treeDifferences(before: unknown, after: unknown, path = ""): Difference[] {
  if (isTree(before) && isTree(after) && Array.isArray(before) === Array.isArray(after)) {
    return keysOf(before, after).flatMap((key) =>
      treeDifferences(own(before, key), own(after, key), childPath(path, key, Array.isArray(before))),
    );
  }
  return isSame(before, after, path) ? [] : [{ path, before, after }];
}

/** The same, down to the last leaf of what is only in one of them; a list of plain values is one leaf. */
export function leafDifferences(before: unknown, after: unknown, path = ""): Difference[] {
  const [old, now] = [isNode(before), isNode(after)];
  if (!old && !now) return isSame(before, after, path) ? [] : [{ path, before, after }];
  if (isTree(before) && isTree(after) && Array.isArray(before) !== Array.isArray(after)) {
    return [...leafDifferences(before, undefined, path), ...leafDifferences(undefined, after, path)];
  }
  // A plain value in the place of a tree; an empty tree is the same tree with nothing in it.
  const plain = (value: unknown) => (isTree(value) && (old || now) && !isPlainList(value) ? undefined : value);
  const [from, to] = [plain(before), plain(after)];
  const [tree, other] = [old ? before : {}, now ? after : {}] as [Record<string, unknown>, Record<string, unknown>];
  const isList = Array.isArray(old ? before : after);
  return [
    ...(isSame(from, to, path) ? [] : [{ path, before: from, after: to }]),
    ...keysOf(tree, other).flatMap((key) =>
      leafDifferences(own(tree, key), own(other, key), childPath(path, key, isList)),
    ),
  ];
}

const isPlainList = (value: object) => Array.isArray(value) && value.length > 0 && !value.some(isTree);

const keysOf = (before: object, after: object) => [...new Set([...Object.keys(before), ...Object.keys(after)])].sort();

/** What every object inherits is no value of a document. */
const own = (tree: Record<string, unknown>, key: string) => (Object.hasOwn(tree, key) ? tree[key] : undefined);

/** As the engine writes them: a key that is no plain word stands in brackets, so that no two paths are one text. */
const childPath = (path: string, key: string, isList: boolean): string => {
  if (isList) return `${path}[${key}]`;
  if (!/^[\w$-]+$/.test(key)) return `${path}[${JSON.stringify(key)}]`;
  return path === "" ? key : `${path}.${key}`;
};

/** Whether a path is another, or below it. */
export const isBelow = (path: string, parent: string): boolean =>
  parent === "" || path === parent || (path.startsWith(parent) && /[.[]/.test(path[parent.length] ?? ""));

function isSame(before: unknown, after: unknown, path: string): boolean {
  const plain = (value: unknown) => (value === null || isLeftOut(value, path) ? undefined : value);
  return JSON.stringify(plain(before)) === JSON.stringify(plain(after));
}

/**
 * What Kubernetes leaves out, and so does a refreshed state, because it is what counts without it, too. Of other fields
 * that is not so: a service account without `automountServiceAccountToken: false` has its token mounted.
 */
function isLeftOut(value: unknown, path: string): boolean {
  if (value === false) return /(^|\.)(hostIPC|hostNetwork|hostPID|privileged|readOnly|stdin|tty)$/.test(path);
  if (!isTree(value) || Object.keys(value).length > 0) return false;
  // Of a provider: what the engine is told of its plugin.
  if (path === "__internal") return true;
  return /(^|\.)(tolerations|imagePullSecrets|matchConstraints\.(namespaceSelector|objectSelector)|metadata\.(labels|annotations))$/.test(
    path,
  );
}

const isTree = (value: unknown): value is Record<string, unknown> => typeof value === "object" && value !== null;

const isNode = (value: unknown): value is Record<string, unknown> =>
  isTree(value) && (Array.isArray(value) ? value.some(isTree) : Object.keys(value).length > 0);
