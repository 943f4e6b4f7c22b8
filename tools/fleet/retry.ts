import type { KubeConfig } from "@kubernetes/client-node";
import { retryAnnotation } from "../../node-installer/kubernetes/names.ts";
import type { Fleet } from "./observe.ts";
import { patchNodeAnnotations } from "./patch.ts";

/**
 * Installers do not try what failed a second time by themselves. Somebody who runs the update again does want that, so
 * their nodes are told so, and what they said before does not count.
 */
export async function askForRetries(
  kubeconfig: KubeConfig,
  fleet: Fleet,
  specHash: string,
): Promise<Map<string, string>> {
  const token = new Date().toISOString();
  const failed = fleet.nodes.filter(({ status }) => status?.state === "failed" && status.specHash === specHash);
  for (const { name } of failed) {
    await patchNodeAnnotations(kubeconfig, name, { [retryAnnotation(fleet.group)]: token });
  }
  return new Map(failed.map(({ name }) => [name, token]));
}
