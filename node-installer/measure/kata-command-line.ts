import { toHex } from "./bytes.ts";
import { parseKernelVerityParams } from "./verity-superblock.ts";

/** The parts of a guest's command line that Kata's configuration decides. */
export interface GuestBoot {
  rootfsType: "ext4" | "erofs" | "xfs";
  kernelParams: string;
  /** Empty: the guest sets dm-verity up itself, or not at all. */
  kernelVerityParams: string;
}

/** Which Kata it is: flavour (runtime/flavours.ts) and version. */
export interface KataBuild {
  flavour: string;
  kataVersion: string;
}

/** Stands in a command line for the number of the guest's vCPUs. */
export const vcpuPlaceholder = "{vcpus}";
export const withVcpus = (commandLine: string, vcpus: number): string =>
  commandLine.replaceAll(vcpuPlaceholder, String(vcpus));

interface Variant {
  flavour: string;
  /** The first version, and the first one that differs again or is not known. */
  from: string;
  below: string;
  /** `nr_cpus=` with the guest's vCPUs: then the digest depends on them twice. */
  vcpus: boolean;
  /** `agent.launch_process_timeout=6`, the value of Kata's template, which nothing here changes. */
  launchTimeout: boolean;
}

/**
 * What is known of the command lines that Kata's Go runtime passes to QEMU for a confidential guest. Sources: for Contrast
 * (whose patches drop `nr_cpus`) the measured prefix in its package of the runtime; for upstream the command lines of
 * running guests, one of them confirmed by the RTMR2 of a TDX quote, and its source (virtcontainers qemu.go).
 */
const variants: Variant[] = [
  { flavour: "contrast-go", from: "3.17.0", below: "3.29.0", vcpus: false, launchTimeout: false },
  { flavour: "contrast-go", from: "3.30.0", below: "4.0.0", vcpus: false, launchTimeout: true },
  { flavour: "kata-go", from: "3.30.0", below: "3.32.0", vcpus: true, launchTimeout: true },
];

/**
 * The whole command line of a guest, with `{vcpus}` where its vCPUs stand: fixed parameters, root device, console, then the
 * configuration's `kernel_params`. Undefined if this Kata's command line is not known: it must then be given as data,
 * because a guess would be a reference value that no guest ever has.
 */
export function kataCommandLine(build: KataBuild, boot: GuestBoot): string | undefined {
  const variant = variants.find(
    ({ flavour, from, below }) =>
      flavour === build.flavour &&
      compareVersions(build.kataVersion, from) >= 0 &&
      compareVersions(build.kataVersion, below) < 0,
  );
  // Sources disagree on the flags of xfs, which no confidential image uses.
  if (variant === undefined || boot.rootfsType === "xfs") return undefined;
  const rootFlags = boot.rootfsType === "erofs" ? "ro" : "data=ordered,errors=remount-ro ro";
  return [
    "tsc=reliable no_timer_check rcupdate.rcu_expedited=1 i8042.direct=1 i8042.dumbkbd=1 i8042.nopnp=1 i8042.noaux=1",
    "noreplace-smp reboot=k cryptomgr.notests net.ifnames=0 pci=lastbus=0",
    boot.kernelVerityParams === "" ? "root=/dev/vda1" : `${kataVerityTable(boot.kernelVerityParams)} root=/dev/dm-0`,
    `rootflags=${rootFlags} rootfstype=${boot.rootfsType}`,
    "console=hvc0 console=hvc1 quiet systemd.show_status=false panic=1",
    ...(variant.vcpus ? [`nr_cpus=${vcpuPlaceholder}`] : []),
    "selinux=0 systemd.unit=kata-containers.target",
    "systemd.mask=systemd-networkd.service systemd.mask=systemd-networkd.socket scsi_mod.scan=none",
    ...(variant.launchTimeout ? ["agent.launch_process_timeout=6"] : []),
    ...kataParameters(boot.kernelParams),
  ].join(" ");
}

/**
 * `kernel_params` as Kata's Go runtime passes them: split at blanks outside quotes, and written again without empty keys
 * or values (virtcontainers/hypervisor.go, KernelParamFields to SerializeParams).
 */
export function kataParameters(kernelParams: string): string[] {
  const words = kernelParams.match(/(?:[^ "]|"[^"]*(?:"|$))+/g) ?? [];
  return words.map((word) => word.trim().replace(/^=|^([^=]+)=$/, "$1")).filter((word) => word !== "");
}

/** How Kata's Go runtime turns `kernel_verity_params` into a device-mapper table on the image's two partitions. */
export function kataVerityTable(kernelVerityParams: string): string {
  const { rootHash, parameters } = parseKernelVerityParams(kernelVerityParams);
  const { dataBlockSize, hashBlockSize, dataBlocks, salt } = parameters;
  const sectors = (dataBlockSize / 512) * dataBlocks;
  return `dm-mod.create="dm-verity,,,ro,0 ${sectors} verity 1 /dev/vda1 /dev/vda2 ${dataBlockSize} ${hashBlockSize} ${dataBlocks} 0 sha256 ${rootHash} ${toHex(salt)}"`;
}

function compareVersions(left: string, right: string): number {
  const numbers = (version: string) => version.split(/[.-]/).map(Number);
  const [a, b] = [numbers(left), numbers(right)];
  if (a.some(Number.isNaN)) return Number.NaN;
  for (let index = 0; index < 3; index += 1) {
    const difference = (a[index] ?? 0) - (b[index] ?? 0);
    if (difference !== 0) return difference;
  }
  return 0;
}
