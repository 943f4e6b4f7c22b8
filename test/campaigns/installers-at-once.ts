/**
 * What other users of an API server notice of many installers: as many processes as nodes, each with the product's own
 * client, tickets, reports and confinement and the bound token of its pod, ask a real kube-apiserver with its default
 * priority and fairness, all from the same moment on. Somebody with a ServiceAccount of their own, which shares its
 * priority level with the installers, measures their own requests meanwhile.
 *
 *   node test/campaigns/installers-at-once.ts [PROCESSES, default 100] [AT_ONCE, default 10]
 *
 * What happens on a node is a pause of 3 s. The processes have started and wait before anything is measured, and they get
 * only the time that nobody else wants: what they cost this machine, they would cost their own nodes. The machine must be
 * otherwise idle. Fails if a request of theirs times out, if a node is not done, or if the others' 95th percentile is above
 * 1.2 times that of the time before and after.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { installerIdentity } from "../../components/manifests/identity.ts";
import { type Api, apiClient } from "../../node-installer/kubernetes/api.ts";
import type { NodeObject } from "../../node-installer/kubernetes/node.ts";
import { installerName, labelledHandlers, systemNamespace as namespace } from "../../runtime/names.ts";
import { each } from "../../tools/fleet/api.ts";
import { startApiServer } from "../engine/api-server.ts";
import { simulatedInstaller } from "../fakes/simulated-installer.ts";
import { until } from "../until.ts";

const group = "metal";
const handler = "contrast-cc-metal-qemu-snp-0a1b2c3d";
const holdMs = 3_000;
const longestQuietMs = 30_000;

interface Told {
  address: { baseUrl: string; tokenFile: string; caFile: string };
  nodeName: string;
  atOnce: number;
}
interface Result {
  seconds: number;
  requests: number;
  /** Messages. */
  errors: string[];
}

async function beInstaller({ address, nodeName, atOnce }: Told): Promise<Result> {
  const result: Result = { seconds: 0, requests: 0, errors: [] };
  const onError = (error: Error) => result.errors.push(error.message);
  const counted = <T>(call: Promise<T>): Promise<T> => {
    result.requests += 1;
    return call;
  };
  const client = apiClient(address);
  const api: Api = {
    get: (path) => counted(client.get(path)),
    create: (path, object) => counted(client.create(path, object)),
    mergePatch: (path, patch) => counted(client.mergePatch(path, patch)),
    delete: (path, preconditions) => counted(client.delete(path, preconditions)),
  };
  const installer = simulatedInstaller({
    ...{ api, group, namespace, nodeName, atOnce, handler, specHash: "0".repeat(64), random: Math.random, onError },
    now: () => new Date(),
    uptime: () => performance.now(),
    delay: (ms) => delay(ms),
  });
  process.send?.("ready");
  await once(process, "message");
  const began = performance.now();
  await installer.prepare();
  await installer.takeTicket();
  await delay(holdMs);
  await installer.passGate();
  await installer.succeed();
  await installer.flush();
  result.seconds = (performance.now() - began) / 1_000;
  return result;
}

