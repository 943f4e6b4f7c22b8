import { handlerLabel, handlerLabelPrefix } from "../../runtime/names.ts";
import type { NodeObject } from "./node.ts";

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
