import fc from "fast-check";
import { hypervisorOf, type KataConfiguration, type Table, type Value } from "../../../runtime/kata-configuration.ts";
import type { GuestImage } from "../../../runtime/manifest.ts";

const verity = (hex: string) =>
  `root_hash=${hex.repeat(32)},salt=${hex.repeat(32)},data_blocks=96512,data_block_size=4096,hash_block_size=4096`;

/** Guest images as they are published: verity by Kata, in digits of either case, or by the guest itself. */
export const guests: [GuestImage, ...GuestImage[]] = [
  { rootfsType: "ext4", kernelParams: "", kernelVerityParams: verity("ab") },
  { rootfsType: "erofs", kernelParams: "cgroup_no_v1=all", kernelVerityParams: verity("AB") },
  {
    rootfsType: "erofs",
    kernelParams: `init=/nix/store/x/init roothash=${"ef".repeat(32)}  quiet`,
    kernelVerityParams: "",
  },
];

type Tables = "hypervisor" | "agent" | "runtime";
/** Keys of Kata's file that could change the command line, with values that each may have. Undefined: the key is absent. */
export const keys: { table: Tables; key: string; values: (Value | undefined)[] }[] = [
  { table: "hypervisor", key: "rootfs_type", values: ["ext4", "erofs"] },
  {
    table: "hypervisor",
    key: "kernel_params",
    values: ["", "quiet", ' a="b  c"  x= k== ', "=x", 'dangling "quote', undefined],
  },
  { table: "hypervisor", key: "kernel_verity_params", values: [verity("cd"), undefined] },
  {
    table: "hypervisor",
    key: "block_device_driver",
    values: ["virtio-scsi", "virtio-blk", "virtio-blk-pci", "nvdimm"],
  },
  { table: "hypervisor", key: "disable_guest_selinux", values: [true, false] },
  { table: "hypervisor", key: "disable_image_nvdimm", values: [true, false, undefined] },
  { table: "hypervisor", key: "enable_debug", values: [true, false, undefined] },
  { table: "hypervisor", key: "enable_iommu", values: [true, undefined] },
  { table: "hypervisor", key: "use_legacy_serial", values: [true, undefined] },
  { table: "hypervisor", key: "shared_fs", values: ["none"] },
  { table: "hypervisor", key: "default_vcpus", values: [1, 2] },
  { table: "hypervisor", key: "cold_plug_vfio", values: ["root-port", undefined] },
  { table: "agent", key: "launch_process_timeout", values: [6, 15, 0, undefined] },
  { table: "agent", key: "cdh_api_timeout", values: [50, undefined] },
  { table: "agent", key: "cdh_api_timeout_ms", values: [999, 1500, undefined] },
  { table: "agent", key: "enable_debug", values: [true, false, undefined] },
  { table: "agent", key: "debug_console_enabled", values: [true, undefined] },
  { table: "agent", key: "enable_tracing", values: [true, undefined] },
  { table: "agent", key: "dial_timeout", values: [90, undefined] },
  { table: "runtime", key: "static_sandbox_resource_mgmt", values: [true, false] },
  { table: "runtime", key: "vfio_mode", values: ["guest-kernel", "vfio"] },
  { table: "runtime", key: "enable_debug", values: [true, undefined] },
];

export interface Setting {
  table: Tables;
  key: string;
  value: Value | undefined;
}

/** A few of the keys, each with one of its values. */
export const settings: fc.Arbitrary<Setting[]> = fc
  .subarray(keys, { maxLength: 5 })
  .chain((chosen) =>
    fc.tuple(
      ...chosen.map(({ table, key, values }) => fc.constantFrom(...values).map((value) => ({ table, key, value }))),
    ),
  );

/** The configuration with other values. */
export function withSettings(configuration: KataConfiguration, changed: readonly Setting[]): KataConfiguration {
  const apply = (name: Tables, table: Table): Table => {
    const all: Record<string, Value | undefined> = { ...table };
    for (const { table: where, key, value } of changed) if (where === name) all[key] = value;
    return Object.fromEntries(
      Object.entries(all).flatMap(([key, value]) => (value === undefined ? [] : [[key, value]])),
    );
  };
  return {
    hypervisor: { qemu: apply("hypervisor", hypervisorOf(configuration)) },
    agent: { kata: apply("agent", configuration.agent.kata) },
    runtime: apply("runtime", configuration.runtime),
  };
}
