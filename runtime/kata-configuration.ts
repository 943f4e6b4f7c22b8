import { enabledAnnotations } from "./annotations.ts";
import type { FlavourName } from "./flavours.ts";
import { type Reader, type TableName, typeOfKey } from "./kata-keys.ts";
import { kataFacts } from "./kata-versions.ts";
import type { FileRole, GuestImage } from "./manifest.ts";
import { type Platform, podCosts } from "./platforms.ts";
import { tomlString } from "./toml.ts";

export interface KataConfigurationInput {
  platform: Platform;
  flavour: FlavourName;
  kataVersion: string;
  /** Absolute path on the node of the file with this role, if the payload has one. */
  path: (role: FileRole) => string | undefined;
  /** Absolute path on the node of the payload's file at this path. */
  place: (path: string) => string;
  guest: GuestImage | undefined;
  /** The kubelet's directory on the nodes. */
  kubeletRoot: string;
}

type Scalar = string | number | boolean | string[];
/** An array of tables is written as such: `[[table.key]]`. */
export type Value = Scalar | Record<string, Scalar>[];
export type Table = Record<string, Value>;

/** Kata's configuration as a TOML parser gives it back: a table for the VMM, for the agent and for the runtime. */
export interface KataConfiguration {
  hypervisor: { qemu: Table } | { clh: Table };
  /** Kept even when empty: without this table, Kata assumes another agent. */
  agent: { kata: Table };
  runtime: Table;
}

/** One key of the file: its value here, and who gets it, provided that its version knows the key. */
interface Row {
  table: TableName;
  key: string;
  value: Value | undefined;
  for: readonly Target[];
}

/** Whose file it is. Microsoft's build of Kata for Cloud Hypervisor is not in the table of keys. */
type Target = Reader | "clh";
const go: readonly Target[] = ["contrast-go", "kata-go"];
const rs: readonly Target[] = ["kata-rs"];
const clh: readonly Target[] = ["clh"];
const qemu: readonly Target[] = [...go, ...rs];
const all: readonly Target[] = [...qemu, ...clh];

/**
 * What Kata's configuration file says; kataConfigurationText prints it, and measure/kata-kernel-command-line.ts says what
 * guests get of it. Only keys whose value matters here are in it; for the others, the reader's built-in default applies.
 * Where a value is not upstream's or Contrast's own, docs/kata.md says why. Sources: the templates of Kata 3.30 to 4.1
 * (src/runtime/config, src/runtime-rs/config), and Contrast's nodeinstaller/internal/kataconfig.
 */
export function kataConfiguration(input: KataConfigurationInput): KataConfiguration {
  const { platform, flavour, kataVersion } = input;
  // `local` has Contrast's layout without its shim: the file is written as Contrast's Go runtime would read it.
  const reader = flavour === "none" ? "contrast-go" : flavour;
  const isClh = platform.vmm === "cloud-hypervisor";
  const isKnown = ({ table, key }: Row) =>
    isClh || flavour === "none" || typeOfKey(reader, kataVersion, table, key) !== undefined;
  const written = rows(input).filter((row) => row.for.includes(isClh ? "clh" : reader) && isKnown(row));
  const table = (name: TableName): Table =>
    Object.fromEntries(
      written.flatMap((row) => (row.table === name && row.value !== undefined ? [[row.key, row.value]] : [])),
    );
  return {
    hypervisor: isClh ? { clh: table("hypervisor") } : { qemu: table("hypervisor") },
    agent: { kata: table("agent") },
    runtime: table("runtime"),
  };
}

/** The table of the VMM, whichever it is. */
export const hypervisorOf = ({ hypervisor }: KataConfiguration): Table =>
  "qemu" in hypervisor ? hypervisor.qemu : hypervisor.clh;

/** What a guest has beyond its pod's limits. */
export interface GuestSize {
  vcpus: number;
  memoryMiB: number;
}

/** Limits are added to `overhead_*`, which only runtime-rs knows, else to `default_*`. vCPUs are rounded up after that. */
export function sizeBeyondLimits(configuration: KataConfiguration): GuestSize {
  const { default_vcpus, overhead_vcpus, default_memory, overhead_memory } = hypervisorOf(configuration);
  return { vcpus: Number(overhead_vcpus ?? default_vcpus), memoryMiB: Number(overhead_memory ?? default_memory) };
}

/** The file: parsed as TOML it is the configuration again. Keys are sorted. */
export function kataConfigurationText(configuration: KataConfiguration): string {
  const tables: [heading: string, table: Table][] = [
    ["qemu" in configuration.hypervisor ? "hypervisor.qemu" : "hypervisor.clh", hypervisorOf(configuration)],
    ["agent.kata", configuration.agent.kata],
    ["runtime", configuration.runtime],
  ];
  return tables
    .flatMap(([heading, table]) => {
      const entries = Object.entries(table);
      const arrays = entries.flatMap(([key, value]) =>
        isTables(value) ? value.map((one) => `[[${heading}.${key}]]\n${lines(Object.entries(one))}`) : [],
      );
      return [`[${heading}]\n${lines(entries)}`, ...arrays];
    })
    .join("\n");
}

const isTables = (value: Value): value is Record<string, Scalar>[] =>
  Array.isArray(value) && value.some((one) => typeof one === "object");

const lines = (entries: [key: string, value: Value][]): string =>
  entries
    .flatMap(([key, value]) => (isTables(value) ? [] : [`${key} = ${toml(value)}\n`]))
    .sort()
    .join("");

