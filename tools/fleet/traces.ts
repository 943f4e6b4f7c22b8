/** What a group's installers leave in the cluster besides what the stack manages. */
import { setTimeout as delay } from "node:timers/promises";
import { installerName, retryAnnotation, stateLabel, statusAnnotation } from "../../runtime/names.ts";
import { each, type FleetApi } from "./api.ts";
import { patchNode } from "./patch.ts";

/** Annotations and the label that installers wrote on nodes; no stack manages them. */
export async function removeAnnotations(
  api: FleetApi,
  group: string,
  nodes: readonly { name: string }[],
): Promise<void> {
  const annotations = { [statusAnnotation(group)]: null, [retryAnnotation(group)]: null };
  const metadata = { annotations, labels: { [stateLabel(group)]: null } };
  await each(nodes, ({ name }) => patchNode(api, name, metadata));
}

export async function removeTickets(api: FleetApi, namespace: string, group: string): Promise<void> {
  const leases = `/apis/coordination.k8s.io/v1/namespaces/${namespace}/leases`;
  const isTicket = new RegExp(`^${installerName(group)}-\\d+$`);
  const names = await api.listMetadata(leases, {}, ({ metadata }) => [metadata.name]);
  await each(
    names.filter((name) => isTicket.test(name)),
    (name) => api.remove(`${leases}/${name}`),
  );
}

/**
 * What is left of a group's former name once its nodes are taken over. As long as there are installers of that name, it is
 * a group, and its uninstallation does this.
 */
export async function removeFormer(api: FleetApi, namespace: string, former: string): Promise<void> {
  const daemonSets = `/apis/apps/v1/namespaces/${namespace}/daemonsets`;
  const name = installerName(former);
  if ((await api.listMetadata(daemonSets, {}, ({ metadata }) => [metadata.name])).includes(name)) return;
  const pods = `/api/v1/namespaces/${namespace}/pods`;
  const labelSelector = `app.kubernetes.io/name=${name}`;
  const isEnding = async () =>
    (await api.listMetadata(pods, { labelSelector }, ({ metadata }) => [metadata.name])).length > 0;
  // One that ends may still report. A dead node's never does.
  for (let wait = 0; wait < 60 && (await isEnding()); wait += 1) await delay(500);
  const traced = await api.listMetadata("/api/v1/nodes", {}, ({ metadata: { name, annotations = {}, labels = {} } }) =>
    statusAnnotation(former) in annotations || retryAnnotation(former) in annotations || stateLabel(former) in labels
      ? [{ name }]
      : [],
  );
  await removeAnnotations(api, former, traced);
  await removeTickets(api, namespace, former);
}
