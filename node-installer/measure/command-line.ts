import { Refusal } from "../runtime/refusal.ts";
import { toHex } from "./bytes.ts";
import type { VerityParameters } from "./verity.ts";
import { parseKernelVerityParams } from "./verity-superblock.ts";

/** Parameters in order, as the kernel splits them: at blanks outside of double quotes (kernel lib/cmdline.c, next_arg). */
export function parseCommandLine(text: string): { key: string; value?: string }[] {
  return (text.match(/(?:[^\s"]|"[^"]*(?:"|$))+/g) ?? []).map((word) => {
    const at = word.indexOf("=");
    const plain = (part: string) => part.replace(/^"|"$/g, "");
    return at < 0
      ? { key: plain(word) }
      : { key: word.slice(0, at).replace(/^"/, ""), value: plain(word.slice(at + 1)) };
  });
}

/** The value that wins: the last. */
export const lastValue = (text: string, key: string): string | undefined =>
  parseCommandLine(text).findLast((each) => each.key === key)?.value;

/** A dm-verity target of `dm-mod.create=`: what the kernel maps before it mounts the root file system. */
export interface VerityTarget extends VerityParameters {
  rootHash: string;
  dataDevice: string;
  hashDevice: string;
  /** First block of the tree on the hash device: 0 without a superblock. */
  hashStart: number;
  /** 512-byte sectors of the mapped device. */
  sectors: number;
}

/**
 * The verity table of a command line: `dm-mod.create="name,uuid,minor,flags,0 <sectors> verity 1 <data> <hash> <data block>
 * <hash block> <blocks> <start> <algorithm> <root> <salt>"` (kernel Documentation/admin-guide/device-mapper).
 */
export function verityTarget(commandLine: string): VerityTarget | undefined {
  const value = lastValue(commandLine, "dm-mod.create");
  const words = value?.match(
    /(\d+) verity 1 (\S+) (\S+) (\d+) (\d+) (\d+) (\d+) (\S+) ([0-9a-fA-F]+) ([0-9a-fA-F]+|-)/,
  );
  if (value === undefined || !value.includes(" verity ")) return undefined;
  if (!words)
    throw new Refusal(
      "verity-parameters",
      `The kernel command line has the dm-verity table "${value}", which cannot be read.`,
    );
  const [
    ,
    sectors,
    dataDevice = "",
    hashDevice = "",
    dataBlock,
    hashBlock,
    blocks,
    start,
    algorithm,
    root = "",
    salt = "",
  ] = words;
  return {
    algorithm: algorithm as VerityTarget["algorithm"],
    rootHash: root.toLowerCase(),
    salt: salt === "-" ? new Uint8Array() : Buffer.from(salt, "hex"),
    dataBlockSize: Number(dataBlock),
    hashBlockSize: Number(hashBlock),
    dataBlocks: Number(blocks),
    hashStart: Number(start),
    sectors: Number(sectors),
    dataDevice,
    hashDevice,
  };
}

/** What Kata's configuration decides of a guest's command line. */
export interface GuestBoot {
  rootfsType: "ext4" | "erofs" | "xfs";
  kernelParams: string;
  /** Empty: the guest sets dm-verity up itself, or not at all. */
  kernelVerityParams: string;
}

/** How Kata's Go runtime turns `kernel_verity_params` into a device-mapper table on the image's two partitions. */
export function kataVerityTable(kernelVerityParams: string): string {
  const { rootHash, parameters } = parseKernelVerityParams(kernelVerityParams);
  const { dataBlockSize, hashBlockSize, dataBlocks, salt } = parameters;
  const sectors = (dataBlockSize / 512) * dataBlocks;
  return `dm-mod.create="dm-verity,,,ro,0 ${sectors} verity 1 /dev/vda1 /dev/vda2 ${dataBlockSize} ${hashBlockSize} ${dataBlocks} 0 sha256 ${rootHash} ${toHex(salt)}"`;
}

/**
 * The command line that Kata's Go runtime passes to QEMU for a confidential guest, which the launch digest covers: fixed
 * parameters, root device, console, then the configuration's `kernel_params` (kata-containers, virtcontainers qemu.go and
 * hypervisor.go; Contrast's measured prefix is the same). Undefined for flavours whose command line is not known here; then
 * it has to be given as data.
 */
export function kataCommandLine(flavour: string, boot: GuestBoot, debug = false): string | undefined {
  if (flavour !== "kata-go" && flavour !== "contrast-go") return undefined;
  const verity = boot.kernelVerityParams !== "";
  const rootFlags = boot.rootfsType === "erofs" ? "ro" : "data=ordered,errors=remount-ro ro";
  return [
    "tsc=reliable no_timer_check rcupdate.rcu_expedited=1 i8042.direct=1 i8042.dumbkbd=1 i8042.nopnp=1 i8042.noaux=1",
    "noreplace-smp reboot=k cryptomgr.notests net.ifnames=0 pci=lastbus=0",
    verity ? `${kataVerityTable(boot.kernelVerityParams)} root=/dev/dm-0` : "root=/dev/vda1",
    `rootflags=${rootFlags} rootfstype=${boot.rootfsType}`,
    "console=hvc0 console=hvc1",
    debug ? "debug systemd.show_status=true systemd.log_level=debug" : "quiet systemd.show_status=false",
    "panic=1 selinux=0 systemd.unit=kata-containers.target",
    "systemd.mask=systemd-networkd.service systemd.mask=systemd-networkd.socket scsi_mod.scan=none",
    ...(debug ? ["agent.log=debug agent.debug_console agent.debug_console_vport=1026"] : []),
    ...(boot.kernelParams === "" ? [] : [boot.kernelParams]),
  ].join(" ");
}
