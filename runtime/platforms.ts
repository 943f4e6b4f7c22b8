import type { FileRole } from "./manifest.ts";
import type { HostRequirements, PlatformName } from "./spec.ts";

/** What makes a guest confidential; "none" where nothing does. */
export type Tee = HostRequirements["tee"];
/** One that measures what it launches. */
export type MeasuringTee = Exclude<Tee, "none">;

/** What each pod costs beyond its containers, and which nodes can have it. */
interface PodCosts extends Pick<Platform, "guestMemoryMiB" | "overheadMiB"> {
  /** Labels that nodes must have for its pods, besides the one that says that the runtime is there. */
  podSelector: Record<string, string>;
}

/** VMM × TEE × place, as data: adding a platform is adding a row (and its name in spec.ts). */
export interface Platform {
  title: string;
  vmm: "qemu" | "cloud-hypervisor" | "none";
  tee: Tee;
  gpu: boolean;
  /** Works on paper only: nobody has run it on the hardware. Previews and docs/configuration.md say so. */
  experimental: boolean;
  /** Nothing is confidential: handlers say so in their name, and policies keep it out of production. */
  insecure: boolean;
  /** Below the runtime's directory. */
  kataConfigPath: string;
  /** Memory of a pod-VM before the pod's own limits are added. */
  guestMemoryMiB: number;
  /** What the RuntimeClass charges for each pod, beyond its containers. */
  overheadMiB: number;
  /** What is different with upstream's Kata. */
  upstream?: PodCosts;
  /** Labels that nodes of the platform carry before anything is installed. */
  nodeSelector: Record<string, string>;
  /** Charged once per pod, but only if the stack says that its nodes advertise it: otherwise no pod could be scheduled. */
  extendedResource?: string;
  /** What a payload must contain at least. */
  requiredRoles: readonly FileRole[];
  host: HostRequirements;
  /** The snapshotter that the host runs for this platform; absent where guests pull their images. */
  snapshotter?: string;
}

/** Measured by Contrast: 70 MiB for the shim, 100 MiB for the VMM. */
const shimAndVmmMiB = 170;

/**
 * Upstream's GPU guests, as its templates size them (DEFAULTMEMORY_NV) and kata-deploy charges and schedules them
 * (helm-chart: runtimeclasses.yaml, try-kata-nvidia-gpu.values.yaml): where the GPU operator has put GPUs into
 * confidential mode.
 */
const upstreamGpu: PodCosts = {
  guestMemoryMiB: 8192,
  overheadMiB: 10240,
  podSelector: { "nvidia.com/cc.ready.state": "true" },
};

const metalRoles = ["shim", "vmm", "firmware", "kernel", "rootfs"] as const;

const metal = (tee: MeasuringTee, gpu: boolean) => {
  // The guest pulls images into memory; with GPU drivers Contrast's own components need about 600 MiB.
  const guestMemoryMiB = gpu ? 1024 : 512;
  return {
    title: `QEMU with ${tee === "snp" ? "AMD SEV-SNP" : "Intel TDX"} on bare metal${gpu ? ", with a GPU passed through" : ""}`,
    vmm: "qemu",
    tee,
    gpu,
    experimental: gpu,
    insecure: false,
    kataConfigPath: `etc/configuration-qemu-${tee}${gpu ? "-gpu" : ""}.toml`,
    guestMemoryMiB,
    overheadMiB: guestMemoryMiB + shimAndVmmMiB,
    ...(gpu && { upstream: upstreamGpu }),
    nodeSelector: {},
    extendedResource: tee === "snp" ? "sev-snp.amd.com/esids" : "tdx.intel.com/keys",
    requiredRoles: metalRoles,
    host: { tee, virtualization: "kvm", gpu, guestPull: true },
  } satisfies Platform;
};

/** The same VM on any machine with KVM, a virtual one included: for developing, and for seeing a pod in a VM at all. */
const insecureMetal = (): Platform => {
  const { extendedResource, ...secure } = metal("snp", false);
  return {
    ...secure,
    title: "QEMU without a TEE: pods run in VMs that the host can read, for developing on any machine with KVM",
    tee: "none",
    insecure: true,
    kataConfigPath: "etc/configuration-qemu-insecure.toml",
    // Nothing measures the firmware: without one, QEMU takes the SeaBIOS that lies among its own files.
    requiredRoles: metalRoles.filter((role) => role !== "firmware"),
    host: { ...secure.host, tee: "none" },
  };
};

export const platforms: Record<PlatformName, Platform> = {
  "aks-clh-snp": {
    title: "Cloud Hypervisor with AMD SEV-SNP on AKS (Microsoft retired the service in March 2026)",
    vmm: "cloud-hypervisor",
    tee: "snp",
    gpu: false,
    experimental: false,
    insecure: false,
    kataConfigPath: "etc/configuration-clh-snp.toml",
    guestMemoryMiB: 256,
    overheadMiB: 256 + shimAndVmmMiB,
    nodeSelector: { "kubernetes.azure.com/kata-cc-isolation": "true" },
    requiredRoles: ["shim", "vmm", "igvm", "rootfs", "snapshotter"],
    host: { tee: "snp", virtualization: "mshv", gpu: false, guestPull: false },
    snapshotter: "tardev",
  },
  "metal-qemu-snp": metal("snp", false),
  "metal-qemu-tdx": metal("tdx", false),
  "metal-qemu-snp-gpu": metal("snp", true),
  "metal-qemu-tdx-gpu": metal("tdx", true),
  "metal-qemu-insecure": insecureMetal(),
  local: {
    title: "no VM and no TEE: containerd's runc shim in place of Kata's, for trials and tests",
    vmm: "none",
    tee: "none",
    gpu: false,
    experimental: false,
    insecure: true,
    kataConfigPath: "etc/configuration-qemu-local.toml",
    guestMemoryMiB: 512,
    overheadMiB: 16,
    nodeSelector: {},
    requiredRoles: ["shim"],
    host: { tee: "none", virtualization: "none", gpu: false, guestPull: false },
  },
};

/** What a pod costs on a platform, by the flavour of the Kata that runs it. */
export const podCosts = ({ guestMemoryMiB, overheadMiB, upstream }: Platform, flavour: string): PodCosts =>
  upstream !== undefined && flavour.startsWith("kata-") ? upstream : { guestMemoryMiB, overheadMiB, podSelector: {} };
