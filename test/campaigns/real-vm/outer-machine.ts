import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { cpSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { createConnection, type Socket } from "node:net";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as delay } from "node:timers/promises";
import { quote } from "../../../runtime/shell.ts";
import { check } from "../../../tools/process/run.ts";
import { debianTree } from "../../../tools/programs/debian.ts";

const packages =
  "systemd systemd-sysv udev dbus containerd runc qemu-system-x86 linux-image-amd64 containernetworking-plugins iproute2 iptables procps kmod util-linux libstdc++6 ca-certificates";

const bridge = {
  ...{ cniVersion: "1.0.0", name: "pods" },
  plugins: [
    { type: "bridge", bridge: "cni0", isGateway: true, ipam: { type: "host-local", subnet: "10.22.0.0/16" } },
    { type: "loopback" },
  ],
};
const files: Record<string, string> = {
  "/etc/fstab": "/dev/vda / ext4 defaults 0 1\n/dev/vdb /campaign ext4 defaults 0 2\n",
  "/etc/modules-load.d/campaign.conf": "kvm_amd\nkvm_intel\nvhost_vsock\nvhost_net\ntun\n",
  "/etc/cni/net.d/10-pods.conflist": JSON.stringify(bridge),
  "/etc/containerd/config.toml": `version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "/etc/cni/net.d"
`,
  "/usr/local/sbin/campaign-shell": readFileSync(new URL("shell.sh", import.meta.url), "utf8"),
  "/etc/systemd/system/campaign.service":
    "[Service]\nExecStart=/bin/sh /usr/local/sbin/campaign-shell\nRestart=always\n[Install]\nWantedBy=multi-user.target\n",
};

/** What makes a plain tree the machine's: sh commands, with the tree's path as $1. */
const finish = [
  ...Object.entries(files).map(
    ([path, content]) => `mkdir -p "$(dirname "$1${path}")" && printf %s ${quote(content)} >"$1${path}"`,
  ),
  'mkdir -p "$1/campaign"',
  'chroot "$1" systemctl enable campaign.service containerd.service',
].join("\n");

/** The machine's Debian 13; its QEMU runs the machine itself as well, so that this host needs none. */
export const outerTree = (progress: (line: string) => void): Promise<string> =>
  debianTree({ name: "real-vm-trixie", suite: "trixie", packages: packages.split(" "), finish }, progress);

interface Result {
  code: number;
  output: string;
}

/** A machine whose disks live in `directory`. With emulation it has one CPU, and AMD's virtualization is emulated, too. */
export class OuterMachine {
  readonly #tree: string;
  readonly #directory: string;
  readonly #kvm: boolean;
  readonly #tell: (line: string) => void;
  #process: ChildProcess | undefined;
  #socket: Socket | undefined;
  readonly #waiting = new Map<string, (result: Result) => void>();
  #number = 0;

  constructor(options: { tree: string; directory: string; kvm: boolean; tell: (line: string) => void }) {
    this.#tree = options.tree;
    this.#directory = options.directory;
    this.#kvm = options.kvm;
    this.#tell = options.tell;
  }

