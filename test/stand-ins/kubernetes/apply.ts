import { isObject, type Properties, type Value } from "../values.ts";
import { ApiError, type Cluster, type Target } from "./cluster.ts";
import { nameOf } from "./objects.ts";

export interface ApplyOptions {
  manager: string;
  /** Takes over fields from other managers instead of failing. */
  force: boolean;
  serverSide: boolean;
  dryRun: boolean;
}

/** Changes an existing object. @throws ApiError @throws Error for a conflict with another field manager */
export async function applyObject(
  cluster: Cluster,
  target: Target,
  inputs: Properties,
  oldInputs: Properties,
  { manager, force, serverSide, dryRun }: ApplyOptions,
): Promise<Properties> {
  const name = nameOf(inputs);
  const query: Record<string, string> = { fieldManager: manager };
  if (dryRun) query.dryRun = "All";
  if (!serverSide)
    return await cluster.patch(target, name, "application/merge-patch+json", mergePatch(oldInputs, inputs), query);
  const apply = (forced: boolean) =>
    cluster.patch(target, name, "application/apply-patch+yaml", inputs, { ...query, force: `${forced}` });
  const neverApplied = await adoptFields(cluster, target, name, manager, dryRun);
  try {
    // A dry run cannot adopt what a plain create recorded, so that it says nothing of others' fields either.
    return await apply(force || (dryRun && neverApplied));
  } catch (error) {
    if (!(error instanceof ApiError) || error.code !== 409) throw error;
    throw new Error(
      `Server-Side Apply field conflict detected: the resource managed by field manager "${manager}" had an apply conflict: ${error.message}`,
    );
  }
}

/** The manager of every plain create; an apply has one with a random ending. */
export const creator = "pulumi-kubernetes";

/**
 * Fields that a plain create recorded, and those of every manager whose name begins with "kubectl", become the manager's
 * own: what kubectl changed is overruled without a word.
 *
 * @returns whether the object was never applied, but is as it was created
 */
async function adoptFields(
  cluster: Cluster,
  target: Target,
  name: string,
  manager: string,
  dryRun: boolean,
): Promise<boolean> {
  const { metadata } = await cluster.get(target, name);
  const fields = isObject(metadata) && Array.isArray(metadata.managedFields) ? metadata.managedFields : [];
  const isAdopted = (entry: Value): entry is Properties =>
    isObject(entry) && !entry.subresource && (entry.manager === creator || `${entry.manager}`.startsWith("kubectl"));
  const isOwn = (entry: Value) => isObject(entry) && entry.manager === manager && entry.operation === "Apply";
  const neverApplied = !fields.some(isOwn);
  if (dryRun || !isObject(metadata) || !fields.some(isAdopted)) return neverApplied;
  const adopted = fields.filter((entry) => !isAdopted(entry));
  const [first] = fields.filter(isAdopted);
  if (neverApplied && first) adopted.push({ ...first, manager, operation: "Apply" });
  await cluster.patch(target, name, "application/json-patch+json", [
    { op: "test", path: "/metadata/resourceVersion", value: metadata.resourceVersion ?? null },
    { op: "replace", path: "/metadata/managedFields", value: adopted },
  ]);
  return neverApplied;
}

/** RFC 7386: what must be merged into the old value to get the new one. */
function mergePatch(old: Properties, next: Properties): Properties {
  const patch: Properties = {};
  for (const key of Object.keys(old)) if (next[key] === undefined) patch[key] = null;
  for (const [key, value] of Object.entries(next)) {
    const before = old[key];
    if (isObject(before) && isObject(value)) {
      const inner = mergePatch(before, value);
      if (Object.keys(inner).length > 0) patch[key] = inner;
    } else if (JSON.stringify(before) !== JSON.stringify(value)) patch[key] = value;
  }
  return patch;
}
