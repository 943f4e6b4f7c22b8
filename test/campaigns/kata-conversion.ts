// kata-conversion.ts KATA…: lets the code of Kata's Go runtime make the agent's requests of the specifications that kubelet
// and containerd wrote (test/fixtures/policy), compares them with those that the tests of policies make
// (test/engine/pod-policy/kata-requests.ts), and asks the pods' policies for them. Exit code 1 if a request that creates
// something differs, or any is denied.
//
// Each KATA is a directory with Kata's sources (4.0 or 4.1), in which `make -C src/runtime pkg/katautils/config-settings.go`
// was run. Needs Linux, root and Go; neither KVM nor a TEE: kata-conversion/ has a program around Kata's shim, and what
// takes the place of the VM. Nothing is written into KATA, and what is mounted is seen by no one else.
import { spawnSync } from "node:child_process";
import { chmodSync, chownSync, lchownSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { deriveSpec } from "../../runtime/derive.ts";
import { runtimeDirectory } from "../../runtime/spec.ts";
import { check } from "../../tools/process/run.ts";
import { goCommand } from "../../tools/programs/go.ts";
import { podPolicy } from "../../workload/policy/pod-policy.ts";
import type { Captured, Json, KataRequest } from "../engine/pod-policy/captured.ts";
import { evaluate, policyEngine } from "../engine/pod-policy/evaluate.ts";
import { type Example, examples } from "../engine/pod-policy/examples.ts";
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

/** The node as the pod's containers had it: what their mounts are of, the pod's network, and the payload. */
async function makeNode(captured: Captured, kataVersion: string, scratch: string): Promise<string> {
  const disk = mkdtempSync(join(scratch, "var-lib-"));
  await check("mount", ["--bind", disk, "/var/lib"]);
  for (const directory of ["/run", "/opt"]) await check("mount", ["-t", "tmpfs", "conversion", directory]);
  for (const [source, { fileSystem, files }] of Object.entries(captured.sources)) {
    if (fileSystem === "tmpfs") {
      mkdirSync(source, { recursive: true });
      // containerd's shared memory has this size, and Kata takes it from there.
      await check("mount", ["-t", "tmpfs", "-o", "size=67108864", "conversion", source]);
    }
    // Directories come before what is in them, but for links' targets.
    for (const { kind, path, mode, uid, gid, target } of files.toSorted((a, b) => (a.path < b.path ? -1 : 1))) {
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
  const [payload] = payloadsFor({ flavour: "kata-go", kataVersion });
  if (payload === undefined) throw new Error("no payload");
  const { spec } = deriveSpec({ platform: "metal-qemu-snp", manifest: payload.manifest });
  const directory = runtimeDirectory(spec.handler);
  for (const { role, path } of spec.files) place(join(directory, path), payload.bytes[role] ?? "", 0o755);
  const configuration = join(directory, spec.kataConfig.path);
  const content = spec.kataConfig.content.replace(/^disable_vhost_net = .*\n/m, "");
  place(configuration, content.replace("[hypervisor.qemu]\n", "$&disable_vhost_net = true\n"));
  return configuration;
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
  // Kata refuses to start without a system log.
  const log = createServer((connection) => connection.resume()).listen("/run/log");
  const lines = await check(program, [], { input: JSON.stringify({ configuration, containers }), timeoutMs: 120_000 });
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
  const types: Record<number, string> = { 16807: "Regular", 9604: "Directory", 21609: "Symlink" };
  const type = types[Number(fields.file_mode) & 0o170000] ?? "";
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
  JSON.parse(JSON.stringify(requests).replaceAll(/([0-9a-f]{64})-[0-9a-f]{16}-/g, "$1-RANDOM-"), (_key, value) => {
    const metadata = typeof value === "string" && /^image_guest_pull=(.*)$/s.exec(value)?.[1];
    return metadata ? { image_guest_pull: JSON.parse(metadata) } : value;
  });

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

async function inside(program: string, kataVersion: string, name: string): Promise<void> {
  const all = examples("kata-go");
  const example = all[name === "db" || name === "batch" ? name : "web"];
  for (const { spec } of example.captured.containers)
    spec.linux.cgroupsPath = spec.linux.cgroupsPath.replace("/kubepods", `/${cgroup}`);
  const configuration = await makeNode(example.captured, kataVersion, dirname(program));
  const requests = await kataRequests(program, configuration, example);
  const different = differences(requestsOf(example.captured, "kata-go"), requests);
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
  const [program = "", kataVersion = "", name = ""] = rest;
  await inside(program, kataVersion, name);
} else {
  await policyEngine();
  for (const kata of [first, ...rest].map((path) => resolve(path))) {
    const scratch = mkdtempSync(join(tmpdir(), "conversion-"));
    try {
      const program = await build(kata, scratch);
      const version = (await readFile(join(kata, "VERSION"), "utf8")).trim();
      for (const name of ["web", "db", "batch"]) {
        const own = ["--mount", "--propagation", "private", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"];
        const again = [process.execPath, process.argv[1] ?? "", "--inside", program, version, name];
        const { status } = spawnSync("unshare", [...own, "--", ...again], { stdio: "inherit" });
        if (status !== 0) process.exitCode = 1;
        const emptied = ["-depth", "-type", "d", "-path", `*/${cgroup}*`, "-exec", "rmdir", "{}", "+"];
        spawnSync("find", ["/sys/fs/cgroup", ...emptied]);
      }
    } finally {
      rmSync(scratch, { recursive: true, force: true });
    }
  }
}
