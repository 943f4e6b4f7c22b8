import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { buildPrograms } from "../../tools/image/bundle.ts";
import { containersOf, runPod, until, useCluster } from "./harness.ts";
import { handlersOf, NodeWithInstaller } from "./installer-on-node.ts";
import { builtInOf, type Rendering, start, upgradable } from "./rendering-distributions.ts";
import { type SmallPayload, smallPayload, specOf } from "./small-payloads.ts";

/**
 * Distributions that render containerd's configuration are upgraded while a pod of a class of ours runs, with the node's
 * kubelet as theirs. The pod runs on in the container that it started in, our handler is served afterwards, from wherever
 * containerd reads then, and an uninstallation leaves the distribution's and the administrator's files alone.
 */
const cluster = useCluster("upgraded-rendered", [
  { name: "node-1", containerd: "1.7" },
  { name: "node-2", containerd: "1.7" },
  { name: "node-3", containerd: "2.4" },
]);

let directory: string;
let payload: SmallPayload;
const nodes = new Map<string, NodeWithInstaller>();

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "upgraded-distributions-"));
  payload = await smallPayload(directory, "one");
  const { nodeInstaller } = await buildPrograms();
  for (const name of ["node-1", "node-2", "node-3"]) {
    const node = new NodeWithInstaller(cluster(), name);
    await node.prepare([nodeInstaller], [payload]);
    await node.run("sh", "-c", "mkdir -p /opt/cni && ln -s /usr/lib/cni /opt/cni/bin");
    nodes.set(name, node);
  }
  const { handler } = payload.runtime;
  await cluster().apply({ apiVersion: "node.k8s.io/v1", kind: "RuntimeClass", metadata: { name: handler }, handler });
});
afterAll(() => rm(directory, { recursive: true, force: true }));

const leftovers = "find /etc /opt /var/lib -path /opt/test -prune -o -name '*contrast*' -not -path '*timer.d*' -print";

/** A node of that distribution, with our handler and a pod of its class and one of runc's. */
async function running(name: string, rendering: Rendering) {
  const node = nodes.get(name) as NodeWithInstaller;
  const { unit, socket, distribution } = rendering;
  const { handler } = payload.runtime;
  const spec = specOf("workers", [payload.runtime], 1, distribution);
  await start(node, rendering);
  await until(`${unit} serves`, () => node.runtimes(socket));
  await node.run(
    "sed",
    "-i",
    `s@unix:///run/containerd/containerd.sock@unix://${socket}@`,
    "/etc/kubernetes/kubelet.json",
  );
  await node.run("systemctl", "restart", "kubelet");

  const done = async (command: string) => {
    const { code, stdout, stderr } = await node.installer(command, spec);
    expect(code, `${command}: ${stderr}${stdout}`).toBe(0);
    return stderr;
  };
  const starts = () => node.run("systemctl", "show", unit, "--property=InvocationID");
  await done("install");
  const [ours, runc] = [`ours-${name}`, `beside-${name}`];
  await runPod(cluster(), ours, { nodeName: name, runtimeClassName: handler });
  await runPod(cluster(), runc, { nodeName: name });
  const look = async () => [await containersOf(cluster(), ours), await containersOf(cluster(), runc)];
  const containers = await look();

  const serves = () => until(`${unit} serves`, async () => (await node.runtimes(socket))?.includes(handler));
  return {
    node,
    spec,
    done,
    serves,
    /** All is as the spec wants it, nothing is left to do, and pods run, old ones and new ones. */
    async inStep() {
      await serves();
      const started = await starts();
      expect(await done("install")).toContain("Nothing to do");
      await done("verify");
      expect(await starts()).toBe(started);
      await until("kubelet speaks with containerd", async () => {
        const { code, stdout } = await cluster().tryKubectl(["exec", ours, "--", "echo", "runs"]);
        return code === 0 && stdout === "runs\n";
      });
      expect(await look()).toEqual(containers);
      await runPod(cluster(), `new-${ours}`, { nodeName: name, runtimeClassName: handler });
      await cluster().kubectl("delete", "pod", `new-${ours}`, "--timeout=60s");
    },
    /** Whether both pods' processes are there, asked of nobody but the node. */
    podsRun: async () =>
      (await node.run("sh", "-c", "grep -al '[t]rap exit TERM' /proc/[0-9]*/cmdline | wc -l")).trim() === "2",
    async uninstalled() {
      const refused = await node.installer("uninstall", spec);
      expect(refused.code).toBe(3);
      expect(refused.stderr).toContain(`default/${ours}`);
      await cluster().kubectl("delete", "pod", ours, "--timeout=60s");
      await until("the sandboxes are gone", async () => (await node.installer("uninstall", spec)).code === 0, 180_000);
      await until("only theirs", async () => (await node.runtimes(socket))?.includes(handler) === false);
      expect(await containersOf(cluster(), runc)).toEqual(containers[1]);
      expect(await node.run("sh", "-c", leftovers)).toBe("");
    },
  };
}

