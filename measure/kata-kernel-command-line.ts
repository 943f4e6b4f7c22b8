import { hypervisorOf, type KataConfiguration, type Table, type Value } from "../runtime/kata-configuration.ts";
import { allowedWords, effectOf, withoutCommandLine } from "../runtime/kata-key-effects.ts";
import { type Reader, type TableName, typeOfKey } from "../runtime/kata-keys.ts";
import { kataFacts, oldestKata } from "../runtime/kata-versions.ts";
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

/**
 * Keys that a runtime's user may not set, or not without weakening the guest, and that decide nothing about the command line:
 * kata-key-effects.ts says the same of all others. One that is in neither, nor read below, could decide anything; and with
 * words that Kata does not take, runtime-rs with an unknown key in the agent's table, too, it starts no guest at all.
 */
type Harmless = Partial<Record<TableName, string[]>>;

const harmlessForAll: Harmless = {
  hypervisor: [
    "path",
    "valid_hypervisor_paths",
    "firmware",
    "kernel",
    "enable_annotations",
    "sev_snp_guest",
    "snp_guest_policy",
    "machine_type",
    "cpu_features",
    "shared_fs",
    "disable_block_device_use",
  ],
  runtime: ["emptydir_mode"],
};
const harmlessForGo: Harmless = { hypervisor: ["initrd"], runtime: ["experimental_force_guest_pull"] };
const harmlessForRs: Harmless = { runtime: ["experimental"] };

/**
 * The whole command line of a guest that this Kata boots with this configuration, with `{vcpus}` where its vCPUs stand.
 * Undefined if this Kata is not known (runtime/kata-versions.ts), or if the configuration says something whose effect is
 * not: the line must then be given as data, because a guess would be a reference value that no guest ever has.
 *
 * Upstream's lines are those that the real runtimes make of the files that are rendered here (test/campaigns/
 * kata-agreement.ts), one of them confirmed by the RTMR2 of a TDX quote; Contrast's begin with what its package of the
 * runtime records.
 */
export function kataCommandLine(build: KataBuild, configuration: KataConfiguration): string | undefined {
  const { flavour, kataVersion } = build;
  const facts = kataFacts(kataVersion);
  if (!facts.commandLineKnown || !("qemu" in configuration.hypervisor)) return undefined;
  if (flavour === "kata-rs")
    return isAtLeast(kataVersion, oldestKata.rs)
      ? rsLine(readingOf(configuration, flavour, kataVersion, harmlessForRs))
      : undefined;
  if (flavour !== "kata-go" && flavour !== "contrast-go") return undefined;
  // Contrast's build passes no count, by a patch until upstream did not either.
  const passesVcpus = flavour === "kata-go" && facts.goPassesVcpus;
  return goLine(readingOf(configuration, flavour, kataVersion, harmlessForGo), passesVcpus);
}

/**
 * Fixed parameters, root device, console, then what Kata's agent is told and the configuration's own `kernel_params`.
 *
 * Source: Kata's virtcontainers/qemu.go, qemu_amd64.go, hypervisor.go (GetKernelRootParams) and katautils (SetKernelParams).
 */
function goLine({ hypervisor, agent, runtime }: Readings, vcpus: boolean): string | undefined {
  const driver = hypervisor.text("block_device_driver");
  const kernelParams = kataParameters(hypervisor.text("kernel_params"));
  const debug = hypervisor.flag("enable_debug");
  const root = rootParameters(hypervisor);
  const isAsExpected =
    isOrdinary(hypervisor, runtime) &&
    hypervisor.flag("disable_image_nvdimm") &&
    driver !== "" &&
    // Kata refuses a value without a key.
    !kernelParams.some((word) => word.startsWith("="));

  const words = [
    "tsc=reliable no_timer_check rcupdate.rcu_expedited=1 i8042.direct=1 i8042.dumbkbd=1 i8042.nopnp=1 i8042.noaux=1",
    "noreplace-smp reboot=k cryptomgr.notests net.ifnames=0 pci=lastbus=0",
    root,
    "console=hvc0 console=hvc1",
    debug ? "debug systemd.show_status=true systemd.log_level=debug" : "quiet systemd.show_status=false",
    "panic=1",
    ...(vcpus ? [`nr_cpus=${vcpuPlaceholder}`] : []),
    hypervisor.flag("disable_guest_selinux") ? "selinux=0" : "selinux=1",
    units,
    ...(driver === "virtio-scsi" ? ["scsi_mod.scan=none"] : []),
    ...(agent.flag("enable_debug") ? ["agent.log=debug"] : []),
    ...(agent.flag("debug_console_enabled") ? ["agent.debug_console agent.debug_console_vport=1026"] : []),
    ...timeout("agent.cdh_api_timeout", agent.number("cdh_api_timeout")),
    ...timeout("agent.launch_process_timeout", agent.number("launch_process_timeout")),
    ...kernelParams,
  ];
  const isKnown = [hypervisor, agent, runtime].every((table) => table.isReadWhole());
  return isKnown && isAsExpected && root !== undefined ? words.join(" ") : undefined;
}

/**
 * Fixed parameters, root device, what Kata's agent is told (sorted), the configuration's own `kernel_params`, then the
 * extensions of the guest's image and the console.
 *
 * Source: runtime-rs' crates hypervisor (kernel_param.rs, qemu/cmdline_generator.rs: Kernel::new, add_console) and runtimes
 * (update_agent_kernel_params), kata-types (get_agent_kernel_params).
 */
