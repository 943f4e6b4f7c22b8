import type { V1Pod, V1RuntimeClass } from "@kubernetes/client-node";
import { selectedHandler, unresolvedHandler } from "../../runtime/names.ts";
import { handlerName } from "../../runtime/spec.ts";
import type { FleetApi } from "./api.ts";
import { nameOf } from "./name-of.ts";

export interface HandlerUser {
  /** "namespace/name" */
  pod: string;
  node: string;
  handler: string;
}

/** The pods on these nodes that run with one of our handlers. Finished pods are left out: they have no sandbox to break. */
export async function handlerUsers(api: FleetApi, nodes: ReadonlySet<string>): Promise<HandlerUser[]> {
  const classes = await api.list("/apis/node.k8s.io/v1/runtimeclasses", {}, (item: V1RuntimeClass) => [item]);
  const running = { fieldSelector: "status.phase!=Succeeded,status.phase!=Failed" };
  const userOf = userAmong(classes, nodes);
  return api.list("/api/v1/pods", running, userOf);
}

/**
 * Pure: the same of what the cluster says, for each pod. A handler may have classes of several names, which may lead
 * elsewhere or be gone by now: what counts is the handler that the pod was given. A class that is there and not ours makes
 * no user of ours; one that is resolved at admission may have been a class of a handler before.
 */
export function userAmong(
  classes: readonly V1RuntimeClass[],
  nodes: ReadonlySet<string>,
): (pod: V1Pod) => HandlerUser[] {
  const handlers = new Map(classes.map((runtimeClass) => [nameOf(runtimeClass), runtimeClass.handler]));
  const isOurs = (handler: string) => handlerName.safeParse(handler).success;
  return ({ metadata, spec }) => {
    const { nodeName: node, runtimeClassName, nodeSelector } = spec ?? {};
    if (node === undefined || runtimeClassName === undefined || !nodes.has(node)) return [];
    const now = handlers.get(runtimeClassName) ?? runtimeClassName;
    const isForeign = handlers.has(runtimeClassName) && !isOurs(now) && now !== unresolvedHandler;
    const handler = selectedHandler(nodeSelector) ?? now;
    return isForeign || !isOurs(handler) ? [] : [{ pod: `${metadata?.namespace}/${metadata?.name}`, node, handler }];
  };
}
