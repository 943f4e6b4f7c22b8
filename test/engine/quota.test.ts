import { afterAll, beforeAll, expect, test } from "vitest";
import { installerPod } from "../../components/config/installer-pod-schema.ts";
import { podTemplate } from "../../components/installer-pod.ts";
import { type Api, apiClient } from "../../node-installer/kubernetes/api.ts";
import { handlerLabel, systemNamespace as namespace } from "../../runtime/names.ts";
import { until } from "../until.ts";
import { type ApiServer, startApiServer } from "./api-server.ts";

/** A cluster that keeps the priority class of its own components for namespaces with a quota, as GKE does. */
let server: ApiServer;
let admin: Api;

beforeAll(async () => {
  const limited = { resource: "pods", matchScopes: [scope] };
  const kind = { apiVersion: "apiserver.config.k8s.io/v1", kind: "ResourceQuotaConfiguration" };
  server = await startApiServer({ admission: { ResourceQuota: { ...kind, limitedResources: [limited] } } });
  admin = apiClient(server.admin);
  await admin.create("/api/v1/namespaces", { metadata: { name: namespace } });
}, 900_000);
afterAll(async () => {
  await server?.stop();
});

const scope = { scopeName: "PriorityClass", operator: "In", values: ["system-node-critical"] };
const pods = `/api/v1/namespaces/${namespace}/pods`;
const spec = {
  ...{ schemaVersion: 1 as const, group: "workers", distribution: { name: "containerd" as const }, atOnce: 1 },
  ...{ runtimes: [], verifySandbox: false },
};
const installer = (name: string) => {
  const args = { group: "workers", image: "example.com/x", specName: "spec", spec, tolerations: [] };
  const template = podTemplate({
    ...{ ...args, priorityClass: "system-node-critical" },
    installerPod: installerPod.parse({ limits: { memory: "1Gi" } }),
  });
  return { metadata: { name }, spec: template.spec };
};

test("without the quota no installer is created, with it they are; the policy for their port is one", async () => {
  await expect(admin.create(pods, installer("before"))).rejects.toMatchObject({
    message: expect.stringContaining("insufficient quota to match these scopes"),
  });
  await server.kubectl("apply", "-f", "examples/policies/priority-class-quota.yaml");
  await until("the quota is counted", async () => {
    const { status } = await admin.get<{ status?: { hard?: object } }>(
      `/api/v1/namespaces/${namespace}/resourcequotas/contrast-installers`,
    );
    return status?.hard !== undefined || undefined;
  });
  await until("an installer is created", () =>
    admin.create(pods, installer("after")).then(
      () => true,
      () => undefined,
    ),
  );
  await server.kubectl("apply", "--dry-run=server", "-f", "examples/monitoring/network-policy.yaml");
});

test("with the policy for re-imaged nodes, a node that says it is another machine loses its handlers' labels at once", async () => {
  await server.kubectl("apply", "-f", "examples/policies/re-imaged-nodes.yaml");
  interface Node {
    metadata: { labels: Record<string, string> };
    status: { nodeInfo?: object; conditions?: { status: string }[] };
  }
  const [node, theirs] = ["/api/v1/nodes/worker", { "kubernetes.io/hostname": "worker" }];
  const handlers = { [handlerLabel("contrast-cc-metal-qemu-snp-01234567")]: "true", [handlerLabel("other")]: "true" };
  await admin.create("/api/v1/nodes", { metadata: { name: "worker", labels: { ...theirs, ...handlers } } });
  const says = async (machineID: string, ready: string) => {
    const nodeInfo = { machineID, bootID: crypto.randomUUID(), ...versions };
    const status = { nodeInfo, conditions: [{ type: "Ready", status: ready }] };
    return admin.mergePatch<Node>(`${node}/status`, { status });
  };
  const names = ["architecture", "containerRuntimeVersion", "kernelVersion", "kubeProxyVersion", "kubeletVersion"];
  const versions = Object.fromEntries([...names, "operatingSystem", "osImage", "systemUUID"].map((key) => [key, "x"]));
  // Its first status, and one after a reboot.
  await says("a", "True");
  let machine = 0;
  const written = await until("the policy is known to the server", async () => {
    const { metadata, status } = await says(`b${machine + 1}`, "True");
    machine += 1;
    return Object.keys(metadata.labels).some((key) => key in handlers) ? undefined : { metadata, status };
  });
  expect(written.metadata.labels).toEqual(theirs);
  // What it said is written, too.
  expect(written.status).toMatchObject({ nodeInfo: { machineID: `b${machine}` }, conditions: [{ status: "True" }] });

  await admin.mergePatch(node, { metadata: { labels: handlers } });
  const { metadata } = await says(`b${machine}`, "False");
  expect(metadata.labels).toEqual({ ...theirs, ...handlers });
});