async function campaign(processes: number, atOnce: number): Promise<void> {
  const server = await startApiServer({ controllers: ["garbage-collector-controller", "serviceaccount-controller"] });
  const children: ChildProcess[] = [];
  try {
    const admin = apiClient(server.admin, 60_000);
    await makeIdentity(admin, atOnce);
    const tokenOf = async (account: string, boundObjectRef?: object) => {
      const request = { spec: { expirationSeconds: 7_200, ...(boundObjectRef && { boundObjectRef }) } };
      const path = `/api/v1/namespaces/${namespace}/serviceaccounts/${account}/token`;
      const { status } = await admin.create<{ status: { token: string } }>(path, request);
      return server.withToken(status.token);
    };
    const names = Array.from({ length: processes }, (_, index) => `node-${index}`);
    const told = await each(names, async (nodeName): Promise<Told> => {
      await admin.create("/api/v1/nodes", { metadata: { name: nodeName } });
      const { uid } = (
        await admin.create<NodeObject>(`/api/v1/namespaces/${namespace}/pods`, {
          metadata: { name: `installer-${nodeName}` },
          spec: {
            ...{ nodeName, serviceAccountName: installerName(group) },
            containers: [{ name: "installer", image: "none" }],
          },
        })
      ).metadata;
      const pod = { kind: "Pod", apiVersion: "v1", name: `installer-${nodeName}`, uid };
      return { address: await tokenOf(installerName(group), pod), nodeName, atOnce };
    });
    const other = apiClient(await tokenOf("somebody"));
    await until("somebody's rights", () => other.get("/api/v1/nodes?limit=1").then(() => true));

    console.error(`Starting ${processes} processes …`);
    const results: Promise<Result>[] = [];
    for (const one of told) {
      const child = spawn(
        "chrt",
        ["--idle", "0", process.execPath, fileURLToPath(import.meta.url), "as", JSON.stringify(one)],
        {
          stdio: ["ignore", "inherit", "inherit", "ipc"],
        },
      );
      children.push(child);
      await once(child, "message");
      results.push(once(child, "message").then(([result]) => result as Result));
    }

    const before = await measure(other, () => delay(longestQuietMs));
    const daemonSet = `/apis/apps/v1/namespaces/${namespace}/daemonsets/${installerName(group)}/status`;
    const all = Promise.all(results);
    let done = 0;
    for (const result of results) void result.then(() => (done += 1));
    const during = await measure(other, async () => {
      for (const child of children) child.send("go");
      // As its controller keeps it.
      const counts = { desiredNumberScheduled: processes, currentNumberScheduled: processes, numberMisscheduled: 0 };
      while (done < processes) {
        await admin.mergePatch(daemonSet, { status: { ...counts, numberReady: done } });
        await Promise.race([all, delay(1_000)]);
      }
    });
    const ended = await all;
    const after = await measure(other, () => delay(longestQuietMs));

    const p95 = (sample: readonly number[]) => sample.toSorted((a, b) => a - b)[Math.floor(0.95 * sample.length)] ?? 0;
    const quiet = p95([...before, ...after]);
    const row = (what: string, sample: readonly number[]) =>
      console.log(
        `${what}: ${sample.length} requests, p50 ${median(sample).toFixed(1)} ms, p95 ${p95(sample).toFixed(1)} ms`,
      );
    console.log(`load ${readFileSync("/proc/loadavg", "utf8").split(" ").slice(0, 3).join(" ")}`);
    row("others before", before);
    row("others during", during);
    row("others after", after);
    const ratio = p95(during) / quiet;
    console.log(`p95 during / p95 without: ${ratio.toFixed(2)}`);
    const requests = ended.reduce((sum, one) => sum + one.requests, 0) / processes;
    const slowest = Math.max(...ended.map(({ seconds }) => seconds));
    const ideal = (processes / atOnce) * (holdMs / 1_000);
    console.log(
      `installers: ${requests.toFixed(1)} requests each; the last done after ${slowest.toFixed(0)} s (ideal ${ideal} s)`,
    );
    const errors = ended.flatMap((one) => one.errors);
    for (const [text, of] of Map.groupBy(errors, (message) => message.replace(/node-\d+|[0-9a-f]{16}/g, "…")))
      console.log(`${of.length} × ${text}`);
    const { items } = await admin.get<{ items: NodeObject[] }>("/api/v1/nodes");
    const undone = items.filter(({ metadata }) => !labelledHandlers(metadata.labels).includes(handler)).length;
    const timeouts = errors.filter((message) => message.includes("no answer within")).length;
    if (undone > 0 || timeouts > 0) throw new Error(`${undone} nodes are not done, ${timeouts} requests timed out`);
    if (ratio > 1.2) throw new Error("others waited more than 1.2 times as long");
  } finally {
    for (const child of children) child.kill();
    await server.stop();
  }
}

