import type { Api } from "./api.ts";

/** The part of a Node object that an installer looks at. */
export interface NodeObject {
  metadata: {
    name: string;
    uid: string;
    labels?: Record<string, string>;
    annotations?: Record<string, string>;
  };
}

const nodePath = (name: string): string => `/api/v1/nodes/${encodeURIComponent(name)}`;

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
