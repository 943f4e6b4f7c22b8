import { describe, expect, test } from "vitest";
import type { Api, ApiError } from "../../node-installer/kubernetes/api.ts";
import { labelChanges } from "../../node-installer/kubernetes/labels.ts";
import { newMetrics } from "../../node-installer/kubernetes/metrics.ts";
import { patchOwnNode, readinessOf, readOwnNode } from "../../node-installer/kubernetes/node.ts";
import { podsOfHandler } from "../../node-installer/kubernetes/pods.ts";
import { nodeReporter } from "../../node-installer/kubernetes/reporter.ts";
import { liftTaint } from "../../node-installer/kubernetes/taints.ts";
import { ticketReasonAnnotation } from "../../node-installer/kubernetes/tickets.ts";
import { handlerLabel, stateLabel, statusAnnotation } from "../../runtime/names.ts";
import { shownWords } from "../shown-commands.ts";
import { until } from "../until.ts";
import {
  admin,
  admission,
  clientWithToken,
  events,
  group,
  handler,
  installerOn,
  kubectl,
  label,
  lease,
  leases,
  manyLabels,
  namespace,
  node,
  nodeEvent,
  one,
  serviceAccount,
  startupTaint,
  ticketsOf,
  two,
  useInstallers,
} from "./installer-identity.ts";

useInstallers();

const setServedLabels = async (api: Api, name: string, handlers: string[]) =>
  patchOwnNode(api, name, { labels: labelChanges(await readOwnNode(api, name), handlers) });

