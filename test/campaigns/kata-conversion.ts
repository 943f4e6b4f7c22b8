// kata-conversion.ts KATA…: lets the code of Kata's Go runtime make the agent's requests of the specifications that kubelet
// and containerd wrote (test/fixtures/policy), compares them with those that the tests of policies make
// (test/engine/pod-policy/kata-requests.ts), and asks the pods' policies for them. Exit code 1 if a request that creates
// something differs, or any is denied.
//
// Each KATA is a directory with Kata's sources (4.0 or 4.1, or 4.0 with Contrast's patches), in which
// `make -C src/runtime pkg/katautils/config-settings.go` was run. Needs Linux, root and Go; neither KVM nor a TEE:
// kata-conversion/ has a program around Kata's shim, and what takes the place of the VM. Nothing is written into KATA, and
// what is mounted is seen by no one else; an empty /dev/vfio is there while it runs.
import { spawnSync } from "node:child_process";
import {
  chmodSync,
  chownSync,
  existsSync,
  lchownSync,
  mkdirSync,
  mkdtempSync,
  rmdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { readFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { basename, dirname, join, resolve } from "node:path";
import { deriveSpec } from "../../runtime/derive.ts";
import { platforms } from "../../runtime/platforms.ts";
import { runtimeDirectory } from "../../runtime/spec.ts";
import { isAtLeast } from "../../runtime/version.ts";
import { check } from "../../tools/process/run.ts";
import { goCommand } from "../../tools/programs/go.ts";
import { podPolicy } from "../../workload/policy/pod-policy.ts";
import type { Captured, Json, KataRequest } from "../engine/pod-policy/captured.ts";
import { evaluate, policyEngine } from "../engine/pod-policy/evaluate.ts";
import { type Example, examples } from "../engine/pod-policy/examples.ts";
import { isVfio } from "../engine/pod-policy/gpus.ts";
import { requestsOf } from "../engine/pod-policy/kata-requests.ts";
import { cgroup, place } from "./kata-launch.ts";
import { payloadsFor } from "./kata-payload.ts";

/** kubelet's, and `dns` of the requests that are compared. */
const resolvConf = [
  "search shop.svc.cluster.local svc.cluster.local cluster.local",
  "nameserver 10.96.0.10",
  "options ndots:5\n",
].join("\n");

const ownSources = join(import.meta.dirname, "kata-conversion");

/** Kata's module with our program and our hypervisor laid over it. */
async function build(kata: string, scratch: string): Promise<string> {
  const module = join(kata, "src/runtime");
  const overlay = join(scratch, "overlay.json");
  const program = join(scratch, "conversion");
  writeFileSync(
    overlay,
    JSON.stringify({
      Replace: {
        [join(module, "virtcontainers/hypervisor_linux.go")]: join(ownSources, "hypervisor.go"),
        [join(module, "cmd/conversion/main.go")]: join(ownSources, "main.go"),
      },
    }),
  );
  const args = ["build", "-trimpath", "-buildvcs=false", "-overlay", overlay, "-o", program, "./cmd/conversion"];
  await check(await goCommand(), args, { cwd: module });
  return program;
}

type GoFlavour = "kata-go" | "contrast-go";

/** Contrast's patches are known by the description of an image, which they take out of requests. */
async function flavourOf(kata: string): Promise<GoFlavour> {
  const source = await readFile(join(kata, "src/runtime/virtcontainers/kata_agent.go"), "utf8");
  return source.includes("virtualVolumeInfo.ImagePull.Metadata[") ? "kata-go" : "contrast-go";
}

/** The node as the pod's containers had it: what their mounts are of, the pod's network, and the payload. */
async function makeNode({ captured, input }: Example, kataVersion: string, scratch: string): Promise<string> {
  const disk = mkdtempSync(join(scratch, "var-lib-"));
  await check("mount", ["--bind", disk, "/var/lib"]);
  for (const directory of ["/run", "/opt"]) await check("mount", ["-t", "tmpfs", "conversion", directory]);
  for (const [source, { fileSystem, files }] of Object.entries(captured.sources)) {
    if (fileSystem === "tmpfs") {
      mkdirSync(source, { recursive: true });
      // containerd's shared memory has this size, and Kata takes it from there.
      await check("mount", ["-t", "tmpfs", "-o", "size=67108864", "conversion", source]);
    }
    // An emptyDir is empty when the pod starts. Directories come before what is in them, but for links' targets.
    const atStart = source.includes("/kubernetes.io~empty-dir/") ? files.filter(({ path }) => path === "") : files;
    for (const { kind, path, mode, uid, gid, target } of atStart.toSorted((a, b) => (a.path < b.path ? -1 : 1))) {
      const at = join(source, path);
      mkdirSync(dirname(at), { recursive: true });
      if (kind === "l") {
        symlinkSync(target ?? "", at);
        lchownSync(at, uid, gid);
        continue;
      }
      if (kind === "d") mkdirSync(at, { recursive: true });
      else writeFileSync(at, source.endsWith("/resolv.conf") ? resolvConf : "twelve bytes");
      chownSync(at, uid, gid);
      chmodSync(at, Number.parseInt(mode, 8));
    }
  }
  await network(captured);
  const [payload] = payloadsFor({ flavour: input.runtime.flavour, kataVersion });
  if (payload === undefined) throw new Error("no payload");
  if (platforms[input.runtime.platform].gpu) await makeGpus(captured);
  const { spec } = deriveSpec({ platform: input.runtime.platform, manifest: payload.manifest });
  const directory = runtimeDirectory(spec.handler);
  for (const { role, path } of spec.files) place(join(directory, path), payload.bytes[role] ?? "", 0o755);
  const configuration = join(directory, spec.kataConfig.path);
  const content = spec.kataConfig.content.replace(/^disable_vhost_net = .*\n/m, "");
  place(configuration, content.replace("[hypervisor.qemu]\n", "$&disable_vhost_net = true\n"));
  return configuration;
}

const gpuFiles = ({ containers }: Captured) =>
  containers.flatMap(({ spec }) => spec.linux.devices ?? []).filter(isVfio);

/** GPUs in sysfs, as far as Kata reads it, and what NVIDIA's plugin for sandboxes writes about them (cdi.go). */
async function makeGpus(captured: Captured): Promise<void> {
  const [byNumber, devices] = ["/sys/dev/char", "/sys/bus/pci/devices"];
  for (const directory of ["/dev/vfio", byNumber, devices])
    await check("mount", ["-t", "tmpfs", "conversion", directory]);
  const files = gpuFiles(captured);
  for (const [index, { path, major, minor }] of files.entries()) {
    mkdirSync(dirname(path), { recursive: true });
    await check("mknod", [path, "c", String(major), String(minor)]);
    const gpu = join(devices, `0000:6${index + 1}:00.0`);
    const own = join(gpu, "vfio-dev", basename(path));
    mkdirSync(own, { recursive: true });
    writeFileSync(join(own, "uevent"), `DEVNAME=${path.slice("/dev/".length)}\n`);
    symlinkSync(own, join(byNumber, `${major}:${minor}`));
    const properties = { vendor: "0x10de", device: "0x2331", class: "0x030200", numa_node: "-1" };
    for (const [name, value] of Object.entries(properties)) writeFileSync(join(gpu, name), `${value}\n`);
    writeFileSync(join(gpu, "config"), Buffer.alloc(4096));
  }
  const cdi = files.map(({ path, minor }) => ({ name: String(minor), containerEdits: { deviceNodes: [{ path }] } }));
  place("/run/cdi/pgpu.json", JSON.stringify({ cdiVersion: "0.5.0", kind: "nvidia.com/pgpu", devices: cdi }), 0o644);
}

async function network({ pod, containers }: Captured): Promise<void> {
  const path = containers[0]?.spec.linux.namespaces.find(({ type }) => type === "network")?.path;
  const name = path?.split("/").at(-1);
  if (name === undefined) throw new Error("the sandbox has no network");
  const gateway = pod.ip.replace(/\d+$/, "1");
  await check("ip", ["netns", "add", name]);
  const inside = (...args: string[]) => check("ip", ["-n", name, ...args]);
  await check("ip", ["link", "add", "conversion", "type", "veth", "peer", "name", "eth0", "netns", name]);
  await check("ip", ["link", "set", "conversion", "up"]);
  await inside("address", "add", `${pod.ip}/24`, "dev", "eth0");
  await inside("link", "set", "eth0", "up");
  await inside("link", "set", "lo", "up");
  await inside("route", "add", "default", "via", gateway);
  await inside("neighbor", "replace", gateway, "lladdr", "02:42:ac:11:00:01", "dev", "eth0", "nud", "permanent");
}

/** What Kata's shim asks the agent for. */
async function kataRequests(program: string, configuration: string, { captured }: Example) {
  const containers = captured.containers.map(({ id, spec }, index) => {
    const bundle = `/run/containerd/io.containerd.runtime.v2.task/k8s.io/${id}`;
    mkdirSync(join(bundle, "rootfs"), { recursive: true });
    writeFileSync(join(bundle, "config.json"), JSON.stringify(spec));
    return { id, bundle, exec: index === 0 ? [] : [{ ...spec.process, args: ["true"] }] };
  });
  const socket = "/var/lib/kubelet/pod-resources/kubelet.sock";
  const device_ids = gpuFiles(captured).map(({ minor }) => String(minor));
  const podResources = { socket, containers: [{ devices: [{ resource_name: "nvidia.com/pgpu", device_ids }] }] };
  mkdirSync(dirname(socket), { recursive: true });
  // Kata refuses to start without a system log.
  const log = createServer((connection) => connection.resume()).listen("/run/log");
  const input = JSON.stringify({ configuration, containers, ...(device_ids.length > 0 && { podResources }) });
  // The shim leaves files where it was started.
  const lines = await check(program, [], { input, cwd: dirname(program), timeoutMs: 120_000 });
  log.close();
  if (process.env.SHOW) writeFileSync(process.env.SHOW, lines);
  return lines
    .trim()
    .split("\n")
    .map((line): KataRequest => JSON.parse(line))
    .filter(({ kind }) => kind !== "CheckRequest")
    .map((request) => (request.kind === "CopyFileRequest" ? asPolicySees(request) : request));
}

/** src/agent/policy/src/policy.rs, PolicyCopyFileRequest. */
function asPolicySees({ kind, input: { data, ...fields } }: KataRequest): KataRequest {
  const types = new Map([
    [0o100000, "Regular"],
    [0o040000, "Directory"],
    [0o120000, "Symlink"],
  ]);
  const type = types.get(Number(fields.file_mode) & 0o170000) ?? "";
  const target = type === "Symlink" ? Buffer.from(String(data), "base64").toString() : null;
  return { kind, input: { ...fields, file_type: type, symlink_target: target } };
}

/** Leaves by path; lists of what has a name by that name, as their order says nothing. */
function leaves(value: Json, path: string, found: Map<string, string>): Map<string, string> {
  if (Array.isArray(value) && value.length > 0)
    for (const [index, one] of value.entries()) leaves(one, `${path}[${index}]`, found);
  else if (typeof value === "object" && value !== null && Object.keys(value).length > 0 && !Array.isArray(value))
    for (const [key, one] of Object.entries(value)) leaves(one, path === "" ? key : `${path}.${key}`, found);
  else found.set(path, JSON.stringify(value));
  return found;
}

/** Random parts of names, and JSON in a text, whose order of members Go chooses. */
const alike = (requests: KataRequest[]): KataRequest[] =>
  JSON.parse(
    JSON.stringify(requests).replaceAll(/([0-9a-f]{64}|sandbox)-[0-9a-f]{16}-/g, "$1-RANDOM-"),
    (_key, value) => {
      const metadata = typeof value === "string" && /^image_guest_pull=(.*)$/s.exec(value)?.[1];
      return metadata ? { image_guest_pull: JSON.parse(metadata) } : value;
    },
  );

/** What creates something. Files come by path, as directories are read in any order; their content is not the pod's own. */
function creating(all: KataRequest[]): KataRequest[] {
  const path = ({ input }: KataRequest) => String(input.path);
  const files = all.filter(({ kind }) => kind === "CopyFileRequest").toSorted((a, b) => (path(a) < path(b) ? -1 : 1));
  return [
    ...all.filter(({ kind }) => /^Create(Sandbox|Container)Request$/.test(kind)),
    ...files.map(({ kind, input }) => ({ kind, input: { ...input, file_size: null } })),
  ];
}

function differences(ours: KataRequest[], theirs: KataRequest[]): string[] {
  const [mine, real] = [creating(alike(ours)), creating(alike(theirs))];
  if (mine.length !== real.length) return [`${real.length} requests create something, expected ${mine.length}`];
  return mine.flatMap(({ kind, input }, index) => {
    const expected = leaves(input, "", new Map());
    const found = leaves(real[index]?.input ?? null, "", new Map());
    return [...new Set([...expected.keys(), ...found.keys()])]
      .filter((path) => expected.get(path) !== found.get(path))
      .map(
        (path) =>
          `${kind} ${index}: ${path} is ${found.get(path) ?? "missing"}, here ${expected.get(path) ?? "missing"}`,
      );
  });
}

async function inside(program: string, kataVersion: string, flavour: GoFlavour, name: string): Promise<void> {
  const all = examples(flavour);
  const example = all[name === "db" || name === "batch" || name === "model" ? name : "web"];
  for (const { spec } of example.captured.containers)
    spec.linux.cgroupsPath = spec.linux.cgroupsPath.replace("/kubepods", `/${cgroup}`);
  const configuration = await makeNode(example, kataVersion, dirname(program));
  const requests = await kataRequests(program, configuration, example);
  const sandboxHasGpus = !isAtLeast(kataVersion, "4.1.0");
  const different = differences(requestsOf(example.captured, flavour, sandboxHasGpus), requests);
  const input = { ...example.input, runtime: { ...example.input.runtime, kataVersion }, allow: { exec: [["true"]] } };
  const answers = await evaluate(await policyEngine(), podPolicy(input).rego, requests);
  const denied = requests.flatMap((request, index) => {
    const answer = answers[index];
    return answer?.allowed ? [] : [`${JSON.stringify(request).slice(0, 300)} breaks ${answer?.broken}`];
  });
  for (const line of different) console.log(`DIFFERS ${name} ${line}`);
  for (const line of denied) console.log(`DENIED ${name} ${line}`);
  const counts = [...Map.groupBy(requests, ({ kind }) => kind)].map(([kind, list]) => `${list.length} ${kind}`);
  console.log(`Kata ${kataVersion}, ${name}: ${requests.length} requests (${counts.join(", ")})`);
  if (different.length + denied.length > 0) process.exitCode = 1;
}

const [first, ...rest] = process.argv.slice(2);
if (first === undefined) throw new Error("say where Kata's sources are");
if (first === "--inside") {
  const [program = "", kataVersion = "", flavour, name = ""] = rest;
  await inside(program, kataVersion, flavour === "contrast-go" ? flavour : "kata-go", name);
} else {
  await policyEngine();
  const hadNone = !existsSync("/dev/vfio");
  if (hadNone) mkdirSync("/dev/vfio");
  for (const kata of [first, ...rest].map((path) => resolve(path))) {
    const scratch = mkdtempSync(join(tmpdir(), "conversion-"));
    try {
      const program = await build(kata, scratch);
      const version = (await readFile(join(kata, "VERSION"), "utf8")).trim();
      const flavour = await flavourOf(kata);
      for (const name of ["web", "db", "batch", ...(flavour === "kata-go" ? ["model"] : [])]) {
        const own = ["--mount", "--propagation", "private", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"];
        const again = [process.execPath, process.argv[1] ?? "", "--inside", program, version, flavour, name];
        const { status } = spawnSync("unshare", [...own, "--", ...again], { stdio: "inherit" });
        if (status !== 0) process.exitCode = 1;
        const emptied = ["-depth", "-type", "d", "-path", `*/${cgroup}*`, "-exec", "rmdir", "{}", "+"];
        spawnSync("find", ["/sys/fs/cgroup", ...emptied]);
      }
    } finally {
      rmSync(scratch, { recursive: true, force: true });
    }
  }
  if (hadNone) rmdirSync("/dev/vfio");
}