function rsLine({ hypervisor, agent, runtime }: Readings): string | undefined {
  const kernelParams = kataParameters(hypervisor.text("kernel_params"));
  const root = rootParameters(hypervisor);
  const isAsExpected =
    isOrdinary(hypervisor, runtime) &&
    // Other drivers give the root file system another name.
    hypervisor.text("vm_rootfs_driver") === "virtio-blk-pci" &&
    hypervisor.text("block_device_driver") !== "" &&
    runtime.text("name") === "virt_container" &&
    runtime.text("hypervisor_name") === "qemu" &&
    runtime.text("agent_name") === "kata" &&
    hypervisor.flag("disable_image_nvdimm") &&
    // Also "=" alone, which Go's runtime leaves out, is refused.
    !/(^| )=/.test(hypervisor.text("kernel_params"));

  const told = [
    // Less than a second is not left out, but none.
    ...timeout("agent.cdh_api_timeout", agent.number("cdh_api_timeout_ms", 50_000), 1000),
    ...(agent.flag("debug_console_enabled") ? ["agent.debug_console agent.debug_console_vport=1026"] : []),
    ...timeout("agent.launch_process_timeout", agent.number("launch_process_timeout")),
    ...(agent.flag("enable_debug") ? ["agent.log=debug"] : []),
  ];
  const words = [
    `reboot=k panic=1 ${units}`,
    ...(hypervisor.flag("enable_debug") ? ["agent.log_vport=1025"] : []),
    root,
    ...told,
    ...kernelParams,
    hypervisor.flag("disable_guest_selinux") ? "selinux=0" : "selinux=1",
    // Without a value it would still be mounted, but unverified.
    ...hypervisor
      .tables("guest_extension_images")
      .map(
        ({ name, verity_params }) => `kata.extension.${name}.verity_params${verity_params ? `=${verity_params}` : ""}`,
      ),
    "console=hvc0",
  ];
  const isKnown = [hypervisor, agent, runtime].every((table) => table.isReadWhole());
  return isKnown && isAsExpected && root !== undefined ? words.join(" ") : undefined;
}

const units =
  "systemd.unit=kata-containers.target systemd.mask=systemd-networkd.service systemd.mask=systemd-networkd.socket";

/** Without an image there is no root device, outside confidential guests another one. */
const isOrdinary = (hypervisor: Reading, runtime: Reading): boolean =>
  hypervisor.text("image") !== "" &&
  hypervisor.flag("confidential_guest") &&
  // Otherwise a pod's guest has as many vCPUs as its host.
  runtime.flag("static_sandbox_resource_mgmt");

/** The root file system; undefined for a type whose flags are not known. */
function rootParameters(hypervisor: Reading): string | undefined {
  const rootfsType = hypervisor.text("rootfs_type");
  const rootFlags = rootfsFlags[rootfsType];
  const verity = hypervisor.text("kernel_verity_params");
  const device = verity === "" ? "root=/dev/vda1" : `${kataVerityTable(verity)} root=/dev/dm-0`;
  return rootFlags && `${device} rootflags=${rootFlags} rootfstype=${rootfsType}`;
}

/** Sources disagree on the flags of xfs, which no confidential image uses. */
const rootfsFlags: Record<string, string | undefined> = { ext4: "data=ordered,errors=remount-ro ro", erofs: "ro" };

/** Kata's agent is told a timeout only if it is set. */
const timeout = (parameter: string, set: number, perSecond = 1) =>
  set > 0 ? [`${parameter}=${Math.floor(set / perSecond)}`] : [];

type Reading = ReturnType<typeof reading>;
type Readings = ReturnType<typeof readingOf>;

function readingOf(
  { hypervisor, agent, runtime }: KataConfiguration,
  reader: Reader,
  version: string,
  harmless: Harmless,
) {
  const of = (name: TableName, table: Table) =>
    reading(
      table,
      [...(harmlessForAll[name] ?? []), ...(harmless[name] ?? []), ...withoutCommandLine(name)],
      (key, value) => {
        const effect = effectOf(name, key);
        const words: readonly Value[] | undefined = effect && allowedWords(effect, reader === "kata-rs");
        return typeOfKey(reader, version, name, key) !== undefined && (words?.includes(value) ?? true);
      },
    );
  return {
    hypervisor: of("hypervisor", "qemu" in hypervisor ? hypervisor.qemu : hypervisor.clh),
    agent: of("agent", agent.kata),
    runtime: of("runtime", runtime),
  };
}

/**
 * A table's keys with the values that Kata gives those that are absent, and whether all that it has were read, and Kata
 * takes them.
 */
function reading(table: Table, harmless: string[], takes: (key: string, value: Value) => boolean) {
  const seen = new Set(harmless);
  const mistyped: string[] = [];
  const value = <Type extends "string" | "boolean" | "number", Found>(key: string, type: Type, zero: Found): Found => {
    seen.add(key);
    const found = table[key];
    if (found !== undefined && typeof found !== type) mistyped.push(key);
    return found === undefined || typeof found !== type ? zero : (found as Found);
  };
  return {
    text: (key: string): string => value(key, "string", ""),
    flag: (key: string): boolean => value(key, "boolean", false),
    number: (key: string, absent = 0): number => value(key, "number", absent),
    tables: (key: string): Record<string, unknown>[] => {
      seen.add(key);
      const found = table[key] ?? [];
      const tables = Array.isArray(found) ? found.filter((one) => typeof one === "object") : [];
      if (!Array.isArray(found) || tables.length < found.length) mistyped.push(key);
      return tables;
    },
    isReadWhole: () =>
      mistyped.length === 0 && Object.entries(table).every(([key, value]) => seen.has(key) && takes(key, value)),
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
