import type { TableName } from "./kata-keys.ts";

/**
 * What setting a key of Kata's configuration does to guests:
 *
 * - `harmless`: nothing that a verifier sees, and nothing that the host or a pod's author could not do before;
 * - `measured`: verifiers see other launch values;
 * - `weakens`: somebody may do more to the guest, or by it; used only where the stack acknowledges the key by name;
 * - `decided`: not by this way: the platform, the payload or another setting says it.
 */
export interface KeyEffect {
  effect: "harmless" | "measured" | "weakens" | "decided";
  /** What it changes, gives away, or who decides it: a clause that goes on after the key's name and a colon. */
  why: string;
  /** Of a key that weakens: the values that do not. */
  safe?: readonly unknown[];
  /** The words that Kata takes; by runtime where Go's and runtime-rs' differ. */
  words?: Words;
}

type Words = readonly string[] | { go: readonly string[]; rs: readonly string[] };

interface Judgement extends KeyEffect {
  /** Separated by blanks. */
  keys: string;
}

const harmless = (why: string, keys: string, words?: Words): Judgement => ({
  effect: "harmless",
  why,
  keys,
  ...(words && { words }),
});
const measured = (why: string, keys: string, words?: Words): Judgement => ({
  effect: "measured",
  why,
  keys,
  ...(words && { words }),
});
const weakens = (why: string, keys: string, rest: Pick<KeyEffect, "safe" | "words"> = {}): Judgement => ({
  effect: "weakens",
  why,
  keys,
  ...rest,
});
const decided = (why: string, keys: string): Judgement => ({ effect: "decided", why, keys });

const line = "it changes the guest's kernel command line";
const vcpus = "it changes how many vCPUs guests have";
const devices = "it changes the devices that the guest's firmware describes, which TDX measures (RTMR0)";
/** Of what is logged on the host alone. */
const logs = "the runtime's setting debug decides it";
const registry = "the stack's registry.guest decides it";
const ports: Words = { go: ["no-port", "bridge-port", "root-port", "switch-port"], rs: ["no-port", "root-port"] };

/**
 * Every key that kata-keys.ts knows, by table. Sources: where Kata uses each (src/runtime/virtcontainers,
 * src/runtime-rs/crates, src/libs/kata-types/src/config at 4.1.0); what changes the command line, as
 * measure/kata-kernel-command-line.ts has it.
 */