/** As the distribution would render it with containerd 2.x. */
async function migrated(node: NodeWithInstaller): Promise<string> {
  await node.write("/opt/test/built-in.toml", await builtInOf(node));
  const text = await node.run("containerd", "-c", "/opt/test/built-in.toml", "config", "migrate");
  return text.replace(/^imports = .*\n/m, "");
}

const handler = () => payload.runtime.handler;
const folder = (name: "k3s" | "rke2") => `/var/lib/rancher/${name}/agent/etc/containerd`;

test.concurrent("k0s 1.35 → 1.36 with our drop-in in place, and the remedy that plan and the manual give", async () => {
  const { k0s, k0sFrom136 } = upgradable;
  const { node, spec, done, inStep, podsRun, serves, uninstalled } = await running("node-1", k0s);
  const drop = k0s.edited;
  expect((await node.installer("plan", spec)).stdout).toContain(`delete ${drop} on the node and start k0s`);
  await node.run("systemctl", "stop", k0s.unit);
  await node.replaceContainerd("2.2");
  const builtIn = await migrated(node);
  await start(node, { ...k0sFrom136, files: () => k0sFrom136.files(builtIn) });
  await until("k0s refuses its drop-in", async () =>
    (await node.run("journalctl", "--unit", k0s.unit, "--output=cat")).includes("another version than 3"),
  );
  expect(await podsRun()).toBe(true);

  await node.run("rm", drop);
  await node.run("systemctl", "restart", k0s.unit);
  await until("k0s serves", () => node.runtimes(k0s.socket));
  await done("install");
  await serves();
  expect(await node.read(drop)).toContain("version = 3");
  await inStep();
  await uninstalled();
  expect(await node.exists(drop)).toBe(false);
});

test.concurrent("k3s, containerd 1.7 → 2.2, whose older template stays until somebody adds one of the new name", async () => {
  const { k3s } = upgradable;
  const { node, done, inStep, uninstalled } = await running("node-2", k3s);
  const { unit, edited } = k3s;
  const data = "/var/lib/rancher/k3s";
  const ours = await node.read(edited);
  expect(handlersOf(ours)).toEqual([handler()]);
  await node.replaceContainerd("2.2");
  const imports = (version: string) => `imports = ["${folder("k3s")}/config${version}.toml.d/*.toml"]\n`;
  await node.write(`${data}/base.toml`, `${imports("")}${await builtInOf(node)}`);
  await node.write(`${data}/base-v3.toml`, `${imports("-v3")}${await migrated(node)}`);
  await node.run("systemctl", "restart", unit);
  await inStep();
  expect(await node.read(edited)).toBe(ours);

  const theirs = `{{ template "base" . }}\n# by the platform team\n`;
  await node.write(`${folder("k3s")}/config-v3.toml.tmpl`, theirs);
  await node.run("systemctl", "restart", unit);
  await until(
    "the old template is no longer read",
    async () => (await node.runtimes(k3s.socket))?.includes(handler()) === false,
  );
  await done("install");
  await inStep();
  const drop = `${folder("k3s")}/config-v3.toml.d/contrast-runtime.toml`;
  expect(handlersOf(await node.read(drop))).toEqual([handler()]);
  expect(await node.exists(edited)).toBe(false);
  await uninstalled();
  expect(await node.exists(drop)).toBe(false);
  expect(await node.read(`${folder("k3s")}/config-v3.toml.tmpl`)).toBe(theirs);
});

test.concurrent("rke2, from a release without drop-ins to one that imports them", async () => {
  const { rke2 } = upgradable;
  const { node, inStep, uninstalled } = await running("node-3", rke2);
  const { unit, edited, upgrade } = rke2;
  const ours = await node.read(edited);
  for (const [path, text] of Object.entries(upgrade?.(await builtInOf(node)) ?? {})) await node.write(path, text);
  await node.run("systemctl", "restart", unit);
  await inStep();
  expect(await node.read(edited)).toBe(ours);

  // Whoever removes the template has our tables go to the drop-in.
  await node.run("rm", edited);
  await node.run("systemctl", "restart", unit);
  await until("nothing of ours is read", async () => (await node.runtimes(rke2.socket))?.includes(handler()) === false);
  expect((await node.installer("install", specOf("workers", [payload.runtime], 1, "rke2"))).code).toBe(0);
  await inStep();
  const drop = `${folder("rke2")}/config-v3.toml.d/contrast-runtime.toml`;
  expect(handlersOf(await node.read(drop))).toEqual([handler()]);
  await uninstalled();
  expect(await node.exists(drop)).toBe(false);
  expect(await node.exists(edited)).toBe(false);
});