describe("what an installer's token can do", () => {
  test("labels its own node and leaves everything else on it alone", async () => {
    await setServedLabels(one, "node-1", [handler]);
    expect((await node("node-1")).metadata.labels).toEqual({ zone: "a", [label]: "true" });
    await setServedLabels(one, "node-1", []);
    expect((await node("node-1")).metadata.labels).toEqual({ zone: "a" });
  });

  test("takes the startup taint from its own node, whatever its value, and leaves the others", async () => {
    const theirs = { key: "example.com/gpu", value: "true", effect: "NoSchedule" };
    const own = { key: startupTaint, effect: "NoSchedule" };
    const spec = { podCIDR: "10.0.1.0/24", podCIDRs: ["10.0.1.0/24"], providerID: "test://node-1" };
    const taints = [own, theirs, { ...own, value: "x", effect: "NoExecute" }];
    await admin.mergePatch("/api/v1/nodes/node-1", { spec: { ...spec, taints } });
    await liftTaint(one, await readOwnNode(one, "node-1"), startupTaint);
    expect((await node("node-1")).spec).toMatchObject({ ...spec, taints: [theirs] });
    await admin.mergePatch("/api/v1/nodes/node-1", { spec: { taints: [own] } });
    await liftTaint(one, await readOwnNode(one, "node-1"), startupTaint);
    expect((await node("node-1")).spec?.taints).toBeUndefined();
  });

  test("sees whether kubelet calls its own node ready", async () => {
    const conditions = [{ type: "Ready", status: "False", reason: "KubeletNotReady", message: "no network" }];
    await admin.mergePatch("/api/v1/nodes/node-1/status", { status: { conditions } });
    const readiness = { ready: false, reason: "KubeletNotReady: no network" };
    expect(readinessOf(await readOwnNode(one, "node-1"))).toMatchObject(readiness);
  });

  test("publishes its status and an Event about its own node, the same Event again as a count", async () => {
    const errors: ApiError[] = [];
    const status = {
      state: "failed",
      code: "iommu-passthrough",
      reason: "why",
      handlers: [],
      pods: [],
      specHash: "00",
    } as const;
    for (const _ of [1, 2]) {
      const reporter = nodeReporter({
        api: one,
        group,
        nodeName: "node-1",
        metrics: newMetrics(),
        now: () => new Date(),
        uptime: () => performance.now(),
        delay: async () => {},
        onError: (error) => errors.push(error),
      });
      reporter.report({ ...status, handlers: [], pods: [] });
      await reporter.flush();
    }
    expect(errors).toEqual([]);
    const { metadata } = await node("node-1");
    expect(JSON.parse(metadata.annotations?.[statusAnnotation(group)] ?? "")).toMatchObject(status);
    expect(metadata.annotations?.note).toBe("mine");
    const words = shownWords("docs/operations.md", "kubectl get nodes -l state.", { "/metal=": `/${group}=` });
    expect((await kubectl(...words, "-o", "name")).trim()).toBe("node/node-1");
    await patchOwnNode(one, "node-1", { labels: { [stateLabel(group)]: null } });
    const { items } = await admin.get<{ items: { involvedObject: object; reason: string; count: number }[] }>(events);
    expect(items.filter(({ reason }) => reason === "IommuPassthrough")).toMatchObject([
      { involvedObject: { kind: "Node", name: "node-1" }, count: 2 },
    ]);
  });

  test("finds the pods that are bound to its node with a class, and those alone", async () => {
    const pods = `/api/v1/namespaces/${namespace}/pods`;
    const containers = [{ name: "c", image: "example.com/x" }];
    for (const [name, nodeName] of [
      ["bound", "node-1"],
      ["elsewhere", "node-2"],
    ]) {
      const spec = { nodeName, serviceAccountName: serviceAccount, containers, automountServiceAccountToken: false };
      await admin.create(pods, { apiVersion: "v1", kind: "Pod", metadata: { name }, spec });
    }
    const selector = encodeURIComponent("spec.nodeName=node-1");
    const { items } = await one.get<{ items: { metadata: { name: string } }[] }>(
      `/api/v1/pods?fieldSelector=${selector}`,
    );
    expect(items.map(({ metadata }) => metadata.name)).toContain("bound");
    expect(await podsOfHandler(one, "node-1", handler)).toEqual([]);
    for (const name of ["bound", "elsewhere"]) await admin.delete(`${pods}/${name}`);
  });

  test("finds the pods of a handler by whatever name of its class they came, also when that has moved or is gone", async () => {
    const pods = `/api/v1/namespaces/${namespace}/pods`;
    const classes = "/apis/node.k8s.io/v1/runtimeclasses";
    const other = handler.replace(/.$/, (digit) => (digit === "0" ? "1" : "0"));
    const further = (leadsTo: string) => ({
      ...{ apiVersion: "node.k8s.io/v1", kind: "RuntimeClass", metadata: { name: "cc" }, handler: leadsTo },
      scheduling: { nodeSelector: { [handlerLabel(leadsTo)]: "true" } },
    });
    await admin.create(classes, further(handler));
    const containers = [{ name: "c", image: "example.com/x" }];
    const spec = { nodeName: "node-1", runtimeClassName: "cc", containers, automountServiceAccountToken: false };
    await admin.create(pods, { apiVersion: "v1", kind: "Pod", metadata: { name: "further" }, spec });
    const used = [`${namespace}/further`];
    expect(await podsOfHandler(one, "node-1", handler)).toEqual(used);
    await admin.delete(`${classes}/cc`);
    expect(await podsOfHandler(one, "node-1", handler)).toEqual(used);
    await admin.create(classes, further(other));
    expect(await podsOfHandler(one, "node-1", handler)).toEqual(used);
    expect(await podsOfHandler(one, "node-1", other)).toEqual([]);
    await admin.delete(`${pods}/further`);
    await admin.delete(`${classes}/cc`);
  });

  test("takes a free ticket, keeps it over a restart, gives it back; a deleted node's ticket becomes free", async () => {
    expect(await ticketsOf(one, "node-1").acquire()).toEqual({ held: true });
    expect(await ticketsOf(one, "node-1").acquire()).toEqual({ held: true });
    expect(await ticketsOf(two, "node-2").acquire()).toMatchObject({ held: false });
    await ticketsOf(one, "node-1").annotate("rolled back");
    await ticketsOf(one, "node-1").release();
    await ticketsOf(one, "node-1").release();

    const doomed = await installerOn("node-3");
    expect(await ticketsOf(doomed, "node-3").acquire()).toEqual({ held: true });
    await admin.delete("/api/v1/nodes/node-3");
    await until("node-3's ticket", async () => (await ticketsOf(two, "node-2").acquire()).held);
    await ticketsOf(two, "node-2").release();
  });
});

