import { readFile } from "node:fs/promises";
import { describe, expect, test } from "vitest";
import { parseAllDocuments } from "yaml";
import type { Api } from "../../node-installer/kubernetes/api.ts";
import { clusterConfinement } from "../../node-installer/kubernetes/confinement.ts";
import type { NodeObject } from "../../node-installer/kubernetes/node.ts";
import { leaseTickets } from "../../node-installer/kubernetes/tickets.ts";
import { Refusal } from "../../runtime/refusal.ts";
import { until } from "../until.ts";
import {
  admin,
  admission,
  clientWithToken,
  events,
  group,
  identity,
  lease,
  leases,
  namespace,
  node,
  one,
  rbac,
  serviceAccount,
  startupTaint,
  two,
  useInstallers,
} from "./installer-identity.ts";

useInstallers();

const confinementOf = (api: Api) =>
  clusterConfinement({ api, group, namespace, nodeName: "node-1", now: () => new Date(), delay: async () => {} });

test("several tickets of one node, which no policy can see, are given back but for one", async () => {
  const { uid } = (await node("node-1")).metadata;
  for (const index of [0, 1]) await one.create(leases, lease(`${serviceAccount}-${index}`, "node-1", uid));
  const other = leaseTickets(two, { namespace, group, atOnce: 2, nodeName: "node-2", now: () => new Date() });
  expect(await other.acquire()).toMatchObject({ held: false });
  const own = leaseTickets(one, { namespace, group, atOnce: 2, nodeName: "node-1", now: () => new Date() });
  expect(await own.acquire()).toEqual({ held: true });
  expect(await other.acquire()).toEqual({ held: true });
  await own.release();
  await other.release();
});

test("on a new node it goes without a ticket while nothing but DaemonSets' pods is bound there", async () => {
  const daemonSets = `/apis/apps/v1/namespaces/${namespace}/daemonsets`;
  const labels = { app: "installer" };
  const containers = [{ name: "installer", image: "none" }];
  const template = { metadata: { labels }, spec: { containers } };
  const { uid } = (
    await admin.create<NodeObject>(daemonSets, {
      metadata: { name: serviceAccount },
      spec: { selector: { matchLabels: labels }, template },
    })
  ).metadata;
  const status = { desiredNumberScheduled: 2, currentNumberScheduled: 2, numberMisscheduled: 0, numberReady: 1 };
  await admin.mergePatch(`${daemonSets}/${serviceAccount}/status`, { status });
  const owner = { apiVersion: "apps/v1", kind: "DaemonSet", name: serviceAccount, uid, controller: true };
  const pods = `/api/v1/namespaces/${namespace}/pods`;
  await admin.mergePatch(`${pods}/installer-node-1`, { metadata: { ownerReferences: [owner] } });
  await admin.mergePatch("/api/v1/nodes/node-1", {
    spec: { taints: [{ key: startupTaint, effect: "NoSchedule" }] },
  });
  const shared = { namespace, group, atOnce: 1, startupTaint, now: () => new Date() };
  const other = leaseTickets(two, { ...shared, nodeName: "node-2" });
  expect(await other.acquire()).toEqual({ held: true });
  const own = () => leaseTickets(one, { ...shared, nodeName: "node-1" }).acquire();
  await until("the API server's memory has the DaemonSet's status", async () => (await own()).held);
  expect((await admin.get<{ items: unknown[] }>(leases)).items).toHaveLength(1);
  const bound = {
    apiVersion: "v1",
    kind: "Pod",
    metadata: { name: "bound" },
    spec: { nodeName: "node-1", containers },
  };
  await admin.create(pods, bound);
  expect(await own()).toMatchObject({ held: false });
  await other.release();
  // The token of this pod is still needed.
  await admin.mergePatch(`${pods}/installer-node-1`, { metadata: { ownerReferences: [] } });
  await admin.mergePatch("/api/v1/nodes/node-1", { spec: { taints: [] } });
  for (const path of [`${pods}/bound`, `${daemonSets}/${serviceAccount}`]) await admin.delete(path);
});

