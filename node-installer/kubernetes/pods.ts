import { selectedHandler } from "../../runtime/names.ts";
import type { Api } from "./api.ts";

interface PodList {
  items: {
    metadata: { name: string; namespace: string };
    spec: { runtimeClassName?: string; nodeSelector?: Record<string, string> };
  }[];
}

/**
 * `namespace/name` of the pods on the node that run, or will run, with the handler and have not ended, sorted. The handler's
 * class has its name; of a class with another name, the pod's node selector says which handler it led to.
 */
export async function podsOfHandler(api: Api, nodeName: string, handler: string): Promise<string[]> {
  const selector = `spec.nodeName=${nodeName},status.phase!=Succeeded,status.phase!=Failed`;
  const { items } = await api.get<PodList>(`/api/v1/pods?fieldSelector=${encodeURIComponent(selector)}`);
  return items
    .filter(
      ({ spec: { runtimeClassName, nodeSelector } }) =>
        runtimeClassName !== undefined && (selectedHandler(nodeSelector) ?? runtimeClassName) === handler,
    )
    .map(({ metadata }) => `${metadata.namespace}/${metadata.name}`)
    .sort();
}
