import { enabledAnnotations } from "./annotations.ts";
import type { FlavourName } from "./flavours.ts";
import type { FileRole, GuestImage } from "./manifest.ts";
import type { Platform } from "./platforms.ts";
import { tomlString } from "./toml.ts";
import { isAtLeast } from "./version.ts";

/** Who reads the file: each reader knows different keys, and an unknown key is at best ignored. */
type Reader = "qemu contrast-go" | "qemu kata-go" | "qemu kata-rs" | "clh contrast-go";

export interface KataConfigurationInput {
  platform: Platform;
  flavour: FlavourName;
  kataVersion: string;
  /** Absolute path on the node of the file with this role, if the payload has one. */
  path: (role: FileRole) => string | undefined;
  guest: GuestImage | undefined;
}

export type Value = string | number | boolean | string[];
export type Table = Record<string, Value>;

/** Kata's configuration as a TOML parser gives it back: a table for the VMM, for the agent and for the runtime. */
export interface KataConfiguration {
  hypervisor: { qemu: Table } | { clh: Table };
  /** Kept even when empty: without this table, Kata assumes another agent. */
  agent: { kata: Table };
  runtime: Table;
}

/** One key of the file: its value here, and which readers know it, from which Kata version on. */
interface Row {
  table: "hypervisor" | "agent" | "runtime";
  key: string;
  value: Value | undefined;
  knownBy: Partial<Record<Reader, string>>;
}

const always = "0.0.0";
const qemuGo = { "qemu contrast-go": always, "qemu kata-go": always };
const qemu = { ...qemuGo, "qemu kata-rs": always };
const clh = { "clh contrast-go": always };
const go = { ...qemuGo, ...clh };
const all = { ...qemu, ...clh };

/**
 * What Kata's configuration file says; kataConfigurationText prints it, and measure/kata-kernel-command-line.ts says what
 * guests get of it. Only keys whose value matters here are in it; for the others, the reader's built-in default applies. Sources:
 * the templates of Kata 3.24 to 4.1 (src/runtime/config, src/runtime-rs/config), the list of differences between both
 * runtimes (docs/migrating-config-go-runtime-to-runtime-rs.md), and the keys that Contrast sets.
 */
export function kataConfiguration(input: KataConfigurationInput): KataConfiguration {
  const reader = readerOf(input);
  const known = rows(input).flatMap(({ table, key, value, knownBy }) => {
    const since = knownBy[reader];
    const isKnown = since !== undefined && (since === always || isAtLeast(input.kataVersion, since));
    return isKnown && value !== undefined ? [{ table, key, value }] : [];
  });
  const table = (name: Row["table"]): Table =>
    Object.fromEntries(known.filter((row) => row.table === name).map(({ key, value }) => [key, value]));
  return {
    hypervisor: reader.startsWith("clh") ? { clh: table("hypervisor") } : { qemu: table("hypervisor") },
    agent: { kata: table("agent") },
    runtime: table("runtime"),
  };
}

/** The table of the VMM, whichever it is. */
export const hypervisorOf = ({ hypervisor }: KataConfiguration): Table =>
  "qemu" in hypervisor ? hypervisor.qemu : hypervisor.clh;

/** The file: parsed as TOML it is the configuration again. Keys are sorted. */
export function kataConfigurationText(configuration: KataConfiguration): string {
  const tables: [heading: string, table: Table][] = [
    ["qemu" in configuration.hypervisor ? "hypervisor.qemu" : "hypervisor.clh", hypervisorOf(configuration)],
    ["agent.kata", configuration.agent.kata],
    ["runtime", configuration.runtime],
  ];
  return tables
    .map(([heading, table]) => {
      const lines = Object.entries(table).map(([key, value]) => `${key} = ${toml(value)}\n`);
      return `[${heading}]\n${lines.sort().join("")}`;
    })
    .join("\n");
}

const readerOf = ({ platform, flavour }: KataConfigurationInput): Reader => {
  if (platform.vmm === "cloud-hypervisor") return "clh contrast-go";
  // `local` has Contrast's layout without its shim: the file is written as Contrast's Go runtime would read it.
  return flavour === "none" ? "qemu contrast-go" : `qemu ${flavour}`;
};

