import { afterAll, beforeAll } from "vitest";
import { installerIdentity } from "../../components/manifests/identity.ts";
import { type Api, ApiError, apiClient } from "../../node-installer/kubernetes/api.ts";
import { type NodeObject, readOwnNode } from "../../node-installer/kubernetes/node.ts";
import { leaseTickets } from "../../node-installer/kubernetes/tickets.ts";
import { systemNamespace } from "../../runtime/names.ts";
import { until } from "../until.ts";
import { type ApiServer, startApiServer } from "./api-server.ts";

/** The installers' ServiceAccount with its roles and policies in a real API server, and clients with tokens as their pods have. */
export const namespace = systemNamespace;
export const group = "metal";
export const handler = "contrast-cc-metal-qemu-snp-0a1b2c3d";
export const label = `runtime.contrast.edgeless.systems/${handler}`;
export const startupTaint = "runtime.contrast.edgeless.systems/not-ready";
export const leases = `/apis/coordination.k8s.io/v1/namespaces/${namespace}/leases`;
export const rbac = "/apis/rbac.authorization.k8s.io/v1";
export const admission = "/apis/admissionregistration.k8s.io/v1";

export const identity = installerIdentity({ namespace, group, atOnce: 2, startupTaint });

let server: ApiServer;
export let admin: Api;
/** Clients with the bound tokens of installer pods on two nodes. */
export let one: Api;
export let two: Api;

/** Standard output of a kubectl that may do everything, and must succeed. */
export const kubectl = (...words: string[]): Promise<string> => server.kubectl(...words);

/** For a whole test file: an API server with the identity, and two nodes with installers. */
export function useInstallers(): void {
  beforeAll(startInstallers, 900_000);
  afterAll(async () => {
    await server?.stop();
  });
}

async function startInstallers(): Promise<void> {
  server = await startApiServer({
    controllers: ["garbage-collector-controller", "validatingadmissionpolicy-status-controller"],
  });
  admin = apiClient(server.admin);
  for (const name of [namespace, "default"]) {
    await until(`namespace ${name}`, () =>
      admin.create("/api/v1/namespaces", { metadata: { name } }).then(
        () => true,
        (error) => error.status === 409,
      ),
    );
  }
  await admin.create(`/api/v1/namespaces/${namespace}/serviceaccounts`, identity.serviceAccount);
  await admin.create(`${rbac}/clusterroles`, identity.clusterRole);
  await admin.create(`${rbac}/clusterrolebindings`, identity.clusterRoleBinding);
  for (const role of [identity.ticketRole, identity.eventRole]) {
    await admin.create(`${rbac}/namespaces/${role.metadata.namespace}/roles`, role);
  }
  for (const binding of [identity.ticketRoleBinding, identity.eventRoleBinding]) {
    await admin.create(`${rbac}/namespaces/${binding.metadata.namespace}/rolebindings`, binding);
  }
  for (const policy of identity.policies) await admin.create(`${admission}/validatingadmissionpolicies`, policy);
  for (const binding of identity.policyBindings) {
    await admin.create(`${admission}/validatingadmissionpolicybindings`, binding);
  }
  one = await installerOn("node-1");
  two = await installerOn("node-2");
  // The API server takes a moment to compile new policies; until then it lets everything pass.
  await until("the node policy", () => refused(() => readOwnNode(one, "node-2")));
  await until("the ticket policy", () =>
    refused(() => one.create(leases, lease("contrast-installer-other-0", "node-1", "x"))),
  );
  await until("the event policy", () => refused(() => one.create(events, nodeEvent("node-2", "x"))));
}

export const serviceAccount = `contrast-installer-${group}`;

/** A node and its installer pod, and a client with the token that the pod would have. */
export async function installerOn(nodeName: string): Promise<Api> {
  await admin.create("/api/v1/nodes", {
    metadata: { name: nodeName, labels: { zone: "a" }, annotations: { note: "mine" } },
  });
  const pods = `/api/v1/namespaces/${namespace}/pods`;
  const pod = await admin.create<NodeObject>(pods, {
    metadata: { name: `installer-${nodeName}` },
    spec: { nodeName, serviceAccountName: serviceAccount, containers: [{ name: "installer", image: "none" }] },
  });
  return clientWithToken({ kind: "Pod", apiVersion: "v1", name: pod.metadata.name, uid: pod.metadata.uid });
}

export async function clientWithToken(boundObjectRef?: object, account = serviceAccount): Promise<Api> {
  const path = `/api/v1/namespaces/${namespace}/serviceaccounts/${account}/token`;
  const request = { spec: { expirationSeconds: 3600, ...(boundObjectRef && { boundObjectRef }) } };
  const { status } = await admin.create<{ status: { token: string } }>(path, request);
  return apiClient(await server.withToken(status.token));
}

const refused = async (action: () => Promise<unknown>): Promise<boolean> => {
  try {
    await action();
    return false;
  } catch (error) {
    return error instanceof ApiError && error.status === 403;
  }
};

export const events = "/api/v1/namespaces/default/events";
export const nodeEvent = (node: string, uid: string, component = "contrast-installer") => ({
  metadata: { generateName: "stolen-" },
  involvedObject: { apiVersion: "v1", kind: "Node", name: node, uid },
  type: "Warning",
  reason: "Stolen",
  message: "stolen",
  source: { component, host: node },
});
export const lease = (name: string, holderIdentity: string, uid: string, metadata: object = {}, spec: object = {}) => ({
  metadata: { name, ownerReferences: [{ apiVersion: "v1", kind: "Node", name: holderIdentity, uid }], ...metadata },
  spec: { holderIdentity, ...spec },
});
export const node = (name: string) => admin.get<NodeObject>(`/api/v1/nodes/${name}`);
export const manyLabels = (count: number) =>
  Object.fromEntries(
    Array.from({ length: count }, (_, i) => [`${label.slice(0, -8)}${i.toString(16).padStart(8, "0")}`, "true"]),
  );
export const ticketsOf = (api: Api, nodeName: string) =>
  leaseTickets(api, { namespace, group, atOnce: 1, nodeName, now: () => new Date() });