describe("an installer whose policies are not in force does nothing", () => {
  test("with all of them it works, and what it tried left nothing behind", async () => {
    const before = await node("node-1");
    await confinementOf(one).require();
    expect((await node("node-1")).metadata.annotations).toEqual(before.metadata.annotations);
    for (const path of [leases, events]) {
      const { items } = await admin.get<{ items: NodeObject[] }>(path);
      expect(items.filter(({ metadata }) => metadata.name.includes("probe"))).toEqual([]);
    }
  });

  const gone = identity.policyBindings.flatMap(({ metadata: { name } }) => [
    [name, "its binding", `${admission}/validatingadmissionpolicybindings`],
    [name, "the policy", `${admission}/validatingadmissionpolicies`],
  ]) as [string, string, string][];
  test.each(gone)("without %s (%s)", async (name, _, path) => {
    const object = await admin.get<{ metadata: { resourceVersion?: string; uid?: string } }>(`${path}/${name}`);
    await admin.delete(`${path}/${name}`);
    const attempt = () => confinementOf(one).require(true);
    await until("the policy no longer acts", () =>
      attempt().then(
        () => false,
        (error: unknown) => {
          if (!(error instanceof Refusal)) throw error;
          return error.code === "unconfined" && error.message.includes(`${name} and their bindings`);
        },
      ),
    );
    const { resourceVersion: _version, uid: _uid, ...metadata } = object.metadata;
    await admin.create(path, { ...object, metadata });
    await until("the policy acts again", () => attempt().then(() => true));
  });

  test("without rights at all the error is the API server's, not a missing policy", async () => {
    await admin.create(`/api/v1/namespaces/${namespace}/serviceaccounts`, { metadata: { name: "stranger" } });
    const stranger = await clientWithToken(undefined, "stranger");
    await expect(confinementOf(stranger).require()).rejects.toMatchObject({ status: 403 });
  });
});

test("the API server's type checker finds nothing wrong with the policies' expressions", async () => {
  interface Policies {
    items: {
      metadata: { name: string };
      status?: { observedGeneration?: number; typeChecking?: { expressionWarnings?: { warning: string }[] } };
    }[];
  }
  const read = async () =>
    (await admin.get<Policies>(`${admission}/validatingadmissionpolicies`)).items.filter(({ metadata }) =>
      metadata.name.startsWith(serviceAccount),
    );
  await until("the type check", async () => (await read()).every(({ status }) => status?.observedGeneration === 1));
  const warnings = (await read()).flatMap(({ status }) => status?.typeChecking?.expressionWarnings ?? []);
  // It also checks the policy for core Events against events.k8s.io, although requests there are converted to core.
  expect(warnings.map(({ warning }) => warning).filter((warning) => !warning.startsWith("events.k8s.io/"))).toEqual([]);
});

test("the fleet reader lists the installers' pods and changes nothing", async () => {
  const documents = parseAllDocuments(await readFile("examples/ci/fleet-reader.yaml", "utf8"));
  const [account, role, binding] = documents.map((document) => document.toJS());
  await admin.create(`/api/v1/namespaces/${namespace}/serviceaccounts`, account);
  await admin.create(`${rbac}/namespaces/${namespace}/roles`, role);
  await admin.create(`${rbac}/namespaces/${namespace}/rolebindings`, binding);
  const reader = await clientWithToken(undefined, account.metadata.name);
  const pods = `/api/v1/namespaces/${namespace}/pods`;
  await until("the role", () => reader.get(pods).then(() => true));
  await expect(reader.delete(`${pods}/installer-node-1`)).rejects.toMatchObject({ status: 403 });
  await expect(reader.mergePatch(`${pods}/installer-node-1`, {})).rejects.toMatchObject({ status: 403 });
  await expect(reader.create(`${pods}/installer-node-1/exec?command=id`, {})).rejects.toMatchObject({ status: 403 });
  await expect(reader.get("/api/v1/secrets")).rejects.toMatchObject({ status: 403 });
});