const median = (sample: readonly number[]): number =>
  sample.toSorted((a, b) => a - b)[Math.floor(sample.length / 2)] ?? 0;

/** Milliseconds of somebody's requests while this lasts: ten a second, reads and a write. */
async function measure(api: Api, meanwhile: () => Promise<unknown>): Promise<number[]> {
  const taken: number[] = [];
  let over = false;
  const end = meanwhile().finally(() => {
    over = true;
  });
  const requests = [
    () => api.get("/api/v1/nodes?limit=10"),
    () => api.get(`/api/v1/namespaces/default/configmaps/somebodys`),
    () => api.mergePatch(`/api/v1/namespaces/default/configmaps/somebodys`, { data: { at: String(Date.now()) } }),
  ];
  for (let turn = 0; !over; turn += 1) {
    const began = performance.now();
    await requests[turn % requests.length]?.();
    taken.push(performance.now() - began);
    await delay(100);
  }
  await end;
  return taken;
}

async function makeIdentity(admin: Api, atOnce: number): Promise<void> {
  const identity = installerIdentity({ namespace, group, atOnce });
  const rbac = "/apis/rbac.authorization.k8s.io/v1";
  const admission = "/apis/admissionregistration.k8s.io/v1";
  for (const name of [namespace, "default"])
    await until(`namespace ${name}`, () =>
      admin.create("/api/v1/namespaces", { metadata: { name } }).then(
        () => true,
        (error) => error.status === 409,
      ),
    );
  const accounts = `/api/v1/namespaces/${namespace}/serviceaccounts`;
  await admin.create(accounts, identity.serviceAccount);
  await admin.create(accounts, { metadata: { name: "somebody" } });
  await admin.create("/api/v1/namespaces/default/configmaps", { metadata: { name: "somebodys" }, data: {} });
  const rules = [{ apiGroups: [""], resources: ["nodes", "configmaps"], verbs: ["get", "list", "patch"] }];
  await admin.create(`${rbac}/clusterroles`, { metadata: { name: "somebody" }, rules });
  await admin.create(`${rbac}/clusterrolebindings`, {
    metadata: { name: "somebody" },
    roleRef: { apiGroup: "rbac.authorization.k8s.io", kind: "ClusterRole", name: "somebody" },
    subjects: [{ kind: "ServiceAccount", name: "somebody", namespace }],
  });
  for (const policy of identity.policies) await admin.create(`${admission}/validatingadmissionpolicies`, policy);
  for (const binding of identity.policyBindings)
    await admin.create(`${admission}/validatingadmissionpolicybindings`, binding);
  await admin.create(`${rbac}/clusterroles`, identity.clusterRole);
  await admin.create(`${rbac}/clusterrolebindings`, identity.clusterRoleBinding);
  for (const role of [identity.ticketRole, identity.eventRole])
    await admin.create(`${rbac}/namespaces/${role.metadata.namespace}/roles`, role);
  for (const binding of [identity.ticketRoleBinding, identity.eventRoleBinding])
    await admin.create(`${rbac}/namespaces/${binding.metadata.namespace}/rolebindings`, binding);
  const labels = { app: "installer" };
  await admin.create(`/apis/apps/v1/namespaces/${namespace}/daemonsets`, {
    metadata: { name: installerName(group) },
    spec: {
      selector: { matchLabels: labels },
      template: { metadata: { labels }, spec: { containers: [{ name: "installer", image: "none" }] } },
    },
  });
  // The API server takes a moment to compile new policies.
  await delay(5_000);
}

const [first, second] = process.argv.slice(2);
if (first === "as") {
  const result = await beInstaller(JSON.parse(second ?? "") as Told);
  process.send?.(result);
  process.disconnect();
} else await campaign(Number(first ?? 100), Number(second ?? 10));