const judgements: Record<TableName, readonly Judgement[]> = {
  hypervisor: [
    harmless("how the host reads and writes the guest's disks", "block_device_aio", ["threads", "native", "io_uring"]),
    harmless(
      "how the host reads and writes the guest's disks",
      "block_device_cache_direct block_device_cache_noflush block_device_cache_set " +
        "block_device_logical_sector_size block_device_physical_sector_size enable_iothreads indep_iothreads " +
        "num_queues queue_size",
    ),
    harmless(
      "how much of the host's disks and network the guest may use",
      "disk_rate_limiter_bw_max_rate disk_rate_limiter_bw_one_time_burst disk_rate_limiter_ops_max_rate " +
        "disk_rate_limiter_ops_one_time_burst net_rate_limiter_bw_max_rate net_rate_limiter_bw_one_time_burst " +
        "net_rate_limiter_ops_max_rate net_rate_limiter_ops_one_time_burst rx_rate_limiter_max_rate " +
        "tx_rate_limiter_max_rate disable_vhost_net network_queues",
    ),
    harmless("where the host takes the guest's memory from", "enable_hugepages enable_mem_prealloc hugepage_type"),
    harmless("where the host reads what it gives the guest as random numbers", "entropy_source"),
    harmless(
      "how the host confines its virtual machine monitor",
      "rootless seccompsandbox seccomp_sandbox selinux_label",
    ),
    harmless("whether the host's own nesting is looked at first", "disable_nesting_checks"),
    harmless("where the quote service of the host is", "tdx_quote_generation_service_socket_port"),
    harmless(
      "it has an effect only together with another key",
      "guest_swap_create_threshold_secs guest_swap_path guest_swap_size_percent msize_9p vhost_user_reconnect_timeout_sec " +
        "vhost_user_store_path virtio_fs_cache virtio_fs_cache_size virtio_fs_daemon virtio_fs_extra_args " +
        "virtio_fs_is_dax virtio_fs_queue_size",
    ),
    measured(vcpus, "default_vcpus overhead_vcpus"),
    measured("it changes how much memory the guest's firmware describes, which TDX measures (RTMR0)", "default_memory"),
    measured(
      "it changes how much memory the guest's firmware describes, which TDX measures (RTMR0)",
      "overhead_memory",
    ),
    measured(line, "disable_guest_selinux"),
    measured(line, "block_device_driver", {
      go: ["virtio-scsi", "virtio-blk", "nvdimm"],
      rs: ["virtio-scsi", "virtio-blk-pci"],
    }),
    measured(line, "default_maxvcpus enable_iommu enable_iommu_platform enable_numa numa_mapping use_legacy_serial"),
    measured(line, "hot_plug_vfio", ports),
    measured(devices, "cold_plug_vfio", ports),
    measured(
      devices,
      "default_bridges default_maxmemory disable_nested_virtualization enable_vhost_user_store enable_virtio_mem " +
        "memory_offset memory_slots pcie_root_port pcie_switch_port reclaim_guest_freed_memory",
    ),
    weakens(
      "the guest's start is logged to the host in detail, and its kernel command line is another",
      "enable_debug",
    ),
    weakens("directories of the host are the guest's, and what is written there is the host's", "shared_fs", {
      safe: ["none"],
      words: ["none", "virtio-fs", "virtio-fs-nydus", "virtio-9p", "inline-virtio-fs"],
    }),
    weakens("disks of the host are plugged into guests by their images (CVE-2026-24054)", "disable_block_device_use", {
      safe: [true],
    }),
    weakens(
      "programs on the host reach the virtual machine monitor's own console",
      "dbg_monitor_socket extra_monitor_socket",
    ),
    weakens("the guest's memory is written to the host's disk", "guest_memory_dump_paging guest_memory_dump_path", {
      safe: ["", false],
    }),
    weakens("the guest's memory is swapped to a disk of the host", "enable_guest_swap", { safe: [false] }),
    weakens("programs of the guest's image run beside each container", "guest_hook_path", { safe: [""] }),
    weakens(
      "it is given to the virtual machine monitor as it is, and can take protections away",
      "machine_accelerators",
    ),
    weakens("guests see other features of the CPU, such as counters that tell what runs there", "cpu_features"),
    weakens("it is what an SNP report says of debugging, migration and sibling threads", "snp_guest_policy"),
    weakens("the virtual machine monitor is less confined on the host", "disable_seccomp disable_selinux", {
      safe: [false],
    }),
    decided(
      "the platform decides it",
      "confidential_guest sev_snp_guest machine_type measurement_algo disable_image_nvdimm vm_rootfs_driver",
    ),
    decided(
      "the payload decides it; lock another one",
      "path firmware firmware_volume pflashes kernel image initrd rootfs_type kernel_verity_params " +
        "guest_extension_images",
    ),
    decided("a setting of its own: further parameters, which are added to the payload's", "kernel_params"),
    decided("no annotation reaches Kata but those that containerd's entry names, too", "enable_annotations"),
    decided(
      "it would say what an annotation may name, and none may",
      "valid_ctlpaths valid_entropy_sources valid_file_mem_backends valid_hypervisor_paths valid_jailer_paths valid_vhost_user_store_paths valid_virtio_fs_daemon_paths",
    ),
    decided("pods bring theirs, by annotation", "initdata snp_id_auth snp_id_block"),
    decided(registry, "contrast_imagepuller_config"),
    decided(
      "it is for guests whose memory is a copy or a file, which no confidential one can have",
      "boot_from_template boot_to_be_template device_state_path factory file_mem_backend memory_path",
    ),
    decided(
      "it is for another virtual machine monitor than QEMU",
      "ctlpath default_gpu_model default_gpus hypervisor_loglevel hypervisor_socket hypervisor_timeout jailer_path " +
        "prefetch_list_path " +
        "remote_hypervisor_socket remote_hypervisor_timeout",
    ),
    decided(logs, "log_level"),
    decided("Kata chooses it", "rootless_user"),
  ],
  agent: [
    harmless(
      "how long the host waits for the guest",
      "create_container_timeout dial_timeout dial_timeout_ms health_check_request_timeout_ms reconnect_timeout_ms",
    ),
    measured(line, "cdh_api_timeout cdh_api_timeout_ms container_pipe_size launch_process_timeout visible_cdi_devices"),
    weakens(
      "the guest tells the host what its agent does, and its kernel command line is another",
      "enable_debug enable_tracing",
      {
        safe: [false],
      },
    ),
    weakens("everybody who is root on the host has a shell in every guest", "debug_console_enabled", { safe: [false] }),
    weakens("the host says which modules the guest's kernel loads", "kernel_modules", { safe: [] }),
    decided("the guest listens where its image says", "log_port passfd_listener_port server_port"),
    decided("no verifier sees how the guest's memory is swapped then (CVE-2026-64676)", "mem_agent"),
    decided(logs, "log_level"),
    decided("policies come with pods, in their initdata", "policy"),
  ],
  runtime: [
    harmless("how long the host waits for the guest", "create_container_timeout"),
    harmless("what the host traces of Kata itself", "enable_pprof enable_tracing jaeger_endpoint"),
    decided(logs, "enable_debug log_level"),
    harmless("how the host sets the guest's cgroups and CPUs", "enable_vcpus_pinning sandbox_cgroup_only"),
    harmless("how the guest is connected to the pod's network", "internetworking_model", [
      ...["none", "macvtap", "tcfilter", "l3forwarding"],
    ]),
    harmless("how the guest is connected to the pod's network", "dan_conf"),
    harmless("how devices are presented to containers", "vfio_mode", ["vfio", "guest-kernel"]),
    harmless("what containers in the guest may ask of its kernel", "disable_guest_seccomp guest_selinux_label"),
    harmless("who makes emptyDir volumes; policies are made for one way", "disable_guest_empty_dir"),
    harmless("where the kubelet's files are", "kubelet_root_dir pod_resource_api_sock"),
    harmless("how Kata itself runs on the host", "keep_abnormal use_passfd_io"),
    weakens("what pods write into emptyDir volumes is on the host's disk in plain", "emptydir_mode", {
      safe: ["shared-fs", "block-encrypted"],
      words: ["shared-fs", "block-encrypted", "block-plain"],
    }),
    weakens("guests are in the host's own network", "disable_new_netns", { safe: [false] }),
    weakens("directories of the host are in every guest", "sandbox_bind_mounts"),
    decided("it decides how many vCPUs guests have, which is measured", "static_sandbox_resource_mgmt"),
    decided("the platform decides it", "agent_name experimental experimental_force_guest_pull hypervisor_name name"),
    decided("the guest listens where its image says", "passfd_listener_port"),
    decided("directories of the host are for no confidential guest", "shared_mounts"),
    decided("a secret would be in the install spec, which many can read", "jaeger_password jaeger_user"),
  ],
};