describe("what a stolen token cannot do", () => {
  const patch = (path: string, body: object) => () => one.mergePatch(path, body);
  const own = "/api/v1/nodes/node-1";
  const other = "/api/v1/nodes/node-2";
  const attempts: Record<string, () => Promise<unknown>> = {
    "read another node by an empty patch": patch(other, {}),
    "read another node": () => one.get(other),
    "read its own node by get": () => one.get(own),
    "list nodes": () => one.get("/api/v1/nodes"),
    "label another node as serving": patch(other, { metadata: { labels: { [label]: "true" } } }),
    "set another label on its own node": patch(own, {
      metadata: { labels: { "node-role.kubernetes.io/control-plane": "" } },
    }),
    "change another label's value": patch(own, { metadata: { labels: { zone: "b" } } }),
    "remove another label": patch(own, { metadata: { labels: { zone: null } } }),
    "set another annotation": patch(own, { metadata: { annotations: { note: "stolen" } } }),
    "remove another annotation": patch(own, { metadata: { annotations: { note: null } } }),
    "write another group's status": patch(own, { metadata: { annotations: { [statusAnnotation("other")]: "{}" } } }),
    "cordon its own node": patch(own, { spec: { unschedulable: true } }),
    "taint its own node": patch(own, { spec: { taints: [{ key: "stolen", effect: "NoSchedule" }] } }),
    "add a finalizer": patch(own, { metadata: { finalizers: ["stolen.example.com/x"] } }),
    "change its node's status": patch(`${own}/status`, { status: { capacity: { "sev-snp.amd.com/esids": "99" } } }),
    "delete its own node": () => one.delete(own),
    "write an Event about another node": async () =>
      one.create(events, nodeEvent("node-2", (await node("node-2")).metadata.uid)),
    "write an Event in another's name": async () =>
      one.create(events, nodeEvent("node-1", (await node("node-1")).metadata.uid, "kubelet")),
    "list Events": () => one.get(events),
    "take a ticket in another node's name": async () =>
      one.create(leases, lease(`${serviceAccount}-0`, "node-2", (await node("node-2")).metadata.uid)),
    "take a ticket that no node owns": () =>
      one.create(leases, { metadata: { name: `${serviceAccount}-0` }, spec: { holderIdentity: "node-1" } }),
    "take a ticket beyond the group's": async () =>
      one.create(leases, lease(`${serviceAccount}-2`, "node-1", (await node("node-1")).metadata.uid)),
    "label its own node with a value of its choice": patch(own, { metadata: { labels: { [label]: "false" } } }),
    "label its own node with what is no handler": patch(own, {
      metadata: { labels: { "runtime.contrast.edgeless.systems/anything": "true" } },
    }),
    "label its own node as serving thousands of handlers": patch(own, { metadata: { labels: manyLabels(2000) } }),
    "fill its node's annotations": patch(own, {
      metadata: { annotations: { [statusAnnotation(group)]: "x".repeat(200_000) } },
    }),
    "forget who set what on its node": patch(own, { metadata: { managedFields: [{}] } }),
    "create a Lease in kube-system": () =>
      one.create("/apis/coordination.k8s.io/v1/namespaces/kube-system/leases", lease("kube-scheduler", "node-1", "x")),
    "read a pod by its name": () => one.get(`/api/v1/namespaces/${namespace}/pods/any`),
    "read a pod's log": () => one.get(`/api/v1/namespaces/${namespace}/pods/any/log`),
    "watch pods": () => one.get("/api/v1/pods?watch=true&timeoutSeconds=1"),
    "delete pods": () => one.delete(`/api/v1/namespaces/${namespace}/pods/any`),
    "read secrets": () => one.get("/api/v1/secrets"),
    "widen its own policy": patch(`${admission}/validatingadmissionpolicies/${serviceAccount}-node`, {
      spec: { failurePolicy: "Ignore" },
    }),
  };
  test.each(Object.entries(attempts))("%s", async (_, attempt) => {
    await expect(attempt()).rejects.toMatchObject({ status: 403 });
  });

  test("touch another taint than the startup taint, or anything else of the spec on its way", async () => {
    const theirs = { key: "example.com/gpu", effect: "NoSchedule" };
    const startup = { key: startupTaint, effect: "NoSchedule" };
    await admin.mergePatch(own, { spec: { taints: [theirs, startup, { ...startup, effect: "NoExecute" }] } });
    for (const [what, spec] of Object.entries({
      "take another's": { taints: [startup] },
      "take all": { taints: null },
      "take its own and another's": { taints: [] },
      "set one instead": { taints: [{ ...theirs, effect: "NoExecute" }] },
      "set one more": { taints: [theirs, startup, { key: "stolen", effect: "NoSchedule" }] },
      "keep one of two": { taints: [theirs, startup] },
      "cordon at the same time": { taints: [theirs], unschedulable: true },
    }))
      await expect(patch(own, { spec })(), what).rejects.toMatchObject({ status: 403 });
    await expect(patch(other, { spec: { taints: null } })()).rejects.toMatchObject({ status: 403 });
    expect((await node("node-1")).spec?.taints).toHaveLength(3);
    await admin.mergePatch(own, { spec: { taints: null } });
  });

  test("say that its node is in a state that there is none of, or in one of another group", async () => {
    for (const labels of [{ [stateLabel(group)]: "fine" }, { [stateLabel("other")]: "ready" }])
      await expect(patch(own, { metadata: { labels } })()).rejects.toMatchObject({ status: 403 });
  });

  test("give a label of a handler that its node has another value", async () => {
    await setServedLabels(one, "node-1", [handler]);
    await expect(patch(own, { metadata: { labels: { [label]: "anything" } } })()).rejects.toMatchObject({
      status: 403,
    });
    await setServedLabels(one, "node-1", []);
  });

  const owner = async (changes: object = {}) => ({
    ...{ apiVersion: "v1", kind: "Node", name: "node-1", uid: (await node("node-1")).metadata.uid },
    ...changes,
  });
  const ticketWith: Record<string, () => Promise<[object, object?]>> = {
    "a finalizer, which would keep it and its namespace for ever": async () => [
      { finalizers: ["stolen.example.com/x"] },
    ],
    "an owner of another kind": async () => [{ ownerReferences: [await owner({ kind: "Pod" })] }],
    "an owner of another API": async () => [{ ownerReferences: [await owner({ apiVersion: "x.example.com/v1" })] }],
    "an owner of another name": async () => [{ ownerReferences: [await owner({ name: "node-2" })] }],
    "a second owner": async () => [
      { ownerReferences: [await owner(), await owner({ uid: (await node("node-2")).metadata.uid })] },
    ],
    "an owner that it blocks": async () => [{ ownerReferences: [await owner({ blockOwnerDeletion: true })] }],
    "a controller": async () => [{ ownerReferences: [await owner({ controller: true })] }],
    labels: async () => [{ labels: { a: "b" } }],
    "another annotation": async () => [{ annotations: { note: "x" } }],
    "a long reason": async () => [{ annotations: { [ticketReasonAnnotation]: "x".repeat(2000) } }],
    "a reason that a terminal obeys": async () => [{ annotations: { [ticketReasonAnnotation]: "\u001b]0;x\u0007" } }],
    "a duration": async () => [{}, { leaseDurationSeconds: 1 }],
  };
  test.each(Object.entries(ticketWith))("take a ticket with %s", async (_, changes) => {
    const [metadata, spec] = await changes();
    const { uid } = (await node("node-1")).metadata;
    const ticket = lease(`${serviceAccount}-0`, "node-1", uid, metadata, spec);
    await expect(one.create(leases, ticket)).rejects.toMatchObject({ status: 403 });
    // Nor can a ticket that it holds become one.
    expect(await ticketsOf(one, "node-1").acquire()).toEqual({ held: true });
    await expect(one.mergePatch(`${leases}/${serviceAccount}-0`, ticket)).rejects.toMatchObject({ status: 403 });
    await ticketsOf(one, "node-1").release();
  });

  const eventWith: Record<string, object> = {
    "another's component in the newer field": { reportingComponent: "kubelet" },
    "another instance": { reportingInstance: "node-2" },
    "another node related to it": { related: { apiVersion: "v1", kind: "Node", name: "node-2" } },
    "an action": { action: "Delete" },
    "a series": { series: { count: 3, lastObservedTime: "2026-01-01T00:00:00.000000Z" } },
    "a part of the node": { involvedObject: { fieldPath: "spec.x" } },
    "a type that is none": { type: "x".repeat(1000) },
    "another version of the node": { involvedObject: { resourceVersion: "x".repeat(1000) } },
    "a node of another API": { involvedObject: { apiVersion: "example.com/v1" } },
    "what a terminal obeys": { message: "node-2: ready\u001b[2K" },
    "text that is reordered": { reason: "Ready\u202e" },
    "a long message": { message: "x".repeat(1025) },
    "a finalizer": { metadata: { finalizers: ["stolen.example.com/x"] } },
    labels: { metadata: { labels: { a: "b" } } },
    annotations: { metadata: { annotations: { a: "b".repeat(1000) } } },
  };
  test.each(Object.entries(eventWith))(
    "write an Event with %s",
    async (_, changes: Partial<ReturnType<typeof nodeEvent>>) => {
      const event = nodeEvent("node-1", (await node("node-1")).metadata.uid);
      const changed = {
        ...event,
        ...changes,
        metadata: { ...event.metadata, ...changes.metadata },
        involvedObject: { ...event.involvedObject, ...changes.involvedObject },
      };
      await one.create(events, event);
      await expect(one.create(events, changed)).rejects.toMatchObject({ status: 403 });
    },
  );

  test("take, change or give back another node's ticket", async () => {
    expect(await ticketsOf(two, "node-2").acquire()).toEqual({ held: true });
    const path = `${leases}/${serviceAccount}-0`;
    for (const attempt of [
      () => one.delete(path),
      patch(path, { spec: { holderIdentity: "node-1" } }),
      patch(path, { metadata: { annotations: { stolen: "yes" } } }),
    ]) {
      await expect(attempt()).rejects.toMatchObject({ status: 403 });
    }
    await ticketsOf(two, "node-2").release();
  });

  test("be used unbound: a token of the same account that is not bound to a pod is refused everything", async () => {
    const unbound = await clientWithToken();
    await expect(readOwnNode(unbound, "node-1")).rejects.toThrow("names no node");
    await expect(unbound.create(events, nodeEvent("node-1", "x"))).rejects.toMatchObject({ status: 403 });
    await expect(unbound.create(leases, lease(`${serviceAccount}-0`, "node-1", "x"))).rejects.toThrow("names no node");
  });

  test("others are not bound by the installers' policies", async () => {
    await admin.mergePatch(other, { metadata: { labels: { zone: "c" } } });
    expect((await node("node-2")).metadata.labels?.zone).toBe("c");
  });
});
