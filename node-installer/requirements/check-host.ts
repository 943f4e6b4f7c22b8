import type { HostRequirements } from "../../runtime/spec.ts";
import { checkSnp, checkTdx } from "./check-tee.ts";
import { error, type Finding, warning } from "./finding.ts";
import type { HostFacts } from "./host-facts.ts";

export type { Finding } from "./finding.ts";
export { gatherHostFacts, type HostFacts, hostFactsSchema } from "./host-facts.ts";

type Check = (facts: HostFacts, requirements: HostRequirements) => Finding[];

/** Judges nothing but facts, so it works alike on a node and on the bundle of a remote one. Errors first, no duplicates. */
export function checkHost(facts: HostFacts, requirements: readonly HostRequirements[]): Finding[] {
  const findings = new Map<string, Finding>();
  for (const requirement of requirements) {
    for (const check of checks) {
      for (const finding of check(facts, requirement)) findings.set(finding.message, finding);
    }
  }
  const order = { error: 0, warning: 1 };
  return [...findings.values()].toSorted((a, b) => order[a.severity] - order[b.severity]);
}

const checkMounts: Check = ({ mounts, os }) =>
  Object.entries(mounts).flatMap(([directory, { readOnly, noExec, mountPoint }]) => {
    if (readOnly) {
      const there = Object.keys(mounts).filter((other) => mounts[other]?.mountPoint === mountPoint);
      const flatcar =
        os === "flatcar" ? " Flatcar's containerd reads /usr, which is read-only: give it a --config below /etc." : "";
      return error(
        "read-only",
        `The mount ${mountPoint} is read-only, so nothing can be written to ${there.join(", ")}: mount it writable.${flatcar}`,
      );
    }
    if (noExec && directory.startsWith("/opt")) {
      return error(
        "no-exec",
        `${directory} is on ${mountPoint}, which is mounted with noexec, so no shim can run from it: mount it without noexec.`,
      );
    }
    return [];
  });

const checkKvm: Check = ({ cpu, devices, modules }, { virtualization }) => {
  if (virtualization !== "kvm") return [];
  const findings: Finding[] = [];
  const [flag, setting, module] =
    cpu.vendor === "AuthenticAMD" ? (["svm", "SVM Mode", "kvm_amd"] as const) : (["vmx", "VT-x", "kvm_intel"] as const);
  if (cpu.vendor !== "AuthenticAMD" && cpu.vendor !== "GenuineIntel") {
    return [
      error(
        "cpu-unsupported",
        `This CPU's vendor is "${cpu.vendor || "unknown"}": confidential VMs need an AMD or Intel CPU.`,
      ),
    ];
  }
  if (!devices.includes("kvm")) {
    findings.push(
      cpu.flags.includes(flag)
        ? error(
            "kvm-missing",
            `/dev/kvm is missing: load the module with "modprobe ${module}" and add it to a file in /etc/modules-load.d.`,
          )
        : error(
            "virtualization-off",
            `The CPU does not report ${flag}: enable ${setting} in the BIOS. In a virtual machine, confidential VMs cannot run at all.`,
            true,
          ),
    );
  }
  if (!devices.includes("vhost-vsock")) {
    findings.push(
      modules.includes("vmw_vsock_vmci_transport")
        ? error(
            "vsock-taken",
            "The module vmw_vsock_vmci_transport has taken vsock, so vhost_vsock cannot load and no VM can talk to its shim: unload it and blacklist it in a file in /etc/modprobe.d.",
          )
        : error(
            "vhost-vsock-missing",
            '/dev/vhost-vsock, over which shim and VM talk, is missing: run "modprobe vhost_vsock" and add it to a file in /etc/modules-load.d.',
          ),
    );
  }
  if (!devices.includes("vhost-net")) {
    findings.push(
      error(
        "vhost-net-missing",
        '/dev/vhost-net, which gives VMs their network, is missing: run "modprobe vhost_net" and add it to a file in /etc/modules-load.d.',
      ),
    );
  }
  return findings;
};

const checkMshv: Check = ({ devices }, { virtualization }) =>
  virtualization === "mshv" && !devices.includes("mshv")
    ? [
        error(
          "mshv-missing",
          "/dev/mshv is missing: this node is not in an AKS pool with the workload runtime KataCcIsolation. Take it out of the group, or recreate the pool with that workload runtime.",
        ),
      ]
    : [];

/** On AKS the hypervisor owns the hardware; the node sees nothing but /dev/mshv. */
const checkTee: Check = (facts, { tee, virtualization }) => {
  if (virtualization !== "kvm") return [];
  if (tee === "snp") return checkSnp(facts);
  return tee === "tdx" ? checkTdx(facts) : [];
};

const checkGpu: Check = ({ gpus, devices, iommu }, { gpu }) => {
  if (!gpu) return [];
  const findings: Finding[] = [];
  if (iommu.devices.length === 0) {
    findings.push(
      error(
        "iommu-off",
        "The IOMMU is off, but a VM can only get a GPU through it: enable it in the BIOS and remove iommu=off from the kernel's command line.",
        true,
      ),
    );
  }
  if (gpus.length === 0) {
    findings.push(
      error("gpu-missing", "This node has no NVIDIA GPU on its PCI bus: take it out of the group of a -gpu platform."),
    );
  }
  for (const { address, driver } of gpus.filter(({ driver }) => driver !== "vfio-pci")) {
    findings.push(
      error(
        "gpu-not-bound",
        `The GPU ${address} is bound to the driver "${driver}": bind it and every device of its IOMMU group to vfio-pci.`,
      ),
    );
  }
  if (gpus.length > 0 && !devices.includes("vfio/vfio")) {
    findings.push(
      error(
        "vfio-missing",
        '/dev/vfio/vfio is missing: run "modprobe vfio_pci" and add it to a file in /etc/modules-load.d.',
      ),
    );
  }
  return findings;
};

const leastInotifyInstances = 8192;
const leastRequestSeconds = 300;
const kubeletDefault = { seconds: 120, path: "kubelet's default" };

const checkLimits: Check = ({ inotifyInstances, kubeletRequestTimeout, selinux }, { virtualization, guestPull }) => {
  const findings: Finding[] = [];
  if (virtualization !== "none" && inotifyInstances !== undefined && inotifyInstances < leastInotifyInstances) {
    findings.push(
      warning(
        "inotify-instances",
        `fs.inotify.max_user_instances is ${inotifyInstances}, which a few VMs exhaust: set it to ${leastInotifyInstances} in a file in /etc/sysctl.d.`,
      ),
    );
  }
  const { seconds, path } = kubeletRequestTimeout ?? kubeletDefault;
  if (guestPull && seconds < leastRequestSeconds) {
    findings.push(
      warning(
        "request-timeout",
        `kubelet's runtimeRequestTimeout is ${seconds} s (${path}), but images are pulled inside the VM while kubelet waits: set it to 5m or more, or pods with large images never start.`,
      ),
    );
  }
  if (selinux === "enforcing") {
    findings.push(
      warning(
        "selinux-enforcing",
        "SELinux is enforcing, which this product is not tested with: if something is denied, look at the audit log.",
      ),
    );
  }
  return findings;
};

const checks: readonly Check[] = [checkMounts, checkKvm, checkMshv, checkTee, checkGpu, checkLimits];