const index = Object.fromEntries(
  Object.entries(judgements).map(([table, all]) => [
    table,
    new Map(all.flatMap(({ keys, ...effect }) => keys.split(" ").map((key) => [key, effect] as const))),
  ]),
);

/** The words of a key that has only some, for Kata's Go runtime or for runtime-rs. */
export function allowedWords({ words }: KeyEffect, isRs: boolean): readonly string[] | undefined {
  if (words === undefined || !("go" in words)) return words;
  return isRs ? words.rs : words.go;
}

/** What setting this key does; undefined for one that nobody has judged, which cannot be set. */
export const effectOf = (table: TableName, key: string): KeyEffect | undefined => index[table]?.get(key);

/**
 * Whether such a key of the virtual machine monitor may change the tables that it hands to the firmware, which TDX measures
 * (RTMR0). Their values are known by the number of vCPUs, so that number alone makes none of them wrong.
 */
export const touchesRtmr0 = (table: TableName, { effect, why }: KeyEffect): boolean =>
  table === "hypervisor" && effect !== "harmless" && why !== vcpus;

/** Keys of a table that change nothing about the guest's kernel command line, in whatever version. */
export const withoutCommandLine = (table: TableName): string[] =>
  [...(index[table] ?? [])].flatMap(([key, { effect, why }]) =>
    effect === "harmless" || (effect === "measured" && why !== line) || why === logs || why === registry ? [key] : [],
  );
