import { isAtLeast } from "./version.ts";

/** Which program reads the file: Kata's Go runtime, upstream's or Contrast's build of it, or runtime-rs. */
export type Reader = "kata-go" | "contrast-go" | "kata-rs";
/** `table` and `tables` are a TOML table and an array of them. */
export type KeyType = "text" | "number" | "flag" | "texts" | "table" | "tables";
export type TableName = "hypervisor" | "agent" | "runtime";

interface Keys {
  readers: readonly Reader[];
  type: KeyType;
  /** The first version that knows them, and the first that does not any more; of runtime-rs those from 4.0 on. */
  from?: string;
  below?: string;
  /** Separated by blanks. */
  keys: string;
}

const both: readonly Reader[] = ["kata-go", "contrast-go", "kata-rs"];
const go: readonly Reader[] = ["kata-go", "contrast-go"];
const rs: readonly Reader[] = ["kata-rs"];
const contrast: readonly Reader[] = ["contrast-go"];

/**
 * The keys that Kata's loaders know, for QEMU, by the tables `[hypervisor.qemu]`, `[agent.kata]` and `[runtime]`. Facts of
 * the loaders at the tags 3.30.0 to 4.1.0 and of 2026-08-22: fields of the structures in
 * src/runtime/pkg/katautils/config.go, and in src/libs/kata-types/src/config for runtime-rs, whose agent's table refuses
 * any other key. Contrast's own one is in the golden files of its nodeinstaller/internal/kataconfig.
 */
const known: Record<TableName, readonly Keys[]> = {
  hypervisor: [
    {
      readers: both,
      type: "flag",
      keys:
        "block_device_cache_direct block_device_cache_noflush block_device_cache_set confidential_guest " +
        "disable_block_device_use disable_guest_selinux disable_image_nvdimm disable_nesting_checks " +
        "disable_seccomp disable_selinux disable_vhost_net enable_debug enable_guest_swap enable_hugepages " +
        "enable_iommu enable_iommu_platform enable_iothreads enable_mem_prealloc enable_vhost_user_store " +
        "enable_virtio_mem guest_memory_dump_paging reclaim_guest_freed_memory rootless sev_snp_guest",
    },
    {
      readers: both,
      type: "number",
      keys:
        "block_device_logical_sector_size block_device_physical_sector_size default_bridges default_maxmemory " +
        "default_maxvcpus default_memory default_vcpus disk_rate_limiter_bw_max_rate " +
        "disk_rate_limiter_bw_one_time_burst disk_rate_limiter_ops_max_rate " +
        "disk_rate_limiter_ops_one_time_burst indep_iothreads memory_offset memory_slots pcie_root_port " +
        "pcie_switch_port rx_rate_limiter_max_rate snp_guest_policy tdx_quote_generation_service_socket_port " +
        "tx_rate_limiter_max_rate virtio_fs_cache_size virtio_fs_queue_size",
    },
    {
      readers: both,
      type: "text",
      keys:
        "block_device_aio block_device_driver cold_plug_vfio cpu_features entropy_source extra_monitor_socket " +
        "firmware guest_hook_path guest_memory_dump_path image initrd jailer_path kernel kernel_params " +
        "kernel_verity_params machine_accelerators machine_type path rootfs_type shared_fs snp_id_auth " +
        "snp_id_block vhost_user_store_path virtio_fs_cache virtio_fs_daemon",
    },
    {
      readers: both,
      type: "texts",
      keys:
        "enable_annotations pflashes valid_entropy_sources valid_hypervisor_paths valid_jailer_paths " +
        "valid_vhost_user_store_paths valid_virtio_fs_daemon_paths virtio_fs_extra_args",
    },
    { readers: go, type: "flag", keys: "enable_numa use_legacy_serial" },
    {
      readers: go,
      type: "number",
      keys:
        "hypervisor_loglevel msize_9p net_rate_limiter_bw_max_rate net_rate_limiter_bw_one_time_burst " +
        "net_rate_limiter_ops_max_rate net_rate_limiter_ops_one_time_burst remote_hypervisor_timeout " +
        "vhost_user_reconnect_timeout_sec",
    },
    { readers: go, type: "tables", from: "4.0.0", keys: "guest_extension_images" },
    { readers: go, type: "text", below: "3.32.0", keys: "file_mem_backend" },
    { readers: contrast, type: "text", keys: "contrast_imagepuller_config" },
    {
      readers: go,
      type: "text",
      keys: "firmware_volume hot_plug_vfio measurement_algo remote_hypervisor_socket seccompsandbox",
    },
    { readers: go, type: "texts", below: "3.32.0", keys: "valid_file_mem_backends" },
    { readers: go, type: "texts", keys: "numa_mapping" },
    { readers: rs, type: "flag", from: "4.1.0", keys: "disable_nested_virtualization" },
    { readers: rs, type: "flag", keys: "boot_from_template boot_to_be_template virtio_fs_is_dax" },
    {
      readers: rs,
      type: "number",
      keys:
        "default_gpus guest_swap_create_threshold_secs guest_swap_size_percent hypervisor_timeout " +
        "network_queues num_queues overhead_memory overhead_vcpus queue_size",
    },
    { readers: rs, type: "table", keys: "factory rootless_user" },
    { readers: rs, type: "tables", keys: "guest_extension_images" },
    {
      readers: rs,
      type: "text",
      keys:
        "ctlpath dbg_monitor_socket default_gpu_model device_state_path guest_swap_path hugepage_type " +
        "hypervisor_socket initdata log_level memory_path prefetch_list_path seccomp_sandbox selinux_label " +
        "vm_rootfs_driver",
    },
    { readers: rs, type: "texts", keys: "valid_ctlpaths" },
  ],
  agent: [
    { readers: both, type: "flag", keys: "debug_console_enabled enable_debug enable_tracing" },
    { readers: both, type: "number", keys: "launch_process_timeout" },
    { readers: both, type: "texts", keys: "kernel_modules" },
    { readers: go, type: "flag", from: "3.32.0", keys: "visible_cdi_devices" },
    { readers: go, type: "number", keys: "cdh_api_timeout dial_timeout" },
    { readers: rs, type: "flag", keys: "visible_cdi_devices" },
    {
      readers: rs,
      type: "number",
      keys:
        "cdh_api_timeout_ms container_pipe_size create_container_timeout dial_timeout_ms " +
        "health_check_request_timeout_ms log_port passfd_listener_port reconnect_timeout_ms server_port",
    },
    { readers: rs, type: "table", keys: "mem_agent" },
    { readers: rs, type: "text", keys: "log_level policy" },
  ],
  runtime: [
    {
      readers: both,
      type: "flag",
      keys:
        "disable_guest_seccomp disable_new_netns enable_debug enable_pprof enable_tracing " +
        "enable_vcpus_pinning sandbox_cgroup_only static_sandbox_resource_mgmt",
    },
    {
      readers: both,
      type: "text",
      keys:
        "dan_conf emptydir_mode internetworking_model jaeger_endpoint jaeger_password jaeger_user " +
        "pod_resource_api_sock vfio_mode",
    },
    { readers: both, type: "texts", keys: "experimental sandbox_bind_mounts" },
    { readers: go, type: "flag", keys: "disable_guest_empty_dir experimental_force_guest_pull" },
    { readers: go, type: "number", keys: "create_container_timeout" },
    { readers: go, type: "text", keys: "guest_selinux_label kubelet_root_dir" },
    { readers: rs, type: "flag", keys: "keep_abnormal use_passfd_io" },
    { readers: rs, type: "number", keys: "passfd_listener_port" },
    { readers: rs, type: "tables", keys: "shared_mounts" },
    { readers: rs, type: "text", keys: "agent_name hypervisor_name log_level name" },
  ],
};

