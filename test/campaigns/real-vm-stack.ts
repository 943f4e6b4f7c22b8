// real-vm-stack.ts PAYLOAD [PAYLOAD2] [--kvm] [--containerd 1.7]: pods in real VMs through `pulumi up`. The outer machine of
// real-vm.ts is a node of a local cluster, with a kubelet; the program installs the payloads there by its DaemonSet, pods
// of the class run in VMs and show the guest's kernel beside the node's; then PAYLOAD2 beside a running pod (without it,
// that part is left out), a removal that is refused, a power cut while the proof runs, and the removal of the group.
// Needs what real-vm.ts needs, and what a local cluster needs. Emulated, on an idle machine: half an hour.
import { cpSync, existsSync, mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { stringify } from "yaml";
import { packageRoot } from "../../tools/files/project.ts";
import { buildImage, localPayloads } from "../../tools/image/build.ts";
import { buildPrograms } from "../../tools/image/bundle.ts";
import { destroyCluster, ensureCluster, runKubectl } from "../../tools/local-cluster/cluster.ts";
import { clusterLayout, enterNetwork } from "../../tools/local-cluster/layout.ts";
import { ensureLocalPayload } from "../../tools/local-payload/local-payload.ts";
import { containerdTree, kubernetesPrograms } from "../../tools/programs/pinned.ts";
import { engineProject } from "../engine/harness.ts";
import { platform, readArguments } from "./real-vm/arguments.ts";
import { writeNode } from "./real-vm/cluster-node.ts";
import { OuterMachine, outerTree, untilVmStarts } from "./real-vm/outer-machine.ts";
import { expectations } from "./real-vm/report.ts";

const { payloads, containerd, kvm } = await readArguments();
const { tell, expect, failures } = expectations();
const [first, second] = payloads;

const stack = "real-vm";
const name = "outer-1";
const limit = "--timeout=1800s";
const layout = clusterLayout(stack);
const network = enterNetwork(stack);
const directory = mkdtempSync(join(tmpdir(), "real-vm-stack-"));
await destroyCluster(stack, tell, { force: true });
const cluster = await ensureCluster({ name: stack, nodes: [{ name: "node-1" }] }, tell);
const machine = new OuterMachine({ tree: await outerTree(tell), directory, kvm, network, tell });
const project = await engineProject({ directory: packageRoot, stack, prefix: network });

const kubectl = async (args: string[], input?: string) => {
  const result = await runKubectl(stack, args, input);
  tell(`kubectl ${args.join(" ")} → ${result.code}\n${result.stdout}${result.stderr}`);
  return result;
};
async function up(...names: string[]) {
  const runtimes = payloads
    .filter((payload) => payload !== undefined && names.includes(payload.name))
    .map((payload) => ({ platform, payload: `.local/payloads/${payload?.name}/manifest.json`, ...payload?.settings }));
  const group = (node: string) => ({ distribution: "containerd", nodes: { names: [node] }, minimumNodes: 1 });
  const vm = names.length > 0 && { vm: { ...group(name), runtimes, verifySandbox: true, stallTimeout: 3600 } };
  // A stack without any group is refused.
  const local = [{ platform: "local", payload: ".local/payloads/local/manifest.json" }];
  const config = {
    "contrast-runtime:cluster": { kind: "local", nodes: [{ name: "node-1" }] },
    "contrast-runtime:groups": { ...vm, others: { ...group("node-1"), runtimes: local } },
  };
  await writeFile(join(project.directory, `Pulumi.${stack}.yaml`), stringify({ config }));
  const result = await project.up();
  tell(`pulumi up (${names.join(", ") || "no group"}) → ${result.code}\n${result.stdout}${result.stderr}`);
  return result;
}
/** What containerd and Kata's shim logged last, and where in the kernel the tasks of both, of CNI and of the VM are. */
const state =
  'journalctl -b -u containerd --no-pager | tail -n 100; for i in /proc/[0-9]*/task/*; do case "$(cat $i/comm)" in container*|tokio*|qemu*|bridge|host-local|kata*) echo "== $i $(cat $i/comm) $(cat $i/syscall)"; cat $i/stack; esac; done';
const podInVm = (pod: string, runtimeClassName: string) => ({
  ...{ apiVersion: "v1", kind: "Pod", metadata: { name: pod, namespace: "default" } },
  spec: {
    ...{ nodeName: name, runtimeClassName, terminationGracePeriodSeconds: 1 },
    containers: [
      {
        ...{ name: "main", image: cluster.images.busybox },
        command: ["sh", "-c", "echo hello from $(uname -r); trap exit TERM; sleep 1000000 & wait"],
      },
    ],
  },
});
async function runPod(pod: string, handler: string): Promise<void> {
  await kubectl(["apply", "-f", "-"], JSON.stringify(podInVm(pod, handler)));
  const ready = await kubectl(["wait", "--for=condition=Ready", `pod/${pod}`, limit]);
  expect(`pod ${pod} of the class is Ready`, ready.code === 0);
  await kubectl(["get", "pod", pod, "-o", "wide"]);
  if (ready.code !== 0) {
    await kubectl(["describe", "pod", pod]);
    await machine.run(state);
  }
  let log = await kubectl(["logs", pod]);
  // A container runs a moment before its first line has come out of the VM.
  while (ready.code === 0 && log.stdout === "") log = await kubectl(["logs", pod]);
  const kernel = await kubectl(["get", "node", name, "-o", "jsonpath={.status.nodeInfo.kernelVersion}"]);
  const guest = /hello from (\S+)/.exec(log.stdout)?.[1];
  expect(
    `its container says the guest's kernel, ${guest}; the node's is ${kernel.stdout}`,
    guest !== undefined && guest !== kernel.stdout,
  );
}
const handlersOf = async () => ((await project.outputs()) as { handlers: Record<string, string[]> }).handlers.vm ?? [];
/** What the product may have changed on the machine, by digest, and on its Node. */
const traces = async () => {
  const { output } = await machine.run(
    "find /opt/edgeless /var/lib/contrast-runtime /etc/containerd /etc/systemd/system -type f ! -name '*.bak' -exec sha256sum {} + 2>/dev/null | sort; ls -d /sys/fs/cgroup/contrast-runtime-verify 2>/dev/null; find /run/vc/sbs /run/kata -mindepth 1 2>/dev/null; pgrep -af 'qemu-system|containerd-shim-contrast'",
  );
  const fields = "jsonpath={.metadata.labels} {.spec.taints[*].key} {.metadata.finalizers}";
  const { stdout } = await kubectl(["get", "node", name, "-o", fields]);
  // Kubernetes taints a Node that is not Ready yet, and for a moment longer.
  const words = stdout.split(" ").filter((word) => word !== "" && !word.startsWith("node.kubernetes.io/"));
  return output + words.join(" ");
};

try {
  const layer = join(directory, "layer");
  const node = { cluster: layout, name, containerd, pauseImage: cluster.images.pause };
  await writeNode({ ...node, kubernetes: await kubernetesPrograms(tell) }, layer);
  mkdirSync(join(directory, "parts"));
  await machine.makeDisks([layer, await containerdTree(containerd, tell)], join(directory, "parts"));
  for (const payload of payloads)
    if (payload !== undefined)
      cpSync(payload.directory, join(project.directory, ".local/payloads", payload.name), { recursive: true });
  await ensureLocalPayload({ directory: join(project.directory, ".local/payloads/local"), name: "local" }, tell);
  const layoutDir = join(project.directory, ".local/image");
  const images = await localPayloads(undefined, join(project.directory, ".local/payloads"));
  await buildImage({ layoutDir, program: (await buildPrograms()).nodeInstaller, payloads: images }, tell);

  await machine.boot();
  while ((await runKubectl(stack, ["get", "node", name])).code !== 0);
  const ready = await kubectl(["wait", "--for=condition=Ready", `node/${name}`, limit]);
  expect("the machine's kubelet is a node of the cluster", ready.code === 0);
  const before = await traces();

  expect("pulumi up installs the runtime, and a VM proved it", (await up(first.name)).code === 0);
  const [handler = ""] = await handlersOf();
  await runPod("one", handler);
  const vm = `pgrep -f "/opt/edgeless/${handler}/.* -name sandbox"`;
  const pids = await machine.run(vm);
  expect("its VM runs the payload's QEMU", pids.code === 0);

  if (second !== undefined) {
    expect("a second runtime comes beside it", (await up(first.name, second.name)).code === 0);
    expect("the pod's VM is the same", (await machine.run(vm)).output === pids.output);
    const refused = await up(second.name);
    expect(
      "a runtime whose pod runs is not removed",
      refused.code !== 0 && `${refused.stdout}${refused.stderr}`.includes("default/one"),
    );
    await kubectl(["delete", "pod", "one", limit]);
    expect("without the pod it is", (await up(second.name)).code === 0);
    const [next = ""] = await handlersOf();
    await runPod("two", next);
    await kubectl(["delete", "pod", "two", limit]);
  } else await kubectl(["delete", "pod", "one", limit]);
  expect("the group is removed", (await up()).code === 0);
  expect("the node is as it was", (await traces()) === before);

  const interrupted = up(first.name);
  await Promise.race([interrupted, machine.run(untilVmStarts)]);
  await machine.cutPower();
  await machine.boot();
  expect("an update goes on through a power cut in the gate", (await interrupted).code === 0);
  await runPod("three", (await handlersOf())[0] ?? "");
  await kubectl(["delete", "pod", "three", limit]);
  expect("the group is removed again", (await up()).code === 0);
  expect("the node is as it was, again", (await traces()) === before);
} finally {
  await machine.cutPower();
  await destroyCluster(stack, tell, { force: true });
  await project.remove();
  if (failures() === 0 && existsSync(directory)) rmSync(directory, { recursive: true });
  else tell(`The disks and the console's log are kept in ${directory}.`);
}
process.exitCode = failures() === 0 ? 0 : 1;
