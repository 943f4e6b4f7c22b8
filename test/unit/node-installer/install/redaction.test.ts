import { expect, test } from "vitest";
import { takeSnapshot } from "../../../../node-installer/commands/snapshot.ts";
import { parseBundle } from "../../../../node-installer/host/bundle.ts";
import { journalPath, pristinePath } from "../../../../node-installer/host/journal.ts";
import { converge } from "../../../../node-installer/install/converge.ts";
import { planFleet } from "../../../../review/fleet-plan/plan.ts";
import { adminsFile, configPath, MemoryNode } from "../../../fakes/memory-node.ts";
import { bundleOf, likeness, specOf } from "../../review/bundles.ts";

const canary = "CANARY";
const spec = specOf("00000001");
const handler = spec.runtimes[0]?.handler ?? "";
const directory = `/opt/edgeless/${handler}`;

/** Where others can have written on a node. */
interface Place {
  /** containerd's file, before the installer came; other changes from before, and from after it. */
  file?: string;
  before?: (node: MemoryNode) => void;
  change?: (node: MemoryNode) => void;
}
const put = (path: string, text: string): Place => ({ change: ({ host }) => host.put(path, text) });
const inFile = (text: string): Place => ({ file: `${adminsFile}${text}\n` });
const inUnit = (text: string): Place =>
  put(
    "/etc/systemd/system/containerd.service",
    `[Service]\nExecStart=/usr/bin/containerd\nKillMode=process\n${text}\n`,
  );
/** containerd imports the file. */
const imported = (path: string, text: string): Place => ({
  file: `imports = ["${path}"]\n${adminsFile}`,
  before: ({ host }) => host.put(path, text),
});
/** What containerd's file says of one of our handlers, which containerd then serves. */
const served = (...lines: string[]): Place => ({
  change(node) {
    const table = `[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.${handler.replace(/1$/, "2")}]`;
    node.host.put(configPath, [node.host.text(configPath), table, ...lines, ""].join("\n"));
    node.start();
  },
});
const journal: Place["change"] = ({ host }) => {
  const written = JSON.parse(host.text(journalPath) ?? "");
  const path = `/${canary}`;
  const hash = "0".repeat(64);
  written.file.backups = [path];
  written.createdDirectories = [path];
  written.runtimes[0].runtime.kataConfig.content = canary;
  written.retryToken = canary;
  const said = { specHash: hash, code: canary, reason: canary };
  written.failure = { ...said, content: null, at: "2026-01-01T00:00:00Z", attempts: 1, final: true };
  written.transaction = {
    ...said,
    ...{ phase: "replacing", startedAt: "2026-01-01T00:00:00Z", bootId: canary, before: null, after: null },
    ...{ backup: path, handlersBefore: [canary], handlersAfter: [canary], servedBefore: { a: canary } },
  };
  host.put(journalPath, JSON.stringify(written));
};
const mounts = `1 0 8:1 / / rw - ext4 ${canary} rw\n2 1 0:3 /${canary} /var/lib/kubelet/pods/${canary} rw - nfs ${canary} rw,${canary}\n`;

const places: Record<string, Place> = {
  "a value of containerd's file": inFile(`[a]\nb = "${canary}"`),
  "a value over lines": inFile(`[a]\nb = """\n${canary}\n"""`),
  "a value in a list of tables": inFile(`[[a]]\nb = [{ c = ["${canary}"] }]`),
  "the name of a table": inFile(`[a."${canary}.example"]`),
  "a comment of containerd's file": inFile(`# ${canary}`),
  "a comment behind a value": inFile(`[a]\nb = 1 # ${canary}`),
  "containerd's file, which is no TOML": { change: ({ host }) => host.put(configPath, `${canary} ${canary}\n`) },
  "containerd's file, which is no UTF-8": {
    change: ({ host }) => host.put(configPath, Buffer.concat([Buffer.from(canary), Buffer.from([0xff])])),
  },
  "containerd's file as it was before": put(pristinePath, `# ${canary}\n`),
  "an imported file": imported("/etc/containerd/extra.toml", `[a]\nb = "${canary}"\n`),
  "an imported file that is a process's arguments": imported("/proc/7/cmdline", `a = "${canary}"\n`),
  "an imported file that is a process's environment": imported("/proc/self/environ", `a = "${canary}"\n`),
  "a served type": served(`runtime_type = "${canary} x"`),
  "a served path": served(`runtime_type = "a"`, `runtime_path = "/${canary}"`),
  "a served annotation": served(`runtime_type = "a"`, `pod_annotations = ["${canary} x"]`),
  "a served option": served(`runtime_type = "a"`, `options = { Shares = "${canary}" }`),
  "a served handler of others": inFile(
    `[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.theirs]\nruntime_type = "${canary}"`,
  ),
  "the unit's environment": inUnit(`Environment=AZURE_STORAGE_KEY=${canary}`),
  "an argument of the unit's command": inUnit(`ExecStart=\nExecStart=/usr/bin/containerd --token ${canary}`),
  "a program in front of the unit's": inUnit(`ExecStart=\nExecStart=/usr/bin/env A=${canary} /usr/bin/containerd`),
  "a comment of the unit": inUnit(`# ${canary}`),
  "a drop-in of the unit": put(
    "/etc/systemd/system/containerd.service.d/a.conf",
    `[Service]\nEnvironment=HTTPS_PROXY=http://u:${canary}@proxy\n`,
  ),
  "a parameter of the kernel's": put("/proc/cmdline", `rd.luks.key=${canary}\n`),
  "a value of a parameter that is read": put("/proc/cmdline", `iommu=${canary} amd_iommu=${canary},pgtbl_v2\n`),
  "the processor's name": put(
    "/proc/cpuinfo",
    `vendor_id\t: AuthenticAMD\nmodel name\t: ${canary}\nflags\t: ${canary}\n`,
  ),
  "the operating system's name": put("/etc/os-release", `PRETTY_NAME="${canary}"\nID=debian\n`),
  "a parameter of a module": put("/sys/module/kvm_amd/parameters/sev", `${canary}!\n`),
  "the journal": { change: journal },
  "a journal that cannot be read": put(journalPath, `{"${canary}": 1}`),
  "the kubelet's configuration": put("/var/lib/kubelet/config.yaml", `clusterDNS: [${canary}]\n`),
  "a drop-in of the kubelet's": put("/etc/kubernetes/kubelet.conf.d/a.conf", `staticPodURLHeader: {a: [${canary}]}\n`),
  "the kubelet's flags": put("/etc/default/kubelet", `KUBELET_EXTRA_ARGS=--node-labels=${canary}\n`),
  "a timeout of the kubelet's that is none": put("/var/lib/kubelet/config.yaml", `runtimeRequestTimeout: ${canary}\n`),
  "the file with k3s' token": put(
    "/etc/rancher/k3s/config.yaml",
    `token: ${canary}\nkubelet-arg:\n  - runtime-request-timeout=5m\n`,
  ),
  "mounts, as a program prints them": { change: ({ host }) => host.programs.set("cat", () => ({ stdout: mounts })) },
  "mounts, as the installer reads them": put("/proc/self/mountinfo", mounts),
  "what containerd says that is no version": {
    change: ({ host }) => host.programs.set("containerd", () => ({ stdout: `containerd x v2.1.4 ${canary}\n` })),
  },
  "what a program says of its failure": {
    change: ({ host }) => host.programs.set("cat", () => ({ code: 1, stderr: canary })),
  },
  "the names of pods": { change: ({ sandboxes }) => sandboxes.push({ handler, name: `${canary}/${canary}` }) },
  "the names of processes": {
    change: ({ host }) => host.running.push({ pid: 7, name: canary, program: `${directory}/bin/x` }),
  },
};

