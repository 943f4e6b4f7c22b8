// An independent reader: the product itself reads TOML with smol-toml.
import toml from "@iarna/toml";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { deriveRuntime } from "../../../measure/runtime.ts";
import { hypervisorAnnotations, kataAnnotations, reachesShim } from "../../../runtime/annotations.ts";
import { flavourNames, pairs } from "../../../runtime/flavours.ts";
import { type PlatformName, platformNames } from "../../../runtime/spec.ts";
import { fixtureManifest } from "./fixtures.ts";

/** What Kata 3.24 to 4.1 reads of a pod (its lists of names: Go's annotations.go, Rust's kata-types), without "io.katacontainers.". */
const known = [
  ..."config_path asset_hash_type enable_vcpus_pinning fs-opt.block_device=file fs-opt.is-layer fs-opt.layer=".split(
    " ",
  ),
  ..."container.resource container.resource.swap_in_bytes container.resource.swappiness".split(" "),
  ..."pkg.oci.bundle_path pkg.oci.container_type".split(" "),
  ...below(
    "config.agent",
    "cdh_api_timeout_ms container_pipe_size enable_tracing kernel_modules policy unknown_to_this_list",
  ),
  ...below(
    "config.runtime",
    "agent_name create_container_timeout disable_guest_empty_dir disable_guest_seccomp disable_new_netns enable_pprof enable_vcpus_pinning experimental experimental_force_guest_pull guest_selinux_label hypervisor_name internetworking_model name sandbox_bind_mounts sandbox_cgroup_only shared_mounts vfio_mode",
  ),
  ...below(
    "config.hypervisor",
    "asset_hash_type blk_logical_sector_size blk_physical_sector_size block_device_aio block_device_cache_direct block_device_cache_noflush block_device_cache_set block_device_driver block_device_num_queues block_device_queue_size cc_init_data cold_plug_vfio cpu_features default_gpu_model default_gpus default_max_vcpus default_memory default_vcpus disable_block_device_use disable_image_nvdimm disable_vhost_net enable_guest_swap enable_hugepages enable_iommu enable_iommu_platform enable_iothreads enable_mem_prealloc enable_vhost_user_store enable_virtio_mem entropy_source file_mem_backend firmware firmware_hash firmware_volume firmware_volume_hash guest_hook_path hot_plug_vfio hotplug_vfio_on_root_bus hugepage_type hypervisor_hash image image_hash indep_iothreads initrd initrd_hash jailer_hash jailer_path kernel kernel_hash kernel_params kernel_verity_params machine_accelerators machine_type memory_offset memory_slots msize_9p network_queues numa_mapping path path_hash pcie_root_port pcie_switch_port prefetch_files.list reclaim_guest_freed_memory rootless rx_rate_limiter_max_rate shared_fs snp_guest_policy snp_id_auth snp_id_block tx_rate_limiter_max_rate use_legacy_serial vhost_user_reconnect_timeout_sec vhost_user_store_path virtio_fs_cache virtio_fs_cache_size virtio_fs_daemon virtio_fs_extra_args",
  ),
  // Contrast's patches.
  ...["Genoa", "Milan"].flatMap((model) =>
    below("config.hypervisor", `snp_guest_policy_${model} snp_id_auth_${model} snp_id_block_${model}`),
  ),
].map((name) => `${kataAnnotations}${name}`);

function below(group: string, names: string): string[] {
  return names.split(" ").map((name) => `${group}.${name}`);
}

const fixtureOf = (platform: string, flavour: string) =>
  platform === "aks-clh-snp" ? "contrast-aks" : platform === "local" ? "local" : flavour;
const derivedFrom = (platform: PlatformName, fixture: string) => {
  const { containerd, kataConfig } = deriveRuntime({ platform, manifest: fixtureManifest(fixture) });
  const { hypervisor } = toml.parse(kataConfig.content) as {
    hypervisor: Record<string, { enable_annotations?: string[] }>;
  };
  const [vmm] = Object.values(hypervisor);
  return { patterns: containerd.podAnnotations, enabled: vmm?.enable_annotations ?? [] };
};
const runtimes = platformNames.flatMap((platform) =>
  flavourNames
    .filter((flavour) => pairs[flavour][platform].supported)
    .map((flavour) => ({ platform, flavour, ...derivedFrom(platform, fixtureOf(platform, flavour)) })),
);

/** As Go's path.Match does: a star is anything up to the next slash. */
const matches = (pattern: string, name: string): boolean =>
  new RegExp(
    `^${pattern
      .split("*")
      .map((text) => text.replaceAll(/[.=[\]\\?+^$(){}|]/g, "\\$&"))
      .join("[^/]*")}$`,
  ).test(name);

const idBlocks = ["Genoa", "Milan"].flatMap((model) =>
  ["snp_guest_policy", "snp_id_auth", "snp_id_block"].map((name) => `${hypervisorAnnotations}${name}_${model}`),
);

describe.each(runtimes)("$platform with $flavour", ({ platform, flavour, patterns, enabled }) => {
  const wanted =
    platform === "aks-clh-snp"
      ? [`${kataAnnotations}config.agent.policy`]
      : [
          `${hypervisorAnnotations}cc_init_data`,
          ...(flavour === "contrast-go" && platform.includes("snp") ? idBlocks : []),
        ];

  test("of everything that Kata reads, exactly what the runtime is for reaches the shim", () => {
    const passed = known.filter((name) => patterns.some((pattern) => matches(pattern, name)));
    expect(passed.toSorted()).toEqual(wanted.toSorted());
    expect(patterns.filter((pattern) => pattern.includes("*"))).toEqual(
      platform.endsWith("-gpu") ? ["cdi.k8s.io/*"] : [],
    );
  });

  test("Kata's configuration allows what containerd hands over, and no longer or other name", () => {
    const names = known
      .filter((name) => name.startsWith(hypervisorAnnotations))
      .map((name) => name.slice(hypervisorAnnotations.length));
    const allowed = (name: string) => enabled.some((expression) => new RegExp(expression).test(name));
    expect(names.filter(allowed).map((name) => `${hypervisorAnnotations}${name}`)).toEqual(
      expect.arrayContaining(wanted.filter((name) => name.startsWith(hypervisorAnnotations))),
    );
    expect(names.filter(allowed)).toHaveLength(wanted.filter((name) => name.startsWith(hypervisorAnnotations)).length);
    for (const name of names.filter(allowed))
      for (const longer of [`${name}_path`, `x_${name}`, `path.${name}`, `${name}\npath`])
        expect(allowed(longer), longer).toBe(false);
  });

  test("what a pod template may carry is what containerd hands over", () => {
    const key = fc.oneof(
      fc.constantFrom(...known),
      fc.string(),
      fc.constantFrom("cdi.k8s.io/", "cdi.k8s.io/a", "cdi.k8s.io/a/b"),
    );
    fc.assert(
      fc.property(key, fc.string({ maxLength: 3 }), (name, tail) => {
        for (const each of [name, name + tail])
          expect(reachesShim(patterns, each)).toBe(patterns.some((pattern) => matches(pattern, each)));
      }),
    );
  });
});
