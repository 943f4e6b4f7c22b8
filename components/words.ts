/*
 * The words that arguments may be, as enumerations in Pulumi's own form: TypeScript accepts each word as it is, and the
 * packages of other languages get an enumeration. Pulumi's analyzer takes `as const` alone, without `satisfies`: a test
 * compares them with the words that are checked.
 */

/** Where guests run: virtual machine monitor, TEE and place. */
export const PlatformName = {
  /** Cloud Hypervisor on AKS, AMD SEV-SNP. */
  AksClhSnp: "aks-clh-snp",
  /** QEMU on bare metal, AMD SEV-SNP. */
  MetalQemuSnp: "metal-qemu-snp",
  /** QEMU on bare metal, Intel TDX. */
  MetalQemuTdx: "metal-qemu-tdx",
  /** The same with GPUs; experimental. */
  MetalQemuSnpGpu: "metal-qemu-snp-gpu",
  /** The same with GPUs; experimental. */
  MetalQemuTdxGpu: "metal-qemu-tdx-gpu",
  /** QEMU without a TEE: a VM, but nothing is confidential. For developing on any machine with KVM. */
  MetalQemuInsecure: "metal-qemu-insecure",
  /** No virtual machine and no TEE: nothing is confidential. For trying on any machine. */
  Local: "local",
} as const;
export type PlatformName = (typeof PlatformName)[keyof typeof PlatformName];

/** How a node runs containerd: which file, which socket, which unit. */
export const DistributionName = {
  /** containerd's own files, as with kubeadm. */
  Containerd: "containerd",
  /** Azure Kubernetes Service. */
  Aks: "aks",
  /** K3s. */
  K3s: "k3s",
  /** RKE2. */
  Rke2: "rke2",
  /** k0s. */
  K0s: "k0s",
  /** MicroK8s. */
  Microk8s: "microk8s",
} as const;
export type DistributionName = (typeof DistributionName)[keyof typeof DistributionName];

/** What happens on the nodes when their group leaves the stack. */
export const OnDestroy = {
  /** Runtimes and settings are removed, or the update fails and names the pods in the way. */
  Uninstall: "uninstall",
  /** Nodes stay as they are. */
  Leave: "leave",
} as const;
export type OnDestroy = (typeof OnDestroy)[keyof typeof OnDestroy];

/** Algorithm of the initdata's digest. */
export const InitdataAlgorithm = {
  /** SHA-256: fits HOST_DATA of an SNP report. */
  Sha256: "sha256",
  /** SHA-384: fits MRCONFIGID of a TDX quote. */
  Sha384: "sha384",
  /** SHA-512: reports have it truncated. */
  Sha512: "sha512",
} as const;
export type InitdataAlgorithm = (typeof InitdataAlgorithm)[keyof typeof InitdataAlgorithm];
