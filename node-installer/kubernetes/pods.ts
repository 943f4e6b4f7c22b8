import { handlerOfPod } from "../../runtime/names.ts";
import type { Api } from "./api.ts";

interface Pod {
  metadata: {
    name: string;
    namespace: string;
    ownerReferences?: { kind: string; controller?: boolean }[];
  };
  spec: { runtimeClassName?: string; nodeSelector?: Record<string, string> };
}

/** Those that are bound to the node and have not ended, asked of the API server's storage and not of its memory. */
async function podsOn(api: Api, nodeName: string): Promise<Pod[]> {
  const selector = `spec.nodeName=${nodeName},status.phase!=Succeeded,status.phase!=Failed`;
  return (await api.get<{ items: Pod[] }>(`/api/v1/pods?fieldSelector=${encodeURIComponent(selector)}`)).items;
}

/** `namespace/name` of the pods on the node that run, or will run, with the handler and have not ended, sorted. */
export async function podsOfHandler(api: Api, nodeName: string, handler: string): Promise<string[]> {
  return (await podsOn(api, nodeName))
    .filter(({ spec }) => handlerOfPod(spec) === handler)
    .map(({ metadata }) => `${metadata.namespace}/${metadata.name}`)
    .sort();
}

/**
 * Whether the node has nothing but what every node has: pods of DaemonSets, and those from the kubelet's own files (static
 * pods, which the Node owns).
 */
export async function carriesNoWorkload(api: Api, nodeName: string): Promise<boolean> {
  const isNodes = ({ metadata }: Pod): boolean =>
    metadata.ownerReferences?.some(({ kind, controller }) => kind === "Node" || (kind === "DaemonSet" && controller)) ??
    false;
  return (await podsOn(api, nodeName)).every(isNodes);
}