  /** New disks: the tree, and what the campaign brings along. */
  async makeDisks(parts: string): Promise<void> {
    await mkdir(this.#directory, { recursive: true });
    for (const [name, source, size] of [
      ["root", this.#tree, "4G"],
      ["campaign", parts, "3G"],
    ] as const)
      await check("mke2fs", ["-q", "-F", "-t", "ext4", "-d", source, join(this.#directory, `${name}.img`), size]);
    const version = readdirSync(join(this.#tree, "boot"))
      .find((name) => name.startsWith("vmlinuz-"))
      ?.slice(8);
    for (const name of ["vmlinuz", "initrd.img"])
      cpSync(join(this.#tree, "boot", `${name}-${version}`), join(this.#directory, name));
  }

  /** Waits until the machine's shell answers; with emulation on a busy host that takes minutes. */
  async boot(): Promise<void> {
    const begin = Date.now();
    const libraries = join(this.#tree, "usr/lib/x86_64-linux-gnu");
    const shell = join(this.#directory, "shell");
    rmSync(shell, { force: true });
    const disk = (name: string) => `if=virtio,format=raw,file=${join(this.#directory, name)}.img`;
    const machine = this.#kvm
      ? ["-accel", "kvm", "-cpu", "host", "-smp", "2"]
      : // More than one CPU or thread hangs now and then, and without no_timer_check the boot may stop.
        ["-accel", "tcg,thread=single,tb-size=1024", "-cpu", "EPYC-v4,+svm", "-smp", "1"];
    this.#process = spawn(
      join(libraries, "ld-linux-x86-64.so.2"),
      [
        ...["--library-path", libraries, join(this.#tree, "usr/bin/qemu-system-x86_64")],
        ...["-L", join(this.#tree, "usr/share/qemu"), "-L", join(this.#tree, "usr/share/seabios")],
        ...["-machine", "q35", ...machine, "-m", "4096", "-nodefaults", "-display", "none", "-no-reboot"],
        ...["-kernel", join(this.#directory, "vmlinuz"), "-initrd", join(this.#directory, "initrd.img")],
        ...["-append", "root=/dev/vda rw console=ttyS0 no_timer_check mitigations=off"],
        ...["-drive", disk("root"), "-drive", disk("campaign")],
        ...["-serial", `file:${join(this.#directory, "console.log")}`],
        ...["-device", "virtio-serial", "-chardev", `socket,id=shell,path=${shell},server=on,wait=off`],
        ...["-device", "virtserialport,chardev=shell,name=campaign"],
      ],
      { stdio: ["ignore", "inherit", "inherit"] },
    );
    const ended = once(this.#process, "exit").then(() => {
      for (const answer of this.#waiting.values()) answer({ code: -1, output: "the outer machine ended" });
      this.#waiting.clear();
    });
    const ready = this.#connect(shell);
    if ((await Promise.race([ready, ended.then(() => "ended")])) === "ended")
      throw new Error(`The outer machine ended before it was up: see ${join(this.#directory, "console.log")}.`);
    this.#tell(`The outer machine is up (${Math.round((Date.now() - begin) / 1000)} s).`);
  }

  async #connect(path: string): Promise<void> {
    for (;;) {
      const socket = createConnection(path);
      const connected = await Promise.race([
        once(socket, "connect").then(() => true),
        once(socket, "error").then(() => false),
      ]).catch(() => false);
      if (connected) {
        this.#socket = socket;
        break;
      }
      await delay(200);
    }
    await new Promise<void>((resolve) => {
      createInterface({ input: this.#socket as Socket }).on("line", (line) => {
        const [id = "", code, output = ""] = line.split(" ");
        if (id === "ready") resolve();
        this.#waiting.get(id)?.({ code: Number(code), output: Buffer.from(output, "base64").toString() });
        this.#waiting.delete(id);
      });
    });
  }

  /** Runs a command of sh in the machine, and says how long it took. */
  async run(command: string): Promise<Result> {
    const begin = Date.now();
    this.#number += 1;
    const id = String(this.#number);
    const result = await new Promise<Result>((resolve) => {
      this.#waiting.set(id, resolve);
      this.#socket?.write(`${id} ${Buffer.from(command).toString("base64")}\n`);
    });
    this.#tell(`$ ${command} → ${result.code} (${Math.round((Date.now() - begin) / 1000)} s)\n${result.output}`);
    return result;
  }

  /** As if somebody pulled the plug: what the machine had not synced is lost. */
  async cutPower(): Promise<void> {
    const child = this.#process;
    this.#process = undefined;
    this.#socket?.destroy();
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    child.kill("SIGKILL");
    await once(child, "exit");
  }
}
