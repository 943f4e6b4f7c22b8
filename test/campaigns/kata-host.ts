/**
 * A machine as Kata looks for it before it starts QEMU, for the programs in this process's own mount namespace: KVM,
 * vhost-vsock, a system log and a TEE, where there may be none of them. Nothing of it is seen from outside.
 */
import { spawn } from "node:child_process";
import { mkdirSync, openSync, read, readFileSync, write, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { dirname, join } from "node:path";
import { type handleUnaryCall, Server, ServerCredentials } from "@grpc/grpc-js";
import type { Tee } from "../../runtime/platforms.ts";
import { check } from "../../tools/process/run.ts";

/** What both of Kata's runtimes read to learn which TEE the machine has. */
const parameters = {
  snp: "/sys/module/kvm_amd/parameters/sev_snp",
  tdx: "/sys/module/kvm_intel/parameters/tdx",
} as const;

export function pretendTee(tee: Tee): void {
  for (const [name, path] of Object.entries(parameters)) writeFileSync(path, name === tee ? "Y\n" : "N\n");
}

const vsock = "/dev/vhost-vsock";

/** Needs root and a mount namespace of its own. Returns how to end it: without that the process does not end, either. */
export async function pretendHost(): Promise<() => Promise<unknown>> {
  for (const directory of ["/run", "/opt", "/mnt"]) await check("mount", ["-t", "tmpfs", "agreement", directory]);
  // The host's own devices stay as they are, but for those that Kata asks for.
  const devices = "/mnt/dev";
  mkdirSync(devices);
  await check("mount", ["-t", "tmpfs", "-o", "dev", "devices", devices]);
  const copied = ["null", "zero", "full", "random", "urandom", "tty", "fuse", "net"];
  await check("cp", ["-a", ...copied.map((name) => `/dev/${name}`), devices]);
  await check("mknod", [join(devices, "kvm"), "c", "10", "232"]);
  writeFileSync(join(devices, "vhost-vsock"), "");
  await check("mount", ["--bind", devices, "/dev"]);
  await serveVsock();
  // Kata's Go runtime refuses to start without one.
  const log = createServer((connection) => connection.resume()).listen("/dev/log");
  // Where it is, Kata since 3.32 sends TDX guests to it, and to vsock otherwise.
  mkdirSync("/run/tdx-qgs");
  const quotes = createServer().listen("/run/tdx-qgs/qgs.socket");

  const kubelet = await servePodResources();
  await check("mount", ["-t", "tmpfs", "modules", "/sys/module"]);
  for (const path of Object.values(parameters)) mkdirSync(dirname(path), { recursive: true });
  return () => {
    for (const server of [log, quotes]) server.close();
    kubelet.forceShutdown();
    return check("umount", ["--force", vsock]);
  };
}

/** The kubelet's answer to which devices a pod was given, for GPU platforms: none. */
async function servePodResources(): Promise<Server> {
  await check("mount", ["-t", "tmpfs", "agreement", "/var/lib"]);
  mkdirSync("/var/lib/kubelet/pod-resources", { recursive: true });
  const server = new Server();
  // One pod, of which nothing is said.
  const serialized = () => Buffer.from([0x0a, 0]);
  const method = (name: string) => ({
    path: `/v1.PodResourcesLister/${name}`,
    requestStream: false,
    responseStream: false,
    requestSerialize: serialized,
    requestDeserialize: () => ({}),
    responseSerialize: serialized,
    responseDeserialize: () => ({}),
  });
  const none: handleUnaryCall<unknown, unknown> = (_call, answer) => answer(null, {});
  server.addService({ Get: method("Get"), List: method("List") }, { Get: none, List: none });
  const credentials = ServerCredentials.createInsecure();
  await new Promise<void>((done, failed) =>
    server.bindAsync("unix:/var/lib/kubelet/pod-resources/kubelet.sock", credentials, (error) =>
      error ? failed(error) : done(),
    ),
  );
  return server;
}

/** A file that takes every context id, as vhost-vsock does with one that nobody else has: a FUSE file system of one file. */
async function serveVsock(): Promise<void> {
  const device = openSync("/dev/fuse", "r+");
  const mount = spawn(
    "mount",
    ["-i", "-t", "fuse", "-o", "fd=3,rootmode=100666,user_id=0,group_id=0,allow_other", "vhost-vsock", vsock],
    { stdio: ["ignore", "inherit", "inherit", device] },
  );
  const code = await new Promise((done) => mount.on("close", done));
  if (code !== 0) throw new Error(`mount of ${vsock}: exit code ${code}`);
  const buffer = Buffer.alloc(1 << 17);
  const answerNext = () =>
    read(device, buffer, 0, buffer.length, null, (error) => {
      // Unmounted.
      if (error) return;
      const answer = answerTo(buffer);
      if (answer) write(device, answer, answerNext);
      else answerNext();
    });
  answerNext();
}

/** include/uapi/linux/fuse.h: the requests that a file gets which is only opened and configured. */
const requests = { forget: 2, getattr: 3, open: 14, release: 18, flush: 25, init: 26, interrupt: 36, ioctl: 39 };
const noSuchCall = -38;

function answerTo(request: Buffer): Buffer | undefined {
  const opcode = request.readUInt32LE(4);
  if (opcode === requests.forget || opcode === requests.interrupt) return undefined;
  const body = bodies[opcode];
  const answer = Buffer.concat([Buffer.alloc(16), body ?? Buffer.alloc(0)]);
  answer.writeUInt32LE(answer.length, 0);
  answer.writeInt32LE(body === undefined ? noSuchCall : 0, 4);
  answer.writeBigUInt64LE(request.readBigUInt64LE(8), 8);
  return answer;
}

const filled = (size: number, ...words: [offset: number, value: number][]): Buffer => {
  const bytes = Buffer.alloc(size);
  for (const [offset, value] of words) bytes.writeUInt32LE(value, offset);
  return bytes;
};
const bodies: Record<number, Buffer> = {
  // Version 7.31, and the largest write.
  [requests.init]: filled(64, [0, 7], [4, 31], [20, 4096]),
  // Inode, mode and number of links.
  [requests.getattr]: filled(104, [16, 1], [76, 0o100666], [80, 1]),
  [requests.open]: filled(16),
  [requests.ioctl]: filled(16),
  [requests.release]: filled(0),
  [requests.flush]: filled(0),
};

/** Whether this machine's processor has SEV-SNP: Kata asks it, and nobody else can answer. */
export const hasSnp = (): boolean => /^flags\s.*\bsev_snp\b/m.test(readFileSync("/proc/cpuinfo", "utf8"));

/**
 * A script that runs this shim under GDB, which answers CPUID 0x8000001f in the processor's place: SNP, C-bit 51, one
 * address bit less; and to runtime-rs, which asks, that it is AMD's. The shim itself is not changed, and GDB leaves it as
 * soon as it has asked.
 */
export function withSnpProcessor(shim: string, flavour: string): string {
  const bytes = readFileSync(shim);
  const places = cpuidPlaces(bytes).map((at) => addressOf(bytes, at));
  const script = flavour === "kata-go" ? scriptForGo(places) : scriptForRust(places, `${shim}.watched`);
  writeFileSync(`${shim}.gdb`, script.join("\n"));
  const gdb = (base: string) => `gdb -nx -nh -batch-silent -ex "set \\$base = ${base}" -x ${shim}.gdb`;
  // Where GDB has a program started that is linked with Linux's loader.
  const base = bytes.readUInt16LE(16) === positionIndependent ? "0x555555554000" : "0";
  if (flavour === "kata-go") return `#!/bin/sh\nexec ${gdb(base)} --args ${shim} "$@" 2>/dev/null\n`;
  // The daemon asks only when it makes the sandbox, for which containerd waits until the command that started it has ended.
  return [
    "#!/bin/sh",
    `for last; do :; done; [ "$last" = start ] || exec ${shim} "$@"`,
    `rm -f ${shim}.watched`,
    `${shim} "$@" || exit`,
    "pid=$(cat shim.pid)",
    // A program without a loader is elsewhere.
    `base=0x$(sed -n '\\:${shim}$:{s/-.*//p;q}' "/proc/$pid/maps")`,
    `setsid ${gdb("$base")} -p "$pid" </dev/null >/dev/null 2>&1 &`,
    `until [ -e ${shim}.watched ]; do sleep 0.1; done\n`,
  ].join("\n");
}

const quietly = "set pagination off\nset confirm off\nhandle all nostop noprint pass";

/** In the place of the instruction there, an answer. */
const answer = (place: number, leaf: number, [a, b, c, d]: readonly number[], then: string) =>
  [
    `break *($base + ${place}) if ($rax & 0xffffffff) == ${leaf}\ncommands\nsilent`,
    `set $rax = ${a}\nset $rbx = ${b}\nset $rcx = ${c}\nset $rdx = ${d}\nset $pc = $pc + 2`,
    then,
    "end",
  ].join("\n");

const answerSnp = (place: number, then: string) => answer(place, 0x8000001f, [0x1f, 0x73, 0x1fd, 0], then);
/** "AuthenticAMD". */
const answerVendor = (place: number) => answer(place, 0, [0x10, 0x68747541, 0x444d4163, 0x69746e65], "continue");

/** Go first looks whether it can fork as it wants to, and asks for the CPU when it starts. */
const scriptForGo = (places: readonly number[]): string[] => [
  quietly,
  "set follow-fork-mode parent\nset $forks = 0\nset $answers = 0",
  "catch vfork\ncommands\nsilent",
  "set $forks = $forks + 1\nif $forks > 1\nset follow-fork-mode child\nend\ncontinue\nend",
  ...places.map((place) =>
    answerSnp(place, "set $answers = $answers + 1\nif $answers > 1\ndetach\nquit\nend\ncontinue"),
  ),
  "run\n",
];

/** Rust asks when it needs it. */
const scriptForRust = (places: readonly number[], watched: string): string[] => [
  quietly,
  ...places.flatMap((place) => [answerVendor(place), answerSnp(place, "detach\nquit")]),
  `shell touch ${watched}`,
  "continue\n",
];

const positionIndependent = 3;

/** Of a byte of an ELF file, where a part that is loaded holds it. */
function addressOf(program: Buffer, at: number): number {
  const [first, size, count] = [
    Number(program.readBigUInt64LE(32)),
    program.readUInt16LE(54),
    program.readUInt16LE(56),
  ];
  for (let header = first; header < first + count * size; header += size) {
    const [offset, address, length] = [8, 16, 32].map((field) => Number(program.readBigUInt64LE(header + field)));
    if (
      program.readUInt32LE(header) === loaded &&
      offset !== undefined &&
      address !== undefined &&
      length !== undefined
    )
      if (at >= offset && at < offset + length) return address + at - offset;
  }
  throw new Error(`no part of the program that is loaded holds its byte ${at}`);
}

const loaded = 1;

/** Where a program asks for the CPU, as Go's assembler and as Rust's library write it. */
function cpuidPlaces(program: Buffer): number[] {
  const hex = (text: string) => Buffer.from(text, "hex");
  const cpuid = hex("0fa2");
  const ofGo = { before: hex("8b4c240c"), after: [hex("8944")] };
  const ofRust = { before: hex(""), after: [hex("4887"), hex("4987"), hex("4c87")] };
  const places: number[] = [];
  for (let at = program.indexOf(cpuid); at >= 0; at = program.indexOf(cpuid, at + 1)) {
    const follows = (bytes: Buffer) => program.subarray(at + 2, at + 2 + bytes.length).equals(bytes);
    const precedes = (bytes: Buffer) => program.subarray(at - bytes.length, at).equals(bytes);
    if ([ofGo, ofRust].some(({ before, after }) => precedes(before) && after.some(follows))) places.push(at);
  }
  return places;
}
