/** Starts sandboxes with a real containerd and a real shim of Kata, in whose payload QEMU only notes its arguments. */
import { type ChildProcess, spawn } from "node:child_process";
import { chmodSync, existsSync, mkdirSync, openSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { setTimeout as wait } from "node:timers/promises";
import { run } from "../../tools/process/run.ts";

/** In QEMU's place: notes its arguments, and ends the shim, which would wait for the guest. */
export const recorder = `#!/bin/sh
[ "$1" != --version ] || { echo "QEMU emulator version 10.0.0"; exit; }
for argument; do printf '%s\\0' "$argument"; done >"$0.arguments"
kill -9 $PPID
`;

export interface Sandbox {
  /** Absolute paths of the shim, of Kata's configuration, and of the recorder. */
  shim: string;
  configuration: string;
  vmm: string;
  /** The pod's limits. */
  cpus?: number;
  memoryMiB?: number;
}

/** What QEMU was told, or why it was not started; and what Kata and containerd logged. */
export interface Started {
  arguments?: string[];
  error: string;
  log: string;
}

export class Containerd {
  readonly #programs: string;
  readonly #directory: string;
  readonly #process: ChildProcess;
  #count = 0;

  private constructor(programs: string, directory: string, process: ChildProcess) {
    this.#programs = programs;
    this.#directory = directory;
    this.#process = process;
  }

  static async start(programs: string, directory: string): Promise<Containerd> {
    mkdirSync(join(directory, "rootfs"), { recursive: true });
    const config = join(directory, "config.toml");
    writeFileSync(config, 'version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n[debug]\nlevel = "debug"\n');
    const log = openSync(join(directory, "log"), "w");
    const args = ["--config", config, "--root", join(directory, "root"), "--state", join(directory, "state")];
    const process = spawn(join(programs, "containerd"), [...args, "--address", join(directory, "sock")], {
      stdio: ["ignore", log, log],
    });
    const containerd = new Containerd(programs, directory, process);
    while ((await containerd.#ctr(["version"])).code !== 0) {
      if (process.exitCode !== null) throw new Error(`containerd ended: ${containerd.#log().slice(-2000)}`);
      await wait(100);
    }
    return containerd;
  }

  /** The sandbox's container is made as by a pod's, and fails as its VM does. */
  async sandbox({ shim, configuration, vmm, cpus, memoryMiB }: Sandbox): Promise<Started> {
    const id = `agreement-${++this.#count}`;
    const noted = `${vmm}.arguments`;
    rmSync(noted, { force: true });
    const before = this.#log().length;
    const cri = "io.kubernetes.cri";
    const annotations: Record<string, string> = {
      [`${cri}.container-type`]: "sandbox",
      [`${cri}.sandbox-id`]: id,
      [`${cri}.sandbox-name`]: id,
      [`${cri}.sandbox-namespace`]: "default",
      ...(cpus && { [`${cri}.sandbox-cpu-period`]: "100000", [`${cri}.sandbox-cpu-quota`]: String(cpus * 100000) }),
      ...(memoryMiB && { [`${cri}.sandbox-memory`]: String(memoryMiB * 2 ** 20) }),
    };
    const options = ["--rootfs", "--null-io", "--runtime", shim, "--runtime-config-path", configuration];
    const { stderr } = await this.#ctr([
      ...["run", ...options, "--cgroup", `/${cgroup}/${id}`],
      ...Object.entries(annotations).flatMap(([key, value]) => ["--annotation", `${key}=${value}`]),
      ...[join(this.#directory, "rootfs"), id, "/pause"],
    ]);
    await this.#ctr(["container", "rm", id]);
    return {
      ...(existsSync(noted) && { arguments: readFileSync(noted, "utf8").split("\0").slice(0, -1) }),
      // runtime-rs adds where in its program it happened.
      error: (stderr.trim().split("\n").at(-1) ?? "").replace(/(\\n)*Stack backtrace:.*/, ""),
      log: this.#log().slice(before),
    };
  }

  async stop(): Promise<void> {
    const ended = new Promise((done) => this.#process.on("exit", done));
    this.#process.kill("SIGKILL");
    await ended;
  }

  #log = (): string => readFileSync(join(this.#directory, "log"), "utf8");

  #ctr = (args: string[]) =>
    run(join(this.#programs, "ctr"), ["--address", join(this.#directory, "sock"), ...args], { timeoutMs: 300_000 });
}

/** Of all sandboxes; whoever started them removes it when no process is in it any more. */
export const cgroup = "kata-agreement";

export function place(path: string, bytes: Uint8Array | string, mode = 0o644): void {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, bytes);
  chmodSync(path, mode);
}

/** What of QEMU's command line is measured, or must be what the payload says. */
export interface Launch {
  commandLine: string;
  vcpus: number;
  memoryMiB: number;
  cpuModel: string;
  kernel: string;
  /** `-bios`, or of the TEE's object or flash. */
  firmware: string;
  initrd: string | undefined;
  /** Of the kind that is a TEE's: its properties, as QEMU is told them. */
  guest: string | undefined;
}

export function launchOf(args: readonly string[]): Launch {
  const all = (option: string) =>
    args.flatMap((argument, index) => (argument === option ? [args[index + 1] ?? ""] : []));
  const one = (option: string) => all(option).at(-1) ?? "";
  const number = (text: string) => Number(/^\d+/.exec(text)?.[0]);
  const flash = all("-drive").find((drive) => drive.includes("if=pflash"));
  return {
    commandLine: one("-append"),
    vcpus: number(one("-smp")),
    memoryMiB: number(one("-m")) * (/^\d+G/.test(one("-m")) ? 1024 : 1),
    cpuModel: one("-cpu").split(",")[0] ?? "",
    kernel: one("-kernel"),
    firmware: one("-bios") || (/file=([^,]*)/.exec(flash ?? "")?.[1] ?? ""),
    initrd: all("-initrd")[0],
    guest: all("-object").find((object) => /sev-snp-guest|tdx-guest/.test(object)),
  };
}
