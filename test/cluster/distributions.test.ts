import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { distributions } from "../../runtime/distributions.ts";
import type { RuntimeSpec } from "../../runtime/spec.ts";
import { buildPrograms } from "../../tools/image/bundle.ts";
import { toStderr } from "../../tools/process/progress.ts";
import { goProgram } from "../../tools/programs/go.ts";
import { busyboxPod, until, useCluster } from "./harness.ts";
import { InstallerDaemonSet, pushInstaller } from "./installer-daemon-set.ts";
import { configPath, NodeWithInstaller } from "./installer-on-node.ts";
import { builtInOf, type Rendering, remove, renderings, start } from "./rendering-distributions.ts";
import { type SmallPayload, smallPayload, specOf } from "./small-payloads.ts";

/** Distributions that render containerd's configuration, as units on real nodes: they must serve the handler. */
const cluster = useCluster("distributions", [
  { name: "node-1" },
  { name: "node-2", containerd: "1.7" },
  { name: "node-3" },
]);

let directory: string;
let payload: SmallPayload;
const nodes = new Map<string, NodeWithInstaller>();

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "distributions-"));
  payload = await smallPayload(directory, "one");
  const { nodeInstaller } = await buildPrograms();
  for (const name of ["node-1", "node-2", "node-3"]) {
    const node = new NodeWithInstaller(cluster(), name);
    await node.prepare([nodeInstaller], [payload]);
    nodes.set(name, node);
  }
});
afterAll(() => rm(directory, { recursive: true, force: true }));

/** Each node is one distribution at a time, and all nodes work at once. */
describe.concurrent.each([
  { name: "node-1", containerd: "2.x", id: "io.containerd.cri.v1.runtime" },
  { name: "node-2", containerd: "1.7", id: "io.containerd.grpc.v1.cri" },
] as const)("containerd $containerd", ({ name, containerd, id }) => {
  const theirs = `[plugins."${id}".containerd.runtimes.theirs]\n  runtime_type = "io.containerd.runc.v2"\n`;
  describe.each(renderings[containerd])("$name", { concurrent: false }, (rendering) => {
    test("installs, survives the distribution's own restart, and keeps what others added", async () => {
      const node = nodes.get(name) as NodeWithInstaller;
      await start(node, rendering);
      try {
        await installAndUninstall(node, rendering, theirs);
      } finally {
        await remove(node, rendering);
      }
    });
  });
});

/**
 * AKS starts containerd as plain Debian does; only its snapshotter is special. containerd's own overlay snapshotter stands
 * in for tardev, and containerd reaches it in the same way.
 */
test.concurrent("aks: the payload's snapshotter runs beside the installer and holds the layers of the handler's pods", async () => {
  const node = nodes.get("node-3") as NodeWithInstaller;
  await node.run("mkdir", "-p", "/opt/azure/containers");
  const original = await node.read(configPath);
  const snapshotter = join(await tardevStandIn(), "tardev-snapshotter");
  const { runtime: local, ...rest } = await smallPayload(directory, "with-snapshotter", { snapshotter });
  // The platform says which snapshotter it is; everything else is what this machine can run.
  const runtime: RuntimeSpec = { ...local, platform: "aks-clh-snp" };
  const { handler, containerd } = runtime;
  const pool = new InstallerDaemonSet(cluster(), {
    group: "pool",
    image: await pushInstaller(cluster(), [{ runtime, ...rest }]),
    nodeNames: [node.name],
  });
  const rolledOut = async (runtimes: RuntimeSpec[]) => {
    await pool.apply(specOf("pool", runtimes, 1, "aks"));
    const { code, stdout, stderr } = await pool.rollout();
    expect(code, stdout + stderr).toBe(0);
  };
  const socket = containerd.proxyPlugin?.address ?? "";
  // containerd mounts what the snapshotter returns.
  const layers = async () => (await node.run("cat", "/proc/mounts")).split(`v1.tardev-${handler}`).length - 1;

  await rolledOut([runtime]);
  expect(await node.exists(socket)).toBe(true);
  await cluster().apply(
    { apiVersion: "node.k8s.io/v1", kind: "RuntimeClass", metadata: { name: handler }, handler },
    busyboxPod(cluster(), "layers", { nodeName: node.name, runtimeClassName: handler }),
  );
  await cluster().kubectl("wait", "--for=condition=Ready", "pod/layers", "--timeout=60s");
  // One for the sandbox and one for its container.
  expect(await layers()).toBeGreaterThanOrEqual(2);
  expect(await cluster().kubectl("exec", "layers", "--", "echo", "runs")).toBe("runs\n");

  await cluster().kubectl("delete", "pod", "layers", "--timeout=60s");
  await rolledOut([]);
  expect(await layers()).toBe(0);
  expect(await node.read(configPath)).toBe(original);
  expect(await node.exists(socket)).toBe(false);
});

const tardevStandIn = () =>
  goProgram(
    {
      name: "tardev-stand-in",
      version: "1",
      module: join(import.meta.dirname, "../stand-ins/tardev-snapshotter"),
      packages: ["."],
      duration: "some seconds",
    },
    toStderr,
  );

const leftovers = "find /etc /opt /var/lib -path /opt/test -prune -o -name '*contrast*' -not -path '*guard*' -print";

async function installAndUninstall(node: NodeWithInstaller, rendering: Rendering, theirs: string): Promise<void> {
  const { distribution, unit, socket, edited, foreign } = rendering;
  const { handler } = payload.runtime;
  const spec = specOf("workers", [payload.runtime], 1, distribution);
  const installer = async (command: string) => {
    const { code, stdout, stderr } = await node.installer(command, spec);
    expect(code, `${command}: ${stderr}${stdout}`).toBe(0);
  };
  const before = await until(`${unit} serves`, () => node.runtimes(socket));
  const serves = (...added: string[]) => {
    const wanted = [...before, ...added].toSorted().join();
    return until(`${unit} serves ${wanted}`, async () => (await node.runtimes(socket))?.join() === wanted || undefined);
  };
  const starts = () => node.run("systemctl", "show", unit, "--property=InvocationID");
  const [original, started] = [await node.read(edited), await starts()];

  await installer("install");
  await serves(handler);
  expect((await starts()) === started).toBe(distribution === "k0s");

  const place = foreign === edited ? await node.read(foreign) : "";
  await node.write(foreign, `${place}${theirs}`);
  if (distribution !== "k0s") await node.run("systemctl", "restart", unit);
  await serves(handler, "theirs");
  await installer("verify");

  if (rendering.upgrade !== undefined) {
    for (const [path, text] of Object.entries(rendering.upgrade(await builtInOf(node)))) await node.write(path, text);
    await node.run("systemctl", "restart", unit);
    await serves(handler, "theirs");
    // The place may be another on a new node; here nothing is to be done.
    const restarted = await starts();
    await installer("verify");
    await installer("install");
    expect(await starts()).toBe(restarted);
  }

  await installer("uninstall");
  await serves("theirs");
  // If somebody else has edited our template since, it keeps the line that includes the built-in template.
  const layout = distributions[distribution].edited;
  const made = layout.kind === "rendered" ? `${layout.templateBase}\n` : "";
  expect(await node.read(edited)).toBe(foreign === edited ? `${original ?? made}${theirs}` : original);
  expect(await node.run("sh", "-c", leftovers)).toBe("");
}
