import { hypervisorOf, type KataConfiguration, type Table } from "../runtime/kata-configuration.ts";
import { withoutCommandLine } from "../runtime/kata-key-effects.ts";
import type { TableName } from "../runtime/kata-keys.ts";
import { isAtLeast } from "../runtime/version.ts";
import { parseKernelVerityParams } from "./verity-superblock.ts";

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
}

/**
 * The builds of Kata's Go runtime whose command lines are known. Upstream's are those that the real runtime makes of the
 * files that are rendered here (test/campaigns/kata-command-line.ts), one of them confirmed by the RTMR2 of a TDX quote;
 * for Contrast it is the prefix that its package of the runtime records. Contrast dropped `nr_cpus` with a patch in its
 * build of 3.28.0 (its 3.21.0 still had it), upstream did for confidential guests in 3.32.0.
 */
const variants: Variant[] = [
  { flavour: "contrast-go", from: "3.28.0", below: "3.29.0", vcpus: false },
  { flavour: "contrast-go", from: "3.30.0", below: "3.33.0", vcpus: false },
  { flavour: "kata-go", from: "3.27.0", below: "3.32.0", vcpus: true },
  { flavour: "kata-go", from: "3.32.0", below: "4.1.1", vcpus: false },
];

/** Keys that decide nothing about the command line. One that is neither here nor read below could decide anything. */
const withoutInfluence: { hypervisor: string[]; agent: string[]; runtime: string[] } = {
  hypervisor: [
    "path",
    "valid_hypervisor_paths",
    "firmware",
    "kernel",
    "initrd",
    "enable_annotations",
    "sev_snp_guest",
    "snp_guest_policy",
    "tdx_quote_generation_service_socket_port",
    "machine_type",
    "cpu_features",
    "default_vcpus",
    "default_memory",
    "shared_fs",
    "disable_block_device_use",
    "block_device_aio",
    "disable_nesting_checks",
    "cold_plug_vfio",
  ],
  agent: ["dial_timeout"],
  runtime: [
    "internetworking_model",
    "disable_guest_seccomp",
    "sandbox_cgroup_only",
    "vfio_mode",
    "create_container_timeout",
    "experimental_force_guest_pull",
    "pod_resource_api_sock",
  ],
};

/**
 * The whole command line of a guest that this Kata boots with this configuration, with `{vcpus}` where its vCPUs stand:
 * fixed parameters, root device, console, then what Kata's agent is told and the configuration's own `kernel_params`.
 * Undefined if this Kata is not known, or if the configuration says something whose effect is not: the line must then be
 * given as data, because a guess would be a reference value that no guest ever has.
 *
 * Source: Kata's virtcontainers/qemu.go, qemu_amd64.go, hypervisor.go (GetKernelRootParams) and katautils (SetKernelParams).
 */
export function kataCommandLine(build: KataBuild, configuration: KataConfiguration): string | undefined {
  const variant = variantOf(build);
  if (variant === undefined || !("qemu" in configuration.hypervisor)) return undefined;
  const harmless = (table: TableName) => [...withoutInfluence[table], ...withoutCommandLine(table)];
  const hypervisor = reading(configuration.hypervisor.qemu, harmless("hypervisor"));
  const agent = reading(configuration.agent.kata, harmless("agent"));
  const runtime = reading(configuration.runtime, harmless("runtime"));

  const rootfsType = hypervisor.text("rootfs_type");
  const rootFlags = rootfsFlags[rootfsType];
  const kernelParams = kataParameters(hypervisor.text("kernel_params"));
  const verity = hypervisor.text("kernel_verity_params");
  const debug = hypervisor.flag("enable_debug");
  const driver = hypervisor.text("block_device_driver");
  const isAsExpected =
    // Without an image there is no root device, outside confidential guests another one.
    hypervisor.text("image") !== "" &&
    hypervisor.flag("confidential_guest") &&
    hypervisor.flag("disable_image_nvdimm") &&
    driver !== "" &&
    // Otherwise a pod's guest has as many vCPUs as its host.
    runtime.flag("static_sandbox_resource_mgmt") &&
    // Kata refuses a value without a key.
    !kernelParams.some((word) => word.startsWith("="));

  const words = [
    "tsc=reliable no_timer_check rcupdate.rcu_expedited=1 i8042.direct=1 i8042.dumbkbd=1 i8042.nopnp=1 i8042.noaux=1",
    "noreplace-smp reboot=k cryptomgr.notests net.ifnames=0 pci=lastbus=0",
    verity === "" ? "root=/dev/vda1" : `${kataVerityTable(verity)} root=/dev/dm-0`,
    `rootflags=${rootFlags} rootfstype=${rootfsType}`,
    "console=hvc0 console=hvc1",
    debug ? "debug systemd.show_status=true systemd.log_level=debug" : "quiet systemd.show_status=false",
    "panic=1",
    ...(variant.vcpus ? [`nr_cpus=${vcpuPlaceholder}`] : []),
    hypervisor.flag("disable_guest_selinux") ? "selinux=0" : "selinux=1",
    "systemd.unit=kata-containers.target systemd.mask=systemd-networkd.service systemd.mask=systemd-networkd.socket",
    ...(driver === "virtio-scsi" ? ["scsi_mod.scan=none"] : []),
    ...(agent.flag("enable_debug") ? ["agent.log=debug"] : []),
    ...(agent.flag("debug_console_enabled") ? ["agent.debug_console agent.debug_console_vport=1026"] : []),
    ...timeout("agent.cdh_api_timeout", agent.number("cdh_api_timeout")),
    // Older ones do not know the key: unread, it makes the line unknown.
    ...(isAtLeast(build.kataVersion, "3.29.0")
      ? timeout("agent.launch_process_timeout", agent.number("launch_process_timeout"))
      : []),
    ...kernelParams,
  ];
  const known = [hypervisor, agent, runtime].every((table) => table.isReadWhole());
  return known && isAsExpected && rootFlags !== undefined ? words.join(" ") : undefined;
}