const decoded = (text: string): string =>
  text.replaceAll(/(?<="base64":")[^"]*/g, (bytes) => Buffer.from(bytes, "base64").toString("latin1"));

test.each(Object.entries(places))("%s is read and does not leave the node", async (_, { file, before, change }) => {
  const node = new MemoryNode(file);
  try {
    node.runtime("00000001");
    if (before !== undefined) {
      before(node);
      node.start();
    }
    await converge(node.environment(spec));
    change?.(node);
    // What the node answers to the recorder, so that a canary that nothing reads proves nothing.
    const answers: unknown[] = [];
    const noted = async <T>(answer: Promise<T>): Promise<T> => {
      answers.push(await answer);
      return answer;
    };
    const { host } = node;
    const own = { readFile: host.readFile, run: host.run, runningBelow: host.runningBelow };
    host.readFile = (...args) => noted(own.readFile.apply(host, args));
    host.run = (...args) => noted(own.run.apply(host, args));
    host.runningBelow = (...args) => noted(own.runningBelow.apply(host, args));
    const bundle = await takeSnapshot(node.host, spec, "node-1", (recording) => {
      const daemon = node.daemon(spec, recording);
      return {
        ...daemon,
        serving: (...args) => noted(daemon.serving(...args)),
        sandboxesUsing: (...args) => noted(daemon.sandboxesUsing(...args)),
      };
    });
    expect(
      answers.map((answer) => (Buffer.isBuffer(answer) ? answer.toString() : JSON.stringify(answer))).join(),
    ).toContain(canary);
    const text = JSON.stringify(bundle);
    expect(decoded(text)).not.toContain(canary);
    expect(parseBundle(text)).toBeDefined();
  } finally {
    node.close();
  }
});

test("of pods and processes that use a runtime their number leaves the node", async () => {
  const { text } = await bundleOf({
    installed: spec,
    change({ host, sandboxes }) {
      host.put("/proc/7/cmdline", `${directory}/bin/x\0${canary}\0`);
      host.running.push({ pid: 7, name: canary, program: `${directory}/bin/x` });
      sandboxes.push({ handler, name: `${canary}/web` });
    },
  });
  const bundle = parseBundle(text);
  expect(bundle?.processes).toEqual({ [directory]: 1 });
  expect(bundle?.users).toEqual({ [handler]: 1 });
  expect(Object.keys(bundle?.calls ?? {}).filter((call) => /\/proc\/\d/.test(call))).toEqual([]);
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

test.each([
  ["readFile /etc/containerd/config.toml"],
  ["readFile /etc/systemd/system/containerd.service"],
  ["readDirectory /etc/systemd/system/containerd.service.d"],
])("a bundle that says that something is there, and not what is in it, is to be collected again: %s", async (call) => {
  const put = ({ host }: MemoryNode) => host.put("/etc/systemd/system/containerd.service.d/a.conf", "[Service]\n");
  const { text } = likeness(await bundleOf({ change: put }), 1);
  const bundle = JSON.parse(text);
  expect(bundle.calls).toHaveProperty([call]);
  delete bundle.calls[call];
  const { outcomes } = await planFleet(spec, [{ file: "node-1.json", text: JSON.stringify(bundle) }]);
  const [, path] = call.split(" ");
  const reason = `The bundle says that ${path} is there, and not what is in it: collect it again.`;
  expect(outcomes).toEqual([{ outcome: "unknown", code: "bundle-incomplete", reason, nodes: ["node-1"] }]);
});
