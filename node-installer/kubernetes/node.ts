import type { Api } from "./api.ts";

/** The part of a Node object that an installer looks at. */
export interface NodeObject {
  metadata: {
    name: string;
    uid: string;
    resourceVersion?: string;
    labels?: Record<string, string>;
    annotations?: Record<string, string>;
  };
  spec?: { taints?: { key: string; effect?: string }[] };
  status?: { conditions?: NodeCondition[] };
}

interface NodeCondition {
  type: string;
  /** "True", "False", or "Unknown" once the kubelet has been silent for too long. */
  status: string;
  reason?: string;
  message?: string;
  lastHeartbeatTime?: string;
}

/** What the kubelet, or the control plane on its behalf, says about the node as a whole. */
export interface NodeReadiness {
  ready: boolean;
  /** `KubeletNotReady: container runtime network not ready: …` */
  reason: string;
  /** When the kubelet last checked, by the node's clock, in whole seconds. */
  heartbeat: Date | undefined;
}

/** undefined for a node that no kubelet has reported on yet. */
export function readinessOf(node: NodeObject): NodeReadiness | undefined {
  const condition = node.status?.conditions?.find(({ type }) => type === "Ready");
  if (condition === undefined) return undefined;
  const { status, reason, message, lastHeartbeatTime } = condition;
  return {
    ready: status === "True",
    reason: [reason, message].filter(Boolean).join(": ") || `Ready is ${status}`,
    heartbeat: lastHeartbeatTime === undefined ? undefined : new Date(lastHeartbeatTime),
  };
}

export const nodePath = (name: string): string => `/api/v1/nodes/${encodeURIComponent(name)}`;

/**
 * Reads the node by an empty patch. The installer's role has no `get` on nodes, because RBAC cannot narrow that to one
 * node and admission does not see reads; a patch, even one that changes nothing, has to pass the admission policy.
 */
export const readOwnNode = (api: Api, name: string): Promise<NodeObject> =>
  api.mergePatch<NodeObject>(nodePath(name), {});

export const patchOwnNode = (
  api: Api,
  name: string,
  metadata: { labels?: Record<string, string | null>; annotations?: Record<string, string | null> },
): Promise<NodeObject> => api.mergePatch<NodeObject>(nodePath(name), { metadata });
