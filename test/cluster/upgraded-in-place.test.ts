import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { openCri } from "../../node-installer/containerd/cri.ts";
import { readServing } from "../../node-installer/containerd/serving.ts";
import { restartsPath } from "../../node-installer/host/restart-budget.ts";
import type { ContainerdVersion } from "../../runtime/containerd-versions.ts";
import { buildPrograms } from "../../tools/image/bundle.ts";
import { containersOf, runPod, until, useCluster } from "./harness.ts";
import { configPath, NodeWithInstaller } from "./installer-on-node.ts";
import { type SmallPayload, smallPayload, specOf } from "./small-payloads.ts";

/**
 * containerd is upgraded on nodes, from 1.7 over 2.0 to 2.4, while a pod of a class of ours runs: its file left as it is, or
 * written anew by `containerd config migrate`, or the new program loaded by nobody but the installer. After each step the
 * handler is served, nothing is left to do, runtimes come and go with one restart each, and the pod runs in the container
 * that it started in. In the end the file is what it would be without us.
 */
type Way = "with its file as it is" | "with its file migrated" | "loaded by the installer's own restart";
const ways: { name: string; way: Way }[] = [
  { name: "node-1", way: "with its file as it is" },
  { name: "node-2", way: "with its file migrated" },
  { name: "node-3", way: "loaded by the installer's own restart" },
];
const cluster = useCluster(
  "upgraded",
  ways.map(({ name }) => ({ name, containerd: "1.7" as const })),
);

let directory: string;
let one: SmallPayload;
let two: SmallPayload;
const nodes = new Map<string, NodeWithInstaller>();

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "upgraded-"));
  one = await smallPayload(directory, "one");
  two = await smallPayload(directory, "two");
  const { nodeInstaller } = await buildPrograms();
  for (const { name } of ways) {
    const node = new NodeWithInstaller(cluster(), name);
    await node.prepare([nodeInstaller], [one, two]);
    // Migrated by 2.0, a file has `bin_dir`, which 2.4 ignores: it then looks for CNI plugins here.
    await node.run("sh", "-c", "mkdir -p /opt/cni && ln -s /usr/lib/cni /opt/cni/bin");
    nodes.set(name, node);
  }
  const { handler } = one.runtime;
  await cluster().apply({ apiVersion: "node.k8s.io/v1", kind: "RuntimeClass", metadata: { name: handler }, handler });
});
afterAll(() => rm(directory, { recursive: true, force: true }));

/** The file without us, which gets the same treatment. */
const beside = "/opt/test/without-us.toml";
const migrate = (file: string) =>
  `containerd -c ${file} config migrate >${file}.migrated && mv ${file}.migrated ${file}`;
const dump = (node: NodeWithInstaller, file: string) => node.run("containerd", "-c", file, "config", "dump");
/** An administrator's table behind ours, which comes with the first upgrade. */
const theirs = `[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.theirs]\n  runtime_type = "io.containerd.runc.v2"\n`;
const leftovers = "find /etc /opt /var/lib -path /opt/test -prune -o -name '*contrast*' -not -path '*timer.d*' -print";

const restarts = async (node: NodeWithInstaller) =>
  ((await node.read(restartsPath)) ?? "").split("\n").filter((line) => line !== "").length;
const invocation = (node: NodeWithInstaller) =>
  node.run("systemctl", "show", "containerd.service", "--property=InvocationID");

async function servedVersion(node: NodeWithInstaller): Promise<string> {
  const cri = openCri(join(await node.root(), "run/containerd/containerd.sock"));
  return (await readServing(cri, 5_000)).version.replace(/^v/, "");
}

