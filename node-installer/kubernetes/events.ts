import { sha256 } from "../../runtime/canonical.ts";
import { printable } from "../../runtime/printable.ts";
import { type Api, isStatus } from "./api.ts";

/** Events about cluster-scoped objects live in this namespace; the API refuses them elsewhere. */
export const eventNamespace = "default";
export const eventComponent = "contrast-installer";

export interface NodeEvent {
  type: "Normal" | "Warning";
  /** CamelCase, stable, such as "RuntimeReady". */
  reason: string;
  message: string;
}

interface EventObject {
  count?: number;
}

export const maxMessage = 1024;
const path = `/api/v1/namespaces/${eventNamespace}/events`;

/**
 * Records an Event on the node. Its name is a digest of what it says, so repeating it only raises its count, even
 * after the installer has restarted.
 */
export async function recordEvent(
  api: Api,
  node: { name: string; uid: string },
  event: NodeEvent,
  time: Date,
): Promise<void> {
  const message = printable(event.message, maxMessage);
  const identity = JSON.stringify([node.name, node.uid, event.reason, message]);
  const name = `${eventComponent}.${sha256(identity).slice(0, 16)}`;
  const now = time.toISOString().replace(/\.\d{3}Z$/, "Z");
  try {
    await api.create(path, {
      apiVersion: "v1",
      kind: "Event",
      metadata: { name, namespace: eventNamespace },
      involvedObject: { apiVersion: "v1", kind: "Node", name: node.name, uid: node.uid },
      type: event.type,
      reason: event.reason,
      message,
      count: 1,
      firstTimestamp: now,
      lastTimestamp: now,
      source: { component: eventComponent, host: node.name },
      reportingComponent: eventComponent,
      reportingInstance: node.name,
    });
  } catch (error) {
    if (!isStatus(error, 409)) throw error;
    // Read by an empty patch for the reason given in node.ts: an installer has no right to read other nodes' Events.
    const existing = await api.mergePatch<EventObject>(`${path}/${name}`, {});
    await api.mergePatch(`${path}/${name}`, { count: (existing.count ?? 1) + 1, lastTimestamp: now });
  }
}
