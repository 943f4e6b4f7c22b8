import { type Difference, isBelow, leafDifferences } from "./differences.ts";
import type { Inputs } from "./inputs.ts";
import type { Step } from "./step.ts";

/**
 * Everything that one step changes: its own operation as `(create)`, each leaf of its inputs, its options as `options.…`,
 * and paths whose values the engine does not show. An update that shows nothing at all has one leaf without a path.
 */
export function changesOf(step: Step): Difference[] {
  const { op, before, after, options, paths, type } = step;
  // What goes says nothing more; what it runs when it goes is in the commands' own line.
  const leaves =
    op === "delete" ? [] : leafDifferences(before ?? {}, after ?? {}).filter((leaf) => !isImplied(step, leaf));
  const told = leafDifferences(options.before, options.after, "options");
  const named = paths.filter((path) => !isInput(path, leaves));
  const hidden = [...new Set(named)].map((path) => {
    const [from, to] = [valueAt(before, path), valueAt(after, path)];
    const isShown = JSON.stringify(from) !== JSON.stringify(to);
    return isShown ? { path, before: from, after: to } : { path, before: undefined, after: undefined, isHidden: true };
  });
  const all = [...leaves, ...hidden, ...told].map((leaf) =>
    isSecret(type, leaf.path) ? { ...leaf, isHidden: true } : leaf,
  );
  if (op !== "update" && op !== "same") return [{ path: `(${op})`, before: undefined, after: undefined }, ...all];
  return all.length > 0 ? all : [{ path: "", before: undefined, after: undefined, isHidden: true }];
}

/** Whether a path that the engine names is one of these leaves, or above or below one. It quotes keys in its own ways. */
function isInput(path: string, leaves: Difference[]): boolean {
  const plain = (text: string) => text.replaceAll(/\["([^"\\]*)"\]/g, ".$1").replaceAll(/\[(\d+)\]/g, ".$1");
  const named = plain(path);
  return leaves.some((leaf) => {
    const own = plain(leaf.path);
    return isBelow(own, named) || isBelow(named, own);
  });
}

function valueAt(inputs: Inputs | undefined, path: string): unknown {
  const keys = path.match(/[^.[\]"]+/g) ?? [];
  return keys.reduce<unknown>(
    (value, key) =>
      typeof value === "object" && value !== null && Object.hasOwn(value, key) ? (value as Inputs)[key] : undefined,
    inputs,
  );
}

/** What type and name say already: of an object of Kubernetes its version, its kind, and what its name is made of. */
function isImplied({ type, name }: Step, { path, before, after }: Difference): boolean {
  const [, group = "", version, kind] = /^kubernetes:([^/:]+)\/([^/:]+):([^/:]+)$/.exec(type) ?? [];
  if (before !== undefined || kind === undefined) return false;
  if (path === "kind") return after === kind;
  if (path === "metadata.name") return after === name.split("/").at(-1);
  if (path === "metadata.namespace") return name.startsWith(`${after}/`);
  return path === "apiVersion" && after === (group === "core" ? version : `${group}/${version}`);
}

/** Of what Kubernetes or a provider keeps secret, whether or not the program says so. */
function isSecret(type: string, path: string): boolean {
  if (/^kubernetes:core\/v1:Secret(Patch)?$/.test(type)) return /^(data|stringData)(\.|\[|$)/.test(path);
  if (type === "kubernetes:core/v1:SecretList") return /^items\[\d+\]\.(data|stringData)(\.|\[|$)/.test(path);
  return type === "pulumi:providers:kubernetes" && path === "kubeconfig";
}
