import type { KubeConfig, V1Pod, V1RuntimeClass } from "@kubernetes/client-node";
import { selectedHandler } from "../../runtime/names.ts";
import { handlerName } from "../../runtime/spec.ts";
import { nameOf } from "./name-of.ts";

export interface HandlerUser {
  /** "namespace/name" */
  pod: string;
  node: string;
  handler: string;
}

/** The pods on these nodes that run with one of our handlers. Finished pods are left out: they have no sandbox to break. */
export async function handlerUsers(kubeconfig: KubeConfig, nodes: ReadonlySet<string>): Promise<HandlerUser[]> {
  const { CoreV1Api, NodeV1Api } = await import("@kubernetes/client-node");
  const [pods, classes] = await Promise.all([
    kubeconfig.makeApiClient(CoreV1Api).listPodForAllNamespaces({
      fieldSelector: "status.phase!=Succeeded,status.phase!=Failed",
    }),
    kubeconfig.makeApiClient(NodeV1Api).listRuntimeClass(),
  ]);
  return usersAmong(pods.items, classes.items, nodes);
}

/**
 * Pure: the same of what the cluster says. A handler may have classes of several names, which may lead elsewhere or be gone
 * by now: what counts is the handler that the pod was given. A class that is there and not ours makes no user of ours.
 */
export function usersAmong(
  pods: readonly V1Pod[],
  classes: readonly V1RuntimeClass[],
  nodes: ReadonlySet<string>,
): HandlerUser[] {
  const handlers = new Map(classes.map((runtimeClass) => [nameOf(runtimeClass), runtimeClass.handler]));
  const isOurs = (handler: string) => handlerName.safeParse(handler).success;
  return pods.flatMap(({ metadata, spec }) => {
    const { nodeName: node, runtimeClassName, nodeSelector } = spec ?? {};
    if (node === undefined || runtimeClassName === undefined || !nodes.has(node)) return [];
    const now = handlers.get(runtimeClassName) ?? runtimeClassName;
    const isForeign = handlers.has(runtimeClassName) && !isOurs(now);
    const handler = selectedHandler(nodeSelector) ?? now;
    return isForeign || !isOurs(handler) ? [] : [{ pod: `${metadata?.namespace}/${metadata?.name}`, node, handler }];
  });
}
