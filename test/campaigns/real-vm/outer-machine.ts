import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { cpSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { createConnection, type Socket } from "node:net";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as delay } from "node:timers/promises";
import { writeNodeFile } from "../../../tools/local-cluster/node-machine.ts";
import { check } from "../../../tools/process/run.ts";
import { debianTree } from "../../../tools/programs/debian.ts";

const packages =
  "systemd systemd-sysv udev dbus containerd runc qemu-system-x86 linux-image-amd64 containernetworking-plugins iproute2 iptables procps kmod util-linux libstdc++6 ca-certificates";

const wants = "/etc/systemd/system/multi-user.target.wants";
/** What makes a plain tree this machine's; a value that begins with "-> " makes a link. */
const files: Record<string, string> = {
  "/etc/fstab": "/dev/vda / ext4 defaults 0 1\n/dev/vdb /campaign ext4 defaults 0 2\n",
  "/etc/modules-load.d/campaign.conf": "kvm_amd\nkvm_intel\nvhost_vsock\nvhost_net\ntun\n",
  "/usr/local/sbin/campaign-shell": readFileSync(new URL("shell.sh", import.meta.url), "utf8"),
  "/etc/systemd/system/campaign.service":
    "[Service]\nExecStart=/bin/sh /usr/local/sbin/campaign-shell\nRestart=always\n",
  [`${wants}/campaign.service`]: "-> /etc/systemd/system/campaign.service",
  // An emulated machine is slow, and one on a busy host slower.
  "/etc/systemd/system.conf.d/10-slow.conf":
    "[Manager]\nDefaultTimeoutStartSec=infinity\nDefaultDeviceTimeoutSec=infinity\n",
  "/etc/systemd/system/systemd-modules-load.service.d/10-slow.conf": "[Service]\nTimeoutSec=infinity\n",
  // Newer than /usr: nothing is made anew at the first boot, which takes minutes (ldconfig).
  "/etc/.updated": "",
  "/var/.updated": "",
  // Nobody logs in.
  "/etc/systemd/system/getty.target": "-> /dev/null",
  "/etc/systemd/system/systemd-logind.service": "-> /dev/null",
  "/etc/systemd/system/default.target": "-> /usr/lib/systemd/system/multi-user.target",
  // The name that nodes of a local cluster know; without a network there is no such device.
  "/etc/systemd/network/10-campaign.link": "[Match]\nDriver=virtio_net\n[Link]\nName=host0\n",
  "/campaign/empty": "",
};

/** The machine's Debian 13; its QEMU runs the machine itself as well, so that this host needs none. */
export const outerTree = (progress: (line: string) => void): Promise<string> =>
  debianTree({ name: "real-vm-trixie", suite: "trixie", packages: packages.split(" "), finish: "true" }, progress);

/** A command for the machine that ends when a payload's QEMU has begun: asking from outside keeps the one CPU busy. */
export const untilVmStarts = 'until pgrep -f "/opt/edgeless/[^/]*/.* -name sandbox"; do sleep 1; done';

const tap = "outer0";

interface Result {
  code: number;
  output: string;
}

interface Options {
  /** Where the disks, the console's log and the shell's socket are. */
  directory: string;
  tree: string;
  kvm: boolean;
  /** The words before a command that run it in the network whose bridge br0 the machine is connected to. */
  network?: string[];
  tell: (line: string) => void;
}

/** With emulation it has one CPU, and AMD's virtualization is emulated, too. */
export class OuterMachine {
  readonly #options: Options;
  #process: ChildProcess | undefined;
  #socket: Socket | undefined;
  readonly #waiting = new Map<string, (result: Result) => void>();
  #number = 0;

  constructor(options: Options) {
    this.#options = options;
  }

