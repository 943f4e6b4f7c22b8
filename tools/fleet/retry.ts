import { retryAnnotation } from "../../runtime/names.ts";
import { each, type FleetApi } from "./api.ts";
import type { Fleet } from "./observe.ts";
import { patchNode } from "./patch.ts";

/**
 * Installers do not retry on their own what has failed. Somebody who runs the update again does want a retry, so the
 * failed nodes are told to, and what they reported before no longer counts.
 */
export async function askForRetries(api: FleetApi, fleet: Fleet, specHash: string): Promise<Map<string, string>> {
  const token = new Date().toISOString();
  const failed = fleet.nodes.filter(({ status }) => status?.state === "failed" && status.specHash === specHash);
  await each(failed, ({ name }) => patchNode(api, name, { annotations: { [retryAnnotation(fleet.group)]: token } }));
  return new Map(failed.map(({ name }) => [name, token]));
}