function rows({ platform, flavour, path, guest }: KataConfigurationInput): Row[] {
  const isClh = platform.vmm === "cloud-hypervisor";
  const snp = platform.tee === "snp";
  const vmm = path("vmm");
  // Pulling and unpacking images in the guest, and booting with a GPU, take longer than Kata's defaults allow.
  const startSeconds = isClh ? 90 : platform.gpu ? 600 : 120;
  const createSeconds = isClh ? 60 : startSeconds;

  const hypervisor = (key: string, value: Value | undefined, knownBy: Row["knownBy"]): Row => ({
    table: "hypervisor",
    key,
    value,
    knownBy,
  });
  const agent = (key: string, value: Value | undefined, knownBy: Row["knownBy"]): Row => ({
    table: "agent",
    key,
    value,
    knownBy,
  });
  const runtime = (key: string, value: Value | undefined, knownBy: Row["knownBy"]): Row => ({
    table: "runtime",
    key,
    value,
    knownBy,
  });

  return [
    hypervisor("path", vmm, all),
    hypervisor("valid_hypervisor_paths", vmm === undefined ? undefined : [vmm], all),
    hypervisor("igvm", path("igvm"), clh),
    hypervisor("firmware", path("firmware"), qemu),
    hypervisor("kernel", path("kernel"), qemu),
    hypervisor("image", path("rootfs"), all),
    hypervisor("initrd", path("initrd"), { "qemu contrast-go": always }),
    hypervisor("rootfs_type", guest?.rootfsType, all),
    // Measured, therefore replaced as a whole and closed to annotations.
    hypervisor("kernel_params", guest?.kernelParams, all),
    hypervisor("kernel_verity_params", guest?.kernelVerityParams || undefined, {
      "qemu contrast-go": "3.27.0",
      "qemu kata-go": "3.27.0",
      "qemu kata-rs": always,
    }),
    hypervisor("enable_annotations", enabledAnnotations(platform, flavour), all),
    hypervisor("confidential_guest", platform.tee !== "none", all),
    hypervisor("sev_snp_guest", snp ? true : undefined, all),
    hypervisor("snp_guest_policy", snp ? 0x30000 : undefined, all),
    hypervisor("tdx_quote_generation_service_socket_port", platform.tee === "tdx" ? 4050 : undefined, qemu),
    hypervisor("machine_type", "q35", qemu),
    hypervisor("cpu_features", "pmu=off", qemu),
    // The number of vCPUs is measured.
    hypervisor("default_vcpus", 1, all),
    hypervisor("default_memory", platform.guestMemoryMiB, all),
    hypervisor("shared_fs", "none", all),
    hypervisor("disable_block_device_use", true, qemuGo),
    hypervisor("block_device_driver", "virtio-scsi", qemu),
    hypervisor("block_device_driver", "virtio-blk", clh),
    hypervisor("block_device_aio", "threads", qemu),
    hypervisor("vm_rootfs_driver", "virtio-blk-pci", { "qemu kata-rs": always }),
    hypervisor("disable_image_nvdimm", true, qemu),
    // In a virtual machine, Kata would give its guests legacy devices. Upstream asks for the check with TDX alone.
    hypervisor("disable_nesting_checks", platform.vmm === "qemu" && platform.tee !== "tdx", qemu),
    hypervisor("disable_guest_selinux", true, qemu),
    hypervisor("cold_plug_vfio", platform.gpu ? "root-port" : undefined, qemuGo),

    agent("dial_timeout", startSeconds, go),
    agent("reconnect_timeout_ms", startSeconds * 1000, { "qemu kata-rs": always }),
    agent("create_container_timeout", createSeconds, { "qemu kata-rs": always }),
    // Measured, as it becomes a kernel parameter. The values of the builders' own files: Contrast's for all, upstream's by template.
    agent("launch_process_timeout", platform.gpu && flavour !== "contrast-go" ? 15 : 6, {
      "qemu contrast-go": "3.29.0",
      "qemu kata-go": "3.29.0",
      "qemu kata-rs": always,
    }),

    runtime("name", "virt_container", { "qemu kata-rs": always }),
    runtime("hypervisor_name", "qemu", { "qemu kata-rs": always }),
    runtime("agent_name", "kata", { "qemu kata-rs": always }),
    runtime("internetworking_model", "tcfilter", all),
    runtime("disable_guest_seccomp", true, all),
    runtime("sandbox_cgroup_only", true, all),
    runtime("static_sandbox_resource_mgmt", true, all),
    runtime("vfio_mode", "guest-kernel", all),
    runtime("create_container_timeout", createSeconds, go),
    runtime("experimental_force_guest_pull", platform.host.guestPull, qemuGo),
    runtime("experimental", platform.host.guestPull ? ["force_guest_pull"] : [], { "qemu kata-rs": always }),
    runtime("pod_resource_api_sock", platform.gpu ? "/var/lib/kubelet/pod-resources/kubelet.sock" : undefined, {
      "qemu contrast-go": "3.28.0",
      "qemu kata-go": "3.28.0",
    }),
  ];
}

/** One value as TOML; numbers stay greppable (2048, not 2_048). */
const toml = (value: Value): string =>
  Array.isArray(value)
    ? `[${value.map(toml).join(", ")}]`
    : typeof value === "string"
      ? tomlString(value)
      : String(value);