/** Whether the command line of this Kata is known, for the configurations that are rendered here. */
const variantOf = ({ flavour, kataVersion }: KataBuild): Variant | undefined =>
  /^\d+\.\d+\.\d+$/.test(kataVersion)
    ? variants.find(
        (variant) =>
          variant.flavour === flavour && isAtLeast(kataVersion, variant.from) && !isAtLeast(kataVersion, variant.below),
      )
    : undefined;

/** Sources disagree on the flags of xfs, which no confidential image uses. */
const rootfsFlags: Record<string, string | undefined> = { ext4: "data=ordered,errors=remount-ro ro", erofs: "ro" };

/** Kata's agent is told a timeout only if it is set. */
const timeout = (parameter: string, seconds: number) => (seconds > 0 ? [`${parameter}=${seconds}`] : []);

/** A table's keys with Go's zero values for those that are absent, and whether all that it has were read. */
function reading(table: Table, harmless: string[]) {
  const seen = new Set(harmless);
  const mistyped: string[] = [];
  const value = <Type extends "string" | "boolean" | "number", Value>(key: string, type: Type, zero: Value): Value => {
    seen.add(key);
    const found = table[key];
    if (found !== undefined && typeof found !== type) mistyped.push(key);
    return found === undefined || typeof found !== type ? zero : (found as Value);
  };
  return {
    text: (key: string): string => value(key, "string", ""),
    flag: (key: string): boolean => value(key, "boolean", false),
    number: (key: string): number => value(key, "number", 0),
    isReadWhole: () => mistyped.length === 0 && Object.keys(table).every((key) => seen.has(key)),
  };
}

/**
 * `kernel_params` as Kata's Go runtime passes them: split at blanks outside quotes, and written again without empty keys
 * or values (virtcontainers/hypervisor.go, KernelParamFields to SerializeParams).
 */
export function kataParameters(kernelParams: string): string[] {
  const words = kernelParams.match(/(?:[^ "]|"[^"]*(?:"|$))+/g) ?? [];
  return words.map((word) => word.trim().replace(/^=$|^([^=]+)=$/, "$1")).filter((word) => word !== "");
}

/** How Kata's Go runtime turns `kernel_verity_params` into a device-mapper table on the image's two partitions. */
export function kataVerityTable(kernelVerityParams: string): string {
  const { parameters } = parseKernelVerityParams(kernelVerityParams);
  const { dataBlockSize, hashBlockSize, dataBlocks } = parameters;
  const sectors = (dataBlockSize / 512) * dataBlocks;
  // Kata copies digits as they are written: in capitals they would measure differently.
  const asWritten = (key: string) =>
    kernelVerityParams
      .split(",")
      .map((field) => field.trim())
      .findLast((field) => field.startsWith(`${key}=`))
      ?.slice(key.length + 1);
  return `dm-mod.create="dm-verity,,,ro,0 ${sectors} verity 1 /dev/vda1 /dev/vda2 ${dataBlockSize} ${hashBlockSize} ${dataBlocks} 0 sha256 ${asWritten("root_hash")} ${asWritten("salt")}"`;
}

/** Whether kernel parameters name the root hash of the guest's image, by any of the ways that initial file systems know. */
export const namesRootHash = (kernelParams: string): boolean =>
  /\b(roothash|usrhash|root_hash)=|dm-verity/.test(kernelParams);

/** What of a configuration binds the guest's image to the launch measurement: the root hash, in either place. */
export function bindsRootfs(configuration: KataConfiguration): boolean {
  // To Kata, a key that is not written is empty.
  const { kernel_params = "", kernel_verity_params = "" } = hypervisorOf(configuration);
  return kernel_verity_params !== "" || namesRootHash(String(kernel_params));
}
