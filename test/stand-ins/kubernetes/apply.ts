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
  if (!dryRun) await adoptOwnFields(cluster, target, name, manager);
  try {
    return await apply(force);
  } catch (error) {
    if (!(error instanceof ApiError) || error.code !== 409) throw error;
    // A dry run conflicts with the fields of our own plain create, which a real apply adopts first.
    const others = [...error.message.matchAll(/conflicts? with "([^"]+)"/g)].filter(([, other]) => other !== manager);
    if (dryRun && others.length === 0) return await apply(true);
    throw new Error(
      `Server-Side Apply field conflict detected. Set the "pulumi.com/patchForce" annotation to take the fields over: the resource managed by field manager "${manager}" had an apply conflict: ${error.message}`,
    );
  }
}

/**
 * A plain create records its fields as an update by this manager, and an apply by the same manager would not remove any of
 * those. So they are turned into the manager's applied fields first.
 */
async function adoptOwnFields(cluster: Cluster, target: Target, name: string, manager: string): Promise<void> {
  const { metadata } = await cluster.get(target, name);
  const fields = isObject(metadata) && Array.isArray(metadata.managedFields) ? metadata.managedFields : [];
  const isOwnUpdate = (entry: Value) =>
    isObject(entry) && entry.manager === manager && entry.operation === "Update" && !entry.subresource;
  if (!isObject(metadata) || !fields.some(isOwnUpdate)) return;
  const hasApplied = fields.some(
    (entry) => isObject(entry) && entry.manager === manager && entry.operation === "Apply",
  );
  const adopted = hasApplied
    ? fields.filter((entry) => !isOwnUpdate(entry))
    : fields.map((entry) => (isOwnUpdate(entry) ? { ...(entry as Properties), operation: "Apply" } : entry));
  await cluster.patch(target, name, "application/json-patch+json", [
    { op: "test", path: "/metadata/resourceVersion", value: metadata.resourceVersion ?? null },
    { op: "replace", path: "/metadata/managedFields", value: adopted },
  ]);
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