describe.concurrent.each(ways)("$name, $way", ({ name, way }) => {
  test("containerd 1.7, 2.0, 2.4", async () => {
    const node = nodes.get(name) as NodeWithInstaller;
    const { handler } = one.runtime;
    const spec = (...payloads: SmallPayload[]) =>
      specOf(
        "workers",
        payloads.map(({ runtime }) => runtime),
      );
    const done = async (command: string, text: string) => {
      const { code, stdout, stderr } = await node.installer(command, text);
      expect(code, `${command}: ${stderr}${stdout}`).toBe(0);
      return stderr;
    };
    const inStep = async (version: string, handlers: SmallPayload[]) => {
      const wanted = handlers.map(({ runtime }) => runtime.handler).toSorted();
      expect(await servedVersion(node)).toMatch(new RegExp(`^${version.replace(".", "\\.")}\\.`));
      expect(await node.served()).toEqual(wanted);
      const [file, started] = [await node.read(configPath), await invocation(node)];
      expect(await done("install", spec(...handlers))).toContain("Nothing to do");
      expect((await node.installer("plan", spec(...handlers))).stdout).toBe("Nothing to do.\n");
      await done("verify", spec(...handlers));
      expect([await node.read(configPath), await invocation(node)]).toEqual([file, started]);
    };

    const original = (await node.read(configPath)) ?? "";
    await node.write(beside, original);
    await done("install", spec(one));
    await inStep("1.7", [one]);
    const [ours, runc] = [`ours-${name}`, `beside-${name}`];
    await runPod(cluster(), ours, { nodeName: name, runtimeClassName: handler });
    await runPod(cluster(), runc, { nodeName: name });
    const containers = [await containersOf(cluster(), ours), await containersOf(cluster(), runc)];
    let expected = 1;

    for (const [version, handlers] of [
      ["2.0", [one, two]],
      ["2.4", [one]],
    ] satisfies [ContainerdVersion, SmallPayload[]][]) {
      const before = version === "2.0" ? [one] : [one, two];
      await node.replaceContainerd(version);
      if (version === "2.0") {
        for (const file of [configPath, beside]) await node.write(file, `${await node.read(file)}${theirs}`);
      }
      if (way === "with its file migrated") {
        for (const file of [configPath, beside]) await node.run("sh", "-c", migrate(file));
      }
      const change = spec(...handlers);
      if (way === "loaded by the installer's own restart") {
        const { code, stderr } = await node.installer("install", change);
        expect(code, stderr).toBe(3);
        expect(stderr).toContain(`but /usr/bin/containerd is ${version}.`);
        await done("install", JSON.stringify({ ...JSON.parse(change), loadPendingChanges: true }));
      } else {
        await node.run("systemctl", "restart", "containerd.service");
        await until("the CRI answers", () => node.served());
        await inStep(version, before);
        await done("install", change);
      }
      expected += 1;
      await inStep(version, handlers);
      expect(await node.runtimes()).toContain("theirs");
      expect(await restarts(node)).toBe(expected);

      expect([await containersOf(cluster(), ours), await containersOf(cluster(), runc)]).toEqual(containers);
      await until("kubelet speaks with the new containerd", async () => {
        const { code, stdout } = await cluster().tryKubectl(["exec", ours, "--", "echo", "runs"]);
        return code === 0 && stdout === "runs\n";
      });
      await runPod(cluster(), `new-${ours}`, { nodeName: name, runtimeClassName: handler });
      await cluster().kubectl("delete", "pod", `new-${ours}`, "--timeout=60s");
    }

    const refused = await node.installer("uninstall", spec());
    expect(refused.code).toBe(3);
    expect(refused.stderr).toMatch(new RegExp(`Still used on this node: ${handler} \\(.*default/${ours}`));
    await cluster().kubectl("delete", "pod", ours, "--timeout=60s");
    // Until kubelet removes what is left of a pod, containerd knows its sandbox.
    await until("the sandboxes are gone", async () => (await node.installer("uninstall", spec())).code === 0, 180_000);
    expect(await node.served()).toEqual([]);
    expect(await containersOf(cluster(), runc)).toEqual(containers[1]);
    expect(await node.run("sh", "-c", leftovers)).toBe("");
    const left = (await node.read(configPath)) ?? "";
    if (way === "with its file migrated") expect(await dump(node, configPath)).toBe(await dump(node, beside));
    else expect(left).toBe(`${original}${theirs}`);
    expect(left).not.toContain("contrast");
  });
});
