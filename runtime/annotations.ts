import type { Platform } from "./platforms.ts";

/** Everything that Kata reads of a pod's annotations starts with this. */
export const kataAnnotations = "io.katacontainers.";
/** Pod annotations that change Kata's configuration of the VM start with this. */
export const hypervisorAnnotations = `${kataAnnotations}config.hypervisor.`;
/** The pod annotation that carries initdata to Kata. */
export const initdataAnnotation = `${hypervisorAnnotations}cc_init_data`;
/** What Kata had before initdata: base64 of the policy, whose SHA-256 becomes HOSTDATA. */
export const policyAnnotation = `${kataAnnotations}config.agent.policy`;
/** Devices for a pod, by the Container Device Interface: how GPUs are announced to the shim. */
export const deviceAnnotations = "cdi.k8s.io/";

type Pods = Pick<Platform, "vmm" | "tee" | "gpu">;

/**
 * The hypervisor annotations that pods may have, without their prefix. Initdata is passed by annotation where Kata supports
 * it; so are Contrast's ID blocks, one per CPU model, because a node's model is not known at rendering.
 */
function hypervisorNames({ tee, vmm }: Pods, flavour: string): string[] {
  if (vmm === "cloud-hypervisor") return [];
  if (tee !== "snp" || flavour.startsWith("kata-")) return ["cc_init_data"];
  const perModel = ["Genoa", "Milan"].flatMap((model) =>
    ["snp_guest_policy", "snp_id_auth", "snp_id_block"].map((key) => `${key}_${model}`),
  );
  return ["cc_init_data", ...perModel];
}

/**
 * Kata's `enable_annotations`. Both runtimes look for each entry as a regular expression anywhere in the name (Go's
 * `regexp.MatchString`, Rust's `RegexSet`), so that without anchors one name would allow every longer one.
 */
export const enabledAnnotations = (platform: Pods, flavour: string): string[] =>
  hypervisorNames(platform, flavour).map((name) => `^${name}$`);

/**
 * Containerd's `pod_annotations`: what of a pod's annotations reaches the shim, each by its name. Kata gates by
 * configuration only those of the hypervisor. A pod that reaches `config_path` (before Kata 4.0) or `config.agent.*` and
 * `config.runtime.*` (always) decides about the host, so no pattern here may cover more than it names. What the shim needs
 * of a pod besides, containerd's `io.kubernetes.cri.*`, is handed over in any case, made by containerd itself.
 */
export const podAnnotations = (platform: Pods, flavour: string): string[] => [
  ...(platform.gpu ? [`${deviceAnnotations}*`] : []),
  ...hypervisorNames(platform, flavour).map((name) => `${hypervisorAnnotations}${name}`),
  // A Kata without initdata: its configuration does not gate annotations of the agent.
  ...(platform.vmm === "cloud-hypervisor" ? [policyAnnotation] : []),
];

/**
 * Containerd's `container_annotations`: what kubelet says about a container's termination message, for which upstream's
 * Kata asks the guest, as it shares no file with it (kata-deploy, since 3.29). Contrast's does not.
 */
export const containerAnnotations = (flavour: string): string[] =>
  flavour.startsWith("kata-")
    ? ["terminationMessagePath", "terminationMessagePolicy"].map((name) => `io.kubernetes.container.${name}`)
    : [];

/** Whether containerd hands an annotation to the shim; it matches as a path is, where `*` ends at a slash. */
export const reachesShim = (patterns: readonly string[], name: string): boolean =>
  patterns.some((pattern) =>
    pattern.endsWith("/*")
      ? name.startsWith(pattern.slice(0, -1)) && !name.slice(pattern.length - 1).includes("/")
      : name === pattern,
  );
