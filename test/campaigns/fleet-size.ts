// fleet-size.ts [NODES, default 5000] [THROTTLED, default 0.1]: the fleet's commands on a real API server without kubelets,
// through a proxy that answers that part of all requests with 429 and breaks the connection of a hundredth. Prints what
// each command asked for and took; fails if one fails, or takes more than 300 MB. Needs some 4 GB of memory, and minutes.
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { type Api, apiClient } from "../../node-installer/kubernetes/api.ts";
import type { PublishedStatus } from "../../node-installer/kubernetes/status.ts";
import { installerLabels, installerName, specHash, statusAnnotation, systemNamespace } from "../../runtime/names.ts";
import { packageRoot } from "../../tools/files/project.ts";
import { each } from "../../tools/fleet/api.ts";
import { startApiServer } from "../engine/api-server.ts";
import { countingProxy } from "../engine/counting-proxy.ts";
import { until } from "../until.ts";

const nodes = Number(process.argv[2] ?? 5_000);
const throttled = Number(process.argv[3] ?? 0.1);
const mostMegabytes = 300;

const group = "metal";
const name = installerName(group);
const namespace = `/api/v1/namespaces/${systemNamespace}`;
const handler = "contrast-cc-metal-qemu-snp-0a1b2c3d";
const specOf = (runtimes: { handler: string }[]) =>
  `${JSON.stringify({ schemaVersion: 1, group, atOnce: 50, runtimes })}\n`;
const [spec, emptied] = [specOf([{ handler }]), specOf([])];
const nodeNames = Array.from(
  { length: nodes },
  (_, index) => `node-${String(index).padStart(5, "0")}.example.internal`,
);
const pool = { "example.com/pool": "metal" };

/** As large as a busy node's: mostly the names of its images. */
const images = Array.from({ length: 50 }, (_, index) => ({
  names: [
    `registry.example.com/team-${index}/service@sha256:${String(index).padStart(64, "0")}`,
    `registry.example.com/team-${index}/some-longer-name-of-a-service-that-runs-here:v1.2.${index}-build.${index}`,
    `mirror.example.com/cache/registry.example.com/team-${index}/service:v1.2.${index}`,
  ],
  sizeBytes: 123_456_789,
}));

const status = (state: PublishedStatus["state"], hash: string): string =>
  JSON.stringify({
    state,
    code: state,
    reason: state === "ready" ? "All that the spec lists is served." : "The payload is copied.",
    handlers: hash === specHash(spec) && state === "ready" ? [handler] : [],
    pods: [],
    specHash: hash,
    time: new Date().toISOString(),
  });

const ready = { conditions: [{ type: "Ready", status: "True" }] };

async function makeFleet(api: Api): Promise<void> {
  await until("the namespaces", async () => {
    await api.create("/api/v1/namespaces", { metadata: { name: systemNamespace } });
    return true;
  });
  await api.create(`${namespace}/serviceaccounts`, { metadata: { name: "bundle-reader" } });
  await api.create(`${namespace}/configmaps`, { metadata: { name: `${name}-spec` }, data: { "spec.json": spec } });
  const daemonSets = `/apis/apps/v1/namespaces/${systemNamespace}/daemonsets`;
  const labels = installerLabels(group);
  const volumes = [{ name: "spec", configMap: { name: `${name}-spec` } }];
  const containers = [
    {
      name: "installer",
      image: "none",
      env: Array.from({ length: 60 }, (_, n) => ({ name: `PADDING_${n}`, value: "x".repeat(80) })),
    },
  ];
  const made = await api.create<{ metadata: { uid: string; generation: number } }>(daemonSets, {
    metadata: { name, labels },
    spec: {
      selector: { matchLabels: { "app.kubernetes.io/name": name } },
      template: { metadata: { labels }, spec: { nodeSelector: pool, containers, volumes } },
    },
  });
  await api.mergePatch(`${daemonSets}/${name}/status`, {
    status: {
      desiredNumberScheduled: nodes,
      currentNumberScheduled: nodes,
      numberMisscheduled: 0,
      numberReady: nodes,
      observedGeneration: made.metadata.generation,
    },
  });
  await api.create(`/apis/apps/v1/namespaces/${systemNamespace}/controllerrevisions`, {
    metadata: {
      name: `${name}-1`,
      labels: { ...labels, "controller-revision-hash": "1" },
      ownerReferences: [{ apiVersion: "apps/v1", kind: "DaemonSet", name, uid: made.metadata.uid, controller: true }],
    },
    revision: 1,
    data: {},
  });
  await each(nodeNames, async (node) => {
    const nodeInfo = Object.fromEntries(
      [
        "machineID",
        "systemUUID",
        "bootID",
        "kernelVersion",
        "osImage",
        "kubeletVersion",
        "kubeProxyVersion",
        "operatingSystem",
        "architecture",
      ].map((key) => [key, "x".repeat(36)]),
    );
    await api.create("/api/v1/nodes", {
      metadata: {
        name: node,
        labels: pool,
        annotations: { [statusAnnotation(group)]: status("working", specHash(spec)) },
      },
      spec: { taints: [] },
      status: { ...ready, images, nodeInfo: { ...nodeInfo, containerRuntimeVersion: "containerd://2.4.2" } },
    });
    const pod = `${name}-${node}`;
    await api.create(`${namespace}/pods`, {
      metadata: { name: pod, labels: { ...labels, "controller-revision-hash": "1" } },
      spec: { nodeName: node, containers, volumes, terminationGracePeriodSeconds: 0 },
    });
    await api.mergePatch(`${namespace}/pods/${pod}/status`, { status: { phase: "Running", ...ready } });
  });
}