function rows({ platform, flavour, kataVersion, path, place, guest, kubeletRoot }: KataConfigurationInput): Row[] {
  const isClh = platform.vmm === "cloud-hypervisor";
  const { tee, gpu } = platform;
  const snp = tee === "snp";
  const insecureVm = platform.vmm === "qemu" && tee === "none";
  const upstream = flavour === "kata-go" || flavour === "kata-rs";
  const facts = kataFacts(kataVersion);
  const { guestMemoryMiB } = podCosts(platform, flavour);
  const vmm = path("vmm");
  // Pulling and unpacking images in the guest, and booting with a GPU, take longer than Kata's defaults allow.
  const startSeconds = isClh ? 90 : gpu ? (upstream ? 1200 : 600) : 120;
  const createSeconds = isClh ? 60 : startSeconds;

  const of =
    (table: TableName) =>
    (key: string, value: Value | undefined, readers: readonly Target[]): Row => ({ table, key, value, for: readers });
  const [hypervisor, agent, runtime] = [of("hypervisor"), of("agent"), of("runtime")];

  return [
    hypervisor("path", vmm, all),
    hypervisor("valid_hypervisor_paths", vmm === undefined ? undefined : [vmm], all),
    hypervisor("igvm", path("igvm"), clh),
    hypervisor("firmware", path("firmware"), qemu),
    hypervisor("kernel", path("kernel"), qemu),
    hypervisor("image", path("rootfs"), all),
    hypervisor("initrd", path("initrd"), ["contrast-go"]),
    hypervisor("rootfs_type", guest?.rootfsType, all),
    // Measured, therefore replaced as a whole and closed to annotations.
    hypervisor("kernel_params", guest?.kernelParams, all),
    hypervisor("kernel_verity_params", guest?.kernelVerityParams || undefined, qemu),
    hypervisor(
      "guest_extension_images",
      guest?.extensions?.map((one) => ({ name: one.name, path: place(one.path), verity_params: one.verityParams })),
      rs,
    ),
    hypervisor("enable_annotations", enabledAnnotations(platform, flavour), all),
    hypervisor("confidential_guest", tee === "none" ? undefined : true, all),
    hypervisor("sev_snp_guest", snp ? true : undefined, all),
    hypervisor("snp_guest_policy", snp ? 0x30000 : undefined, all),
    // Contrast's nodes have their quote service on vsock; upstream's default is its Unix socket since 3.32.
    hypervisor(
      "tdx_quote_generation_service_socket_port",
      tee === "tdx" ? (upstream ? facts.quotePort : 4050) : undefined,
      qemu,
    ),
    hypervisor("machine_type", "q35", qemu),
    hypervisor("cpu_features", "pmu=off", qemu),
    // The number of vCPUs is measured. A pod's limits are added to default_* by Go, and to overhead_* by runtime-rs, which
    // uses its default_* only without limits: see sizeBeyondLimits.
    hypervisor("default_vcpus", 1, all),
    hypervisor("overhead_vcpus", gpu ? 0.5 : 0.4, rs),
    hypervisor("default_memory", guestMemoryMiB, all),
    hypervisor("overhead_memory", guestMemoryMiB, rs),
    hypervisor("shared_fs", "none", all),
    hypervisor("disable_block_device_use", true, go),
    hypervisor("block_device_driver", isClh ? "virtio-blk" : "virtio-scsi", all),
    hypervisor("block_device_aio", "threads", qemu),
    hypervisor("vm_rootfs_driver", "virtio-blk-pci", rs),
    hypervisor("disable_image_nvdimm", true, qemu),
    // In a virtual machine, Kata would give its guests legacy devices.
    hypervisor("disable_nesting_checks", (snp && !(gpu && upstream)) || insecureVm, go),
    hypervisor("disable_nesting_checks", snp || gpu || insecureVm, rs),
    hypervisor("disable_guest_selinux", true, qemu),
    hypervisor("cold_plug_vfio", gpu ? "root-port" : undefined, qemu),
    hypervisor("pcie_root_port", gpu ? 8 : undefined, rs),

    agent("dial_timeout", startSeconds, [...go, ...clh]),
    agent("dial_timeout_ms", gpu ? 1000 : 100, rs),
    agent("reconnect_timeout_ms", startSeconds * 1000, rs),
    agent("create_container_timeout", createSeconds, rs),
    // Measured, as they become kernel parameters. The values of the builders' own files: Contrast's for all, upstream's by
    // template. runtime-rs's second is its own default, too, whatever the file says.
    agent("launch_process_timeout", gpu && upstream ? 15 : 6, qemu),
    agent("cdh_api_timeout_ms", 50_000, rs),

    runtime("name", "virt_container", rs),
    runtime("hypervisor_name", "qemu", rs),
    runtime("agent_name", "kata", rs),
    runtime("internetworking_model", "tcfilter", all),
    runtime("disable_guest_seccomp", true, all),
    runtime("sandbox_cgroup_only", true, all),
    runtime("static_sandbox_resource_mgmt", true, all),
    runtime("vfio_mode", "guest-kernel", all),
    // The policy generators of either builder take these two for granted.
    runtime("emptydir_mode", upstream ? "block-encrypted" : "shared-fs", qemu),
    runtime("disable_guest_empty_dir", facts.guestEmptyDirDisabled, go),
    runtime("create_container_timeout", createSeconds, [...go, ...clh]),
    runtime("experimental_force_guest_pull", platform.host.guestPull, go),
    runtime("experimental", platform.host.guestPull ? ["force_guest_pull"] : [], rs),
    runtime("kubelet_root_dir", kubeletRoot, go),
    runtime("pod_resource_api_sock", gpu ? `${kubeletRoot}/pod-resources/kubelet.sock` : undefined, qemu),
  ];
}

/** One value as TOML; numbers stay greppable (2048, not 2_048). */
const toml = (value: Scalar): string =>
  Array.isArray(value)
    ? `[${value.map(toml).join(", ")}]`
    : typeof value === "string"
      ? tomlString(value)
      : String(value);
