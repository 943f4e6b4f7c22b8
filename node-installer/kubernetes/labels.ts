import { handlerLabel, handlerLabelPrefix } from "../../runtime/names.ts";
import type { Api } from "./api.ts";
import { type NodeObject, patchOwnNode, readOwnNode } from "./node.ts";

/** The changes that make the node's handler labels exactly `handlers`; everything else on the node stays as it is. */
export function labelChanges(node: NodeObject, handlers: readonly string[]): Record<string, string | null> {
  const wanted = new Set(handlers.map(handlerLabel));
  const changes: Record<string, string | null> = {};
  for (const key of Object.keys(node.metadata.labels ?? {})) {
    if (key.startsWith(handlerLabelPrefix) && !wanted.has(key)) changes[key] = null;
  }
  for (const key of wanted) if (node.metadata.labels?.[key] !== "true") changes[key] = "true";
  return changes;
}

/**
 * Makes the labels of the node exactly those of `handlers`, which a RuntimeClass's node selector asks for. Labels outlive
 * re-imaged disks, so what the node carries is read every time. Nothing is written if nothing changes.
 */
export async function setServedLabels(api: Api, nodeName: string, handlers: readonly string[]): Promise<void> {
  const labels = labelChanges(await readOwnNode(api, nodeName), handlers);
  if (Object.keys(labels).length > 0) await patchOwnNode(api, nodeName, { labels });
}