  /**
   * New disks.
   * @param layers directories that lie over the tree, the first one on top
   * @param parts the directory that the machine sees as /campaign
   */
  async makeDisks(layers: string[], parts: string): Promise<void> {
    const { directory, tree } = this.#options;
    const own = join(directory, "own");
    await mkdir(directory, { recursive: true });
    for (const [path, content] of Object.entries(files)) await writeNodeFile(own, path, content);
    const root = join(directory, "root");
    await mkdir(root);
    const lower = [own, ...layers, tree].join(":");
    // The mount disappears with the program that needs it.
    const script = 'mount -t overlay overlay -o "lowerdir=$1" "$2"; exec mke2fs -q -F -t ext4 -d "$2" "$3" 6G';
    const overlay = ["--mount", "--propagation=private", "--", "sh", "-ec", script, "disk"];
    await check("unshare", [...overlay, lower, root, join(directory, "root.img")]);
    await check("mke2fs", ["-q", "-F", "-t", "ext4", "-d", parts, join(directory, "campaign.img"), "3G"]);
    const version = readdirSync(join(tree, "boot"))
      .find((name) => name.startsWith("vmlinuz-"))
      ?.slice(8);
    for (const name of ["vmlinuz", "initrd.img"])
      cpSync(join(tree, "boot", `${name}-${version}`), join(directory, name));
  }

  /** Waits until the machine's shell answers; with emulation on a busy host that takes minutes. */
  async boot(): Promise<void> {
    const begin = Date.now();
    const { directory, tree, kvm, network } = this.#options;
    const libraries = join(tree, "usr/lib/x86_64-linux-gnu");
    const shell = join(directory, "shell");
    rmSync(shell, { force: true });
    const disk = (name: string) => `if=virtio,format=raw,file=${join(directory, name)}.img`;
    const machine = kvm
      ? ["-accel", "kvm", "-cpu", "host", "-smp", "2"]
      : // More than one CPU or thread hangs now and then, and without no_timer_check the boot may stop.
        ["-accel", "tcg,thread=single,tb-size=1024", "-cpu", "EPYC-v4,+svm", "-smp", "1"];
    const [command = "nice", ...words] = [
      ...[...(network ?? []), "nice"],
      ...[join(libraries, "ld-linux-x86-64.so.2"), "--library-path", libraries],
      ...[join(tree, "usr/bin/qemu-system-x86_64"), "-L", join(tree, "usr/share/qemu")],
      ...["-L", join(tree, "usr/share/seabios"), "-machine", "q35", ...machine, "-m", "4096"],
      ...["-nodefaults", "-display", "none", "-no-reboot"],
      ...["-kernel", join(directory, "vmlinuz"), "-initrd", join(directory, "initrd.img")],
      ...["-append", "root=/dev/vda rw console=ttyS0 systemd.show_status=error no_timer_check mitigations=off"],
      ...["-drive", disk("root"), "-drive", disk("campaign")],
      ...["-serial", `file:${join(directory, "console.log")}`],
      ...["-device", "virtio-serial", "-chardev", `socket,id=shell,path=${shell},server=on,wait=off`],
      ...["-device", "virtserialport,chardev=shell,name=campaign"],
      ...(network ? ["-netdev", `tap,id=net,ifname=${tap},script=no,downscript=no`] : []),
      ...(network ? ["-device", "virtio-net-pci,netdev=net,romfile="] : []),
    ];
    this.#process = spawn(command, words, { stdio: ["ignore", "inherit", "inherit"] });
    const ended = once(this.#process, "exit").then(() => {
      for (const answer of this.#waiting.values()) answer({ code: -1, output: "the outer machine ended" });
      this.#waiting.clear();
    });
    const ready = this.#connect(shell).then(() => this.#joinNetwork());
    if ((await Promise.race([ready, ended.then(() => "ended")])) === "ended")
      throw new Error(`The outer machine ended before it was up: see ${join(directory, "console.log")}.`);
    this.#options.tell(`The outer machine is up (${Math.round((Date.now() - begin) / 1000)} s).`);
  }

  async #joinNetwork(): Promise<void> {
    const [command, ...words] = this.#options.network ?? [];
    if (command !== undefined) await check(command, [...words, "ip", "link", "set", tap, "master", "br0", "up"]);
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
    this.#options.tell(
      `$ ${command} → ${result.code} (${Math.round((Date.now() - begin) / 1000)} s)\n${result.output}`,
    );
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