/** The type of a key as this reader of this version knows it; undefined if it does not. */
export const typeOfKey = (reader: Reader, version: string, table: TableName, key: string): KeyType | undefined =>
  index[table]
    .get(key)
    ?.find(
      ({ readers, from = "0.0.0", below }) =>
        readers.includes(reader) && isAtLeast(version, from) && !(below !== undefined && isAtLeast(version, below)),
    )?.type;

/** All keys of a table that this reader of this version knows, sorted. */
export const keysOf = (reader: Reader, version: string, table: TableName): string[] =>
  [...index[table].keys()].filter((key) => typeOfKey(reader, version, table, key) !== undefined).sort();

const byKey = (groups: readonly Keys[]): Map<string, Keys[]> => {
  const found = new Map<string, Keys[]>();
  for (const group of groups)
    for (const key of group.keys.split(" ")) found.set(key, [...(found.get(key) ?? []), group]);
  return found;
};
const index: Record<TableName, Map<string, Keys[]>> = {
  hypervisor: byKey(known.hypervisor),
  agent: byKey(known.agent),
  runtime: byKey(known.runtime),
};

/** What a number may be, inclusive. */
interface Bounds {
  least: number;
  most: number;
}

const bits32 = 2 ** 32 - 1;

/**
 * Numbers that the loaders of 4.1.0 refuse, wrap around or silently replace, by the same structures as above. Almost all are
 * held in 32 bits without a sign; in the Go runtime, `default_memory` below 256 becomes 2048, and seconds become nanoseconds.
 */
const bounded: readonly { readers: readonly Reader[]; keys: string; least?: number; most?: number }[] = [
  { readers: go, keys: "default_memory", least: 256 },
  { readers: rs, keys: "default_memory", least: 64 },
  { readers: both, keys: "default_bridges", most: 5 },
  { readers: go, keys: "create_container_timeout", most: 9_223_372_036 },
  {
    readers: both,
    keys:
      "disk_rate_limiter_bw_max_rate disk_rate_limiter_bw_one_time_burst disk_rate_limiter_ops_max_rate " +
      "disk_rate_limiter_ops_one_time_burst guest_swap_create_threshold_secs guest_swap_size_percent memory_offset " +
      "rx_rate_limiter_max_rate tx_rate_limiter_max_rate",
    most: Number.MAX_SAFE_INTEGER,
  },
  {
    readers: go,
    keys:
      "default_maxmemory net_rate_limiter_bw_max_rate net_rate_limiter_bw_one_time_burst net_rate_limiter_ops_max_rate " +
      "net_rate_limiter_ops_one_time_burst snp_guest_policy",
    most: Number.MAX_SAFE_INTEGER,
  },
];

/** What this reader takes a number for as it is written. Of a key whose bounds nobody looked up, what 32 bits hold. */
export function boundsOf(reader: Reader, key: string): Bounds {
  const { least = 0, most = bits32 } =
    bounded.find(({ readers, keys }) => readers.includes(reader) && keys.split(" ").includes(key)) ?? {};
  return { least, most };
}
