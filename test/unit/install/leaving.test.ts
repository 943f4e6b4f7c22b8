import { expect, test } from "vitest";
import { takeSnapshot } from "../../../node-installer/commands/snapshot.ts";
import { parseBundle } from "../../../node-installer/host/bundle.ts";
import { planFleet } from "../../../review/fleet-plan.ts";
import { MemoryNode } from "../../fakes/memory-node.ts";
import { bundleOf, likeness, specOf } from "../review/bundles.ts";

const canary = "CANARY";
const spec = specOf("00000001");

test("nothing that others wrote on the node is in its bundle", async () => {
  const node = new MemoryNode(`version = 3\n# ${canary}\n[a]\nb = "${canary}"\n`);
  const put = (path: string, text: string) => node.host.put(path, text);
  put("/etc/systemd/system/containerd.service.d/a.conf", `[Service]\nEnvironment=AZURE_STORAGE_KEY=${canary}\n`);
  put("/proc/cmdline", `iommu=${canary} rd.luks.key=${canary} amd_iommu=${canary},pgtbl_v2\n`);
  put("/proc/cpuinfo", `vendor_id\t: AuthenticAMD\nmodel name\t: ${canary}\nflags\t\t: svm ${canary}\n`);
  put("/etc/os-release", `PRETTY_NAME="${canary}"\nID=debian\n`);
  put("/etc/rancher/k3s/config.yaml", `token: ${canary}\nkubelet-arg:\n  - runtime-request-timeout=5m\n`);
  put("/proc/7/cmdline", `/opt/edgeless/${spec.runtimes[0]?.handler}/bin/x\0${canary}\0`);
  node.host.running.push({ pid: 7, name: canary, program: `/opt/edgeless/${spec.runtimes[0]?.handler}/bin/x` });
  put("/proc/7/environ", `A=${canary}\0`);
  node.host.programs.set("cat", () => ({
    stdout: `1 0 8:1 / / rw - ext4 ${canary} rw\n2 1 0:3 /${canary} /var/lib/kubelet/pods/${canary} rw - nfs ${canary} rw,${canary}\n`,
  }));
  node.sandboxes.push({ handler: spec.runtimes[0]?.handler ?? "", name: `${canary}/web` });
  try {
    const bundle = await takeSnapshot(node.host, spec, "node-1", () => node.environment(spec).daemon);
    const text = JSON.stringify(bundle);
    expect(text).not.toContain(canary);
    expect(Object.keys(bundle.calls).filter((call) => /\/proc\/\d/.test(call))).toEqual([]);
    expect(bundle.processes).toEqual({ [`/opt/edgeless/${spec.runtimes[0]?.handler}`]: 1 });
    expect(bundle.users).toEqual({ [spec.runtimes[0]?.handler ?? ""]: 1 });
    expect(parseBundle(text)).toBeDefined();
  } finally {
    node.close();
  }
});

test.each([
  ["a malformed free space", (text: string) => text.replace(/("freeSpace [^"]*": )\{[^}]*\}/, "$1{x}")],
  ["a free space of another type", (text: string) => text.replace(/("freeSpace [^"]*": )\{[^}]*\}/, '$1{"bytes":"1"}')],
  ["a file that is a number", (text: string) => text.replace(/("readFile [^"]*": )\{[^}]*\}/, "$1 7")],
  ["a file without content", (text: string) => text.replace(/("readFile [^"]*": )\{[^}]*\}/, "$1{}")],
  ["a call that there is not", (text: string) => text.replace('"calls": {', '"calls": {"exec x": 1,')],
  [
    "a depth that nothing has",
    (text: string) => text.replace('"calls": {', `"calls": {"a": ${"[".repeat(1e5)}${"]".repeat(1e5)},`),
  ],
  ["names that lead back", (text: string) => text.replace('"calls": {', '"calls": {"readDirectory /": [".."],')],
  ["another node's name", (text: string) => text.replace('"node": "node-1"', '"node": "node-2"')],
  [
    "nine megabytes",
    (text: string) => text.replace('"calls": {', `"calls": {"readFile /x": {"text": "${"x".repeat(9e6)}"},`),
  ],
])("a bundle with %s is that node's outcome, and the others are planned", async (_, damage) => {
  const good = likeness(await bundleOf({}), 1);
  const bad = damage(good.text);
  expect(bad).not.toBe(good.text);
  const { outcomes } = await planFleet(spec, [{ ...good, text: bad }, likeness(await bundleOf({}), 2)]);
  expect(outcomes.map(({ outcome, code, nodes }) => [outcome, code, nodes])).toEqual([
    ["unknown", "bundle-unreadable", ["node-1"]],
    ["restart", "", ["node-2"]],
  ]);
});