/** What installers report, one node after the other. */
const report = (api: Api, hash: string, part = nodeNames) =>
  each(part, (node) =>
    api.mergePatch(`/api/v1/nodes/${node}`, {
      metadata: { annotations: { [statusAnnotation(group)]: status("ready", hash) } },
    }),
  );

const server = await startApiServer({ controllers: ["ttl-controller"] });
const proxy = await countingProxy(server.kubeconfig);
const directory = mkdtempSync(join(tmpdir(), "fleet-size-"));
let failed = false;

/** Runs the bin and prints a row; `meanwhile` may end it early, which is no failure. */
async function command(
  what: string,
  words: string[],
  meanwhile?: (kill: () => void) => Promise<unknown>,
): Promise<void> {
  Object.assign(proxy.counts, { connections: 0, throttled: 0, broken: 0, bytes: 0 });
  proxy.passed.length = 0;
  const startedAt = performance.now();
  const child = spawn(process.execPath, [join(packageRoot, "tools/cli/main.ts"), ...words], {
    env: { PATH: process.env.PATH, KUBECONFIG_CONTENT: proxy.kubeconfig },
  });
  let [killed, bytes, lines, errors, peak] = [false, 0, 0, "", 0];
  for (const stream of [child.stdout, child.stderr])
    stream.on("data", (chunk: Buffer) => {
      bytes += chunk.length;
      lines += chunk.filter((byte) => byte === 10).length;
    });
  child.stderr.on("data", (chunk: Buffer) => {
    errors += chunk;
  });
  const ended = new Promise<number | null>((resolve) => child.on("close", resolve));
  const watch = setInterval(() => {
    const [, kilobytes] = /VmHWM:\s+(\d+)/.exec(readFileSync(`/proc/${child.pid}/status`, "utf8")) ?? [];
    peak = Math.max(peak, Number(kilobytes ?? 0) / 1_000);
  }, 100);
  child.on("exit", () => clearInterval(watch));
  await meanwhile?.(() => {
    killed = true;
    child.kill("SIGKILL");
  });
  const code = await ended;
  const seconds = (performance.now() - startedAt) / 1_000;
  const { connections, throttled: answered429, broken, bytes: wire } = proxy.counts;
  const requests = proxy.passed.length + answered429 + broken;
  const isGood = (killed || code === 0) && peak <= mostMegabytes;
  if (!isGood) failed = true;
  const cells = [
    what,
    `${requests}`,
    (requests / nodes).toFixed(2),
    `${answered429}+${broken}`,
    `${connections}`,
    (wire / 1e6).toFixed(1),
    seconds.toFixed(1),
    peak.toFixed(0),
    `${lines} / ${(bytes / 1e3).toFixed(1)}`,
    isGood ? "ok" : `exit ${code}: ${errors.slice(-300)}`,
  ];
  console.log(`| ${cells.join(" | ")} |`);
}

try {
  const api = apiClient(server.admin, 60_000);
  console.error(`Making ${nodes} nodes and their installers' pods …`);
  await makeFleet(api);
  proxy.instead = (path) => (path.endsWith("/proxy/bundle") ? "x".repeat(31_000) : undefined);
  proxy.next = () => {
    const random = Math.random();
    return random < throttled ? "throttle" : random < throttled + 0.01 ? "break" : undefined;
  };
  console.log(
    "| command | requests | per node | 429s + breaks | connections | MB received | s | RSS, MB | lines / kB said | |",
  );
  console.log(`|${" --- |".repeat(10)}`);
  const rollout = ["rollout", "--group", group, "--spec-hash", specHash(spec)];
  await command("rollout, all at work until reported", rollout, async () => {
    await until("its first look", async () => proxy.passed.some((path) => path.includes("/leases")));
    await report(api, specHash(spec));
  });
  await command("rollout of what is ready", rollout);
  await command("status", ["status"]);
  await command("status --json", ["status", "--json"]);
  await command("review collect", ["review", "collect", "--output", join(directory, "bundles")]);
  const uninstall = ["uninstall", "--group", group];
  const patches = () => proxy.passed.filter((line) => line.startsWith("PATCH")).length;
  await command("uninstall, killed", uninstall, async (kill) => {
    await until("half of the pods", async () => patches() > nodes / 2, 600_000);
    kill();
  });
  await command("uninstall, again, killed", uninstall, async (kill) => {
    await until("all pods", async () => patches() >= nodes + 4, 600_000);
    await report(api, specHash(emptied));
    await until("half of the reports' end", async () => patches() > 1.5 * nodes, 600_000);
    kill();
  });
  await command("uninstall, for the third time", uninstall);
  await delay(0);
} finally {
  await proxy.close();
  await server.stop();
  rmSync(directory, { recursive: true, force: true });
}
process.exitCode = failed ? 1 : 0;
