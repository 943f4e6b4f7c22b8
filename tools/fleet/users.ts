import type { KubeConfig } from "@kubernetes/client-node";
import { handlerName } from "../../runtime/spec.ts";
import { nameOf } from "./name-of.ts";

export interface HandlerUser {
  /** "namespace/name" */
  pod: string;
  node: string;
  handler: string;
}

/**
 * The pods on these nodes that run with one of our handlers. Finished pods are left out: they have no sandbox to break. A
 * RuntimeClass that is gone no longer says its handler; ours have the same name as their handlers.
 */
export async function handlerUsers(kubeconfig: KubeConfig, nodes: ReadonlySet<string>): Promise<HandlerUser[]> {
  const { CoreV1Api, NodeV1Api } = await import("@kubernetes/client-node");
  const [pods, classes] = await Promise.all([
    kubeconfig.makeApiClient(CoreV1Api).listPodForAllNamespaces({
      fieldSelector: "status.phase!=Succeeded,status.phase!=Failed",
    }),
    kubeconfig.makeApiClient(NodeV1Api).listRuntimeClass(),
  ]);
  const handlers = new Map(classes.items.map((runtimeClass) => [nameOf(runtimeClass), runtimeClass.handler]));
  return pods.items.flatMap(({ metadata, spec }) => {
    const { nodeName: node, runtimeClassName } = spec ?? {};
    if (node === undefined || runtimeClassName === undefined || !nodes.has(node)) return [];
    const handler = handlers.get(runtimeClassName) ?? runtimeClassName;
    return handlerName.safeParse(handler).success
      ? [{ pod: `${metadata?.namespace}/${metadata?.name}`, node, handler }]
      : [];
  });
}
