import { isStatus } from "../../node-installer/kubernetes/api.ts";
import type { FleetApi } from "./api.ts";

/** Annotations and labels to set; null removes one. */
interface NodeMetadata {
  annotations: Record<string, string | null>;
  labels?: Record<string, string | null>;
}

/** A node that is gone needs nothing changed. */
export const patchNode = (
  api: FleetApi,
  name: string,
  metadata: NodeMetadata,
  options: { check?: true } = {},
): Promise<void> =>
  api.mergePatch(`/api/v1/nodes/${name}`, { metadata }, options).catch((error: unknown) => {
    if (!isStatus(error, 404)) throw error;
  });
