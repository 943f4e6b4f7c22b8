/** Nodes that a group no longer selects: their installers are gone, and what those installed is still there. */
import { systemNamespace } from "../../runtime/names.ts";
import type { Fleet, FleetNode } from "./observe.ts";

/**
 * What is still on a node that left its group; undefined if nothing is. While the DaemonSet's controller has not created
 * all pods, a node without a pod may still belong to the group.
 */
export function leftOn({ selected, status }: FleetNode, { settled }: Fleet): string | undefined {
  if (!settled || selected || status === undefined) return undefined;
  if (status.handlers.length > 0) return status.handlers.join(", ");
  return ["working", "waiting", "blocked"].includes(status.state) ? "what its installer had begun" : undefined;
}

/** What the user can do about it, as the end of a sentence. */
export function remedy({ namespace, group }: Pick<Fleet, "namespace" | "group">, node: string): string {
  const where = namespace === systemNamespace ? "" : ` --namespace ${namespace}`;
  return `put it back into the group, or run: npx contrast-runtime uninstall${where} --group ${group} --nodes ${node}`;
}
