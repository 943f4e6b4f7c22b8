import type { Api } from "./api.ts";

interface PodList {
  items: { metadata: { name: string; namespace: string }; spec: { runtimeClassName?: string } }[];
}

/** `namespace/name` of the pods on the node that have the class and have not ended, sorted. */
export async function podsOfClass(api: Api, nodeName: string, runtimeClass: string): Promise<string[]> {
  const selector = `spec.nodeName=${nodeName},status.phase!=Succeeded,status.phase!=Failed`;
  const { items } = await api.get<PodList>(`/api/v1/pods?fieldSelector=${encodeURIComponent(selector)}`);
  return items
    .filter(({ spec }) => spec.runtimeClassName === runtimeClass)
    .map(({ metadata }) => `${metadata.namespace}/${metadata.name}`)
    .sort();
}
