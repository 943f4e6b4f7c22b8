import { initdataAnnotation, kataAnnotations, policyAnnotation } from "../../runtime/annotations.ts";
import type { PolicyInput } from "./pod-policy.ts";
import { literally, type Pinned } from "./variables.ts";
import { sandboxMounts } from "./volumes.ts";

/** What containerd hides at least, since 1.7. */
export const maskedPaths = [
  ...["/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats"],
  ...["/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/firmware"],
];
export const readonlyPaths = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/** The sandbox's shared memory: kata_agent.go, setupStorages; runtime-rs, get_storage_for_sandbox. The size is containerd's. */
export const shm = {
  driver: "ephemeral",
  driver_options: [],
  fs_group: null,
  fstype: "tmpfs",
  mount_point: "/run/kata-containers/sandbox/shm",
  options: ["noexec", "nosuid", "nodev", "mode=1777", "size=67108864"],
  shared: false,
  source: "shm",
};

const anyId = { like: "^[0-9a-f]{64}$" };

/** Annotations of all of a pod's containers: containerd's, Kata's, and the template's own for Kata. */
export function commonAnnotations({ namespace, template }: PolicyInput): Record<string, Pinned> {
  const own = Object.entries(template.metadata?.annotations ?? {}).filter(
    ([key]) => key.startsWith(kataAnnotations) && key !== initdataAnnotation && key !== policyAnnotation,
  );
  return {
    ...Object.fromEntries(own),
    "io.katacontainers.pkg.oci.bundle_path": { like: "^/run/[a-z0-9/._-]{1,200}/[0-9a-f]{64}$" },
    "io.kubernetes.cri.sandbox-id": anyId,
    "io.kubernetes.cri.sandbox-name": { like: "^{pod}$" },
    "io.kubernetes.cri.sandbox-namespace": namespace,
    "io.kubernetes.cri.sandbox-uid": { like: "^{uid}$" },
  };
}

/** containerd lets unprivileged processes use low ports and ping: its default since 2.0. */
const optionalSysctls = {
  "net.ipv4.ip_unprivileged_port_start": "0",
  "net.ipv4.ping_group_range": "0 2147483647",
};

/**
 * The pod's own container. Whatever process the host asks for, the agent runs that of the pause image in its own file
 * system (confidential_data_hub/image.rs, get_process): user, variables and capabilities of the request are not used.
 */
export function sandbox(input: PolicyInput, sysctls: { name: string; value: string }[]): object {
  const wanted = Object.fromEntries(sysctls.map(({ name, value }) => [name, value]));
  const number = { like: "^[0-9]{1,20}$" };
  return {
    annotations: {
      ...commonAnnotations(input),
      "io.katacontainers.pkg.oci.container_type": "pod_sandbox",
      "io.kubernetes.cri.container-type": "sandbox",
      "io.kubernetes.cri.podsandbox.image-name": { like: "^[a-zA-Z0-9._:/@-]{1,300}$" },
      "io.kubernetes.cri.sandbox-cpu-period": number,
      "io.kubernetes.cri.sandbox-cpu-quota": number,
      "io.kubernetes.cri.sandbox-cpu-shares": number,
      "io.kubernetes.cri.sandbox-log-directory": { like: `^/var/log/pods/${literally(input.namespace)}_{pod}_{uid}$` },
      "io.kubernetes.cri.sandbox-memory": number,
      "nerdctl/network-namespace": { like: "^/(var/run|run|proc)/[a-zA-Z0-9/_-]{1,200}$" },
    },
    commands: [],
    devices: [],
    masked_paths: maskedPaths,
    mounts: sandboxMounts,
    process: null,
    readonly_paths: readonlyPaths,
    readonly_root: true,
    required_sysctls: Object.keys(wanted),
    sandbox_pidns: false,
    storages: [{ image: ["pause"] }],
    sysctls: { ...optionalSysctls, ...wanted },
  };
}
