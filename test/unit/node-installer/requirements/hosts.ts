import { platforms } from "../../../../runtime/platforms.ts";
import type { HostRequirements } from "../../../../runtime/spec.ts";

/** A host as a tree of files and, as `-> TARGET`, links; undefined: one that it does not have. */
export type Files = Record<string, string | undefined>;

/** Calls what makes a file or a link for each of them. */
export function each(
  files: Files,
  make: { file(path: string, content: string): void; link(path: string, target: string): void },
) {
  for (const [path, content] of Object.entries(files)) {
    if (content?.startsWith("-> ")) make.link(path, content.slice(3));
    else if (content !== undefined) make.file(path, content);
  }
}

const mountinfo = "22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw\n23 22 8:2 / /opt rw,relatime - xfs /dev/sdb1 rw\n";
const cpuinfo = (vendor: string, family: number, model: number, flags: string) =>
  ["0", "1"]
    .map(
      (n) => `processor\t: ${n}\nvendor_id\t: ${vendor}\ncpu family\t: ${family}\nmodel\t\t: ${model}\n${rest(flags)}`,
    )
    .join("\n");
const rest = (flags: string) => `model name\t: A 9999 of theirs\nflags\t\t: fpu ${flags}\n`;

const common: Files = {
  "/proc/sys/kernel/osrelease": "6.11.0-9-generic\n",
  "/proc/cmdline": "BOOT_IMAGE=/vmlinuz root=/dev/sda1 ro quiet\n",
  "/proc/sys/fs/inotify/max_user_instances": "8192\n",
  "/proc/self/mountinfo": mountinfo,
  "/etc/os-release": 'NAME="Ubuntu"\nID=ubuntu\n',
  "/dev/kvm": "",
  "/dev/vhost-vsock": "",
  "/dev/vhost-net": "",
  "/var/lib/kubelet/config.yaml": "kind: KubeletConfiguration\nruntimeRequestTimeout: 15m0s\n",
};

/** An EPYC 7003 on which SEV-SNP works. */
export const milan: Files = {
  ...common,
  "/proc/cpuinfo": cpuinfo("AuthenticAMD", 25, 1, "svm sev_snp"),
  "/dev/sev": "",
  "/sys/module/kvm_amd/parameters/sev": "Y\n",
  "/sys/module/kvm_amd/parameters/sev_es": "Y\n",
  "/sys/module/kvm_amd/parameters/sev_snp": "Y\n",
  "/sys/class/iommu/ivhd0/devices": "",
  "/sys/kernel/iommu_groups/0/type": "DMA-FQ\n",
  "/sys/fs/cgroup/misc.capacity": "sev 410\nsev_es 99\n",
};
const milanOff: Files = { ...milan, "/sys/module/kvm_amd/parameters/sev_snp": "N\n" };

/** A 5th generation Xeon on which TDX works. */
const emerald: Files = {
  ...common,
  "/proc/sys/kernel/osrelease": "6.17.0-5-generic\n",
  "/proc/cpuinfo": cpuinfo("GenuineIntel", 6, 207, "vmx tdx_host_platform"),
  "/proc/cmdline": "root=/dev/sda1 ro nohibernate kvm_intel.tdx=1\n",
  "/sys/module/kvm_intel/parameters/tdx": "Y\n",
  "/sys/module/kvm_intel/parameters/sgx": "Y\n",
  "/sys/class/iommu/dmar0/devices": "",
  "/sys/fs/cgroup/misc.capacity": "tdx 31\n",
  "/etc/qgs.conf": "port = 4050\n",
};
const emeraldOff: Files = { ...emerald, "/sys/module/kvm_intel/parameters/tdx": "N\n" };

export const snp = platforms["metal-qemu-snp"].host;
export const tdx = platforms["metal-qemu-tdx"].host;
const local = platforms.local.host;
const insecure = platforms["metal-qemu-insecure"].host;

const gpuDevice = "/sys/bus/pci/devices/0000:21:00.0";
const hopper: Files = {
  [`${gpuDevice}/vendor`]: "0x10de\n",
  [`${gpuDevice}/class`]: "0x030200\n",
  [`${gpuDevice}/driver`]: "-> ../../drivers/vfio-pci",
  "/dev/vfio/vfio": "",
  "/sys/bus/pci/drivers/vfio-pci/module/version": "1",
};
const withGpu = platforms["metal-qemu-snp-gpu"].host;
const noTee: HostRequirements = { ...withGpu, tee: "none" };
const iommu = "/sys/class/iommu/ivhd0/devices";
const aks = platforms["aks-clh-snp"].host;

const cmdline = (options: string): Files => ({ "/proc/cmdline": `root=/dev/sda1 ro ${options}\n` });
/** Hosts, what is required of them, and what is found. */
export const hosts: [name: string, files: Files, requirements: HostRequirements, findings: string[]][] = [
  ["EPYC Milan with SEV-SNP", milan, snp, []],
  [
    "SEV-SNP's parameter reads 1",
    { ...milan, "/sys/module/kvm_amd/parameters/sev_snp": "1\n" },
    snp,
    ["warning:parameter-digit"],
  ],
  [
    "all ASIDs are given to SEV without SNP",
    { ...milan, "/sys/fs/cgroup/misc.capacity": "sev 509\nsev_es 0\n" },
    snp,
    ["no-snp-asids (reboot)"],
  ],
  [
    "the misc controller of cgroup v1",
    {
      ...milan,
      "/sys/fs/cgroup/misc.capacity": undefined,
      "/sys/fs/cgroup/misc/misc.capacity": "sev 509\nsev_es 0\n",
    },
    snp,
    ["no-snp-asids (reboot)"],
  ],
  ["no /dev/sev", { ...milan, "/dev/sev": undefined }, snp, ["sev-device-missing"]],
  ["iommu=pt", { ...milanOff, ...cmdline("iommu=pt amd_iommu=on") }, snp, ["iommu-passthrough (reboot)"]],
  [
    "passthrough as the kernel's default",
    { ...milanOff, "/sys/kernel/iommu_groups/0/type": "identity\n" },
    snp,
    ["iommu-passthrough (reboot)"],
  ],
  ["iommu=pt although SEV-SNP works", { ...milan, ...cmdline("iommu=pt iommu=nopt") }, snp, []],
  ["amd_iommu=off", { ...milanOff, ...cmdline("amd_iommu=off") }, snp, ["iommu-off (reboot)"]],
  [
    "the IOMMU is off in the BIOS",
    { ...milanOff, "/sys/class/iommu/ivhd0/devices": undefined },
    snp,
    ["iommu-off (reboot)"],
  ],
  [
    "version 2 page tables",
    { ...milanOff, ...cmdline("amd_iommu=force_enable,pgtbl_v2") },
    snp,
    ["iommu-page-tables (reboot)"],
  ],
  ["kvm_amd.sev=0", { ...milanOff, ...cmdline("kvm-amd.sev=0") }, snp, ["snp-switched-off (reboot)"]],
  ["SEV-SNP off for a reason that only the BIOS knows", milanOff, snp, ["snp-off (reboot)"]],
  [
    "a kernel without SEV-SNP",
    { ...milan, "/sys/module/kvm_amd/parameters/sev_snp": undefined },
    snp,
    ["kernel-without-snp (reboot)"],
  ],
  [
    "kvm_amd is not loaded",
    {
      ...milan,
      "/sys/module/kvm_amd/parameters/sev": undefined,
      "/sys/module/kvm_amd/parameters/sev_es": undefined,
      "/sys/module/kvm_amd/parameters/sev_snp": undefined,
      "/dev/kvm": undefined,
    },
    snp,
    ["kvm-missing", "kvm-amd-missing"],
  ],
  ["EPYC Rome", { ...milanOff, "/proc/cpuinfo": cpuinfo("AuthenticAMD", 23, 49, "svm") }, snp, ["cpu-without-snp"]],
  ...["a Ryzen 5950X 25 33", "an EPYC 4564P 25 97", "an EPYC 4585PX 26 68", "a Threadripper PRO 5995WX 25 8"].map(
    (cpu): (typeof hosts)[number] => {
      const [model = 0, family = 0] = cpu.split(" ").toReversed().map(Number);
      return [
        cpu,
        { ...milanOff, "/proc/cpuinfo": cpuinfo("AuthenticAMD", family, model, "svm") },
        snp,
        ["cpu-without-snp"],
      ];
    },
  ),
  ["a Xeon in an SNP group", emerald, snp, ["cpu-without-snp"]],
  [
    "an AMD CPU newer than the table",
    { ...milan, "/proc/cpuinfo": cpuinfo("AuthenticAMD", 27, 1, "svm sev_snp") },
    snp,
    [],
  ],
  [
    "SVM is off in the BIOS",
    { ...milanOff, "/proc/cpuinfo": cpuinfo("AuthenticAMD", 25, 1, ""), "/dev/kvm": undefined },
    snp,
    ["virtualization-off (reboot)", "snp-off (reboot)"],
  ],
  [
    "a virtual machine",
    { "/proc/cpuinfo": cpuinfo("AuthenticAMD", 25, 1, "hypervisor"), "/proc/self/mountinfo": mountinfo },
    snp,
    ["virtual-machine", "warning:request-timeout"],
  ],
  [
    "a virtual machine with a GPU that no driver has, in a group of -gpu",
    {
      ...common,
      ...hopper,
      [`${gpuDevice}/driver`]: undefined,
      "/proc/cpuinfo": cpuinfo("GenuineIntel", 6, 143, "vmx hypervisor"),
    },
    withGpu,
    ["virtual-machine"],
  ],
  ["a Hygon CPU", { ...milanOff, "/proc/cpuinfo": cpuinfo("HygonGenuine", 24, 1, "svm") }, snp, ["cpu-unsupported"]],
  ["an ARM server", { ...common, "/proc/cpuinfo": "processor: 0\nCPU implementer: 0x41\n" }, snp, ["not-x86-64"]],
  ["the same, for local", { "/proc/cpuinfo": "processor: 0\nCPU implementer: 0x41\n" }, local, ["not-x86-64"]],
  [
    "no vhost modules",
    { ...milan, "/dev/vhost-vsock": undefined, "/dev/vhost-net": undefined },
    snp,
    ["vhost-vsock-missing", "vhost-net-missing"],
  ],
  ["a Milan whose SEV-SNP is off, for VMs without a TEE", milanOff, insecure, []],
  [
    "a virtual machine with nested virtualization, for VMs without a TEE",
    { ...common, "/proc/cpuinfo": cpuinfo("AuthenticAMD", 23, 49, "svm hypervisor") },
    insecure,
    [],
  ],
  [
    "a virtual machine without nested virtualization, for VMs without a TEE",
    { ...common, "/proc/cpuinfo": cpuinfo("GenuineIntel", 6, 85, "hypervisor"), "/dev/kvm": undefined },
    insecure,
    ["virtualization-off (reboot)"],
  ],
  [
    "a virtual machine with a /dev/kvm that no hardware stands behind, for VMs without a TEE",
    { ...common, "/proc/cpuinfo": cpuinfo("AuthenticAMD", 25, 1, "hypervisor") },
    insecure,
    ["virtualization-off (reboot)"],
  ],
  [
    "no vhost modules, for VMs without a TEE",
    { ...common, "/proc/cpuinfo": cpuinfo("GenuineIntel", 6, 85, "vmx"), "/dev/vhost-vsock": undefined },
    insecure,
    ["vhost-vsock-missing"],
  ],
  [
    "VMware's vsock",
    { ...milan, "/dev/vhost-vsock": undefined, "/sys/module/vmw_vsock_vmci_transport/refcnt": "1" },
    snp,
    ["vsock-taken"],
  ],
  [
    "few inotify instances",
    { ...milan, "/proc/sys/fs/inotify/max_user_instances": "128\n" },
    snp,
    ["warning:inotify-instances"],
  ],
  [
    "kubelet's default timeout",
    { ...milan, "/var/lib/kubelet/config.yaml": "kind: KubeletConfiguration\n" },
    snp,
    ["warning:request-timeout"],
  ],
  [
    "kubelet's zero is its default",
    { ...milan, "/var/lib/kubelet/config.yaml": "runtimeRequestTimeout: 0s\n" },
    snp,
    ["warning:request-timeout"],
  ],
  [
    "a flag beats the file",
    { ...milan, "/etc/default/kubelet": 'KUBELET_EXTRA_ARGS="--v=2 --runtime-request-timeout=90s"' },
    snp,
    ["warning:request-timeout"],
  ],
  [
    "a drop-in beats the file",
    {
      ...milan,
      "/var/lib/kubelet/config.yaml": "",
      "/etc/kubernetes/kubelet.conf.d/20-x.conf": '{\n  "runtimeRequestTimeout": "10m"\n}',
    },
    snp,
    [],
  ],
  [
    "k3s' kubelet-arg",
    {
      ...milan,
      "/var/lib/kubelet/config.yaml": undefined,
      "/etc/rancher/k3s/config.yaml": "kubelet-arg:\n  - runtime-request-timeout=10m\n",
    },
    snp,
    [],
  ],
  ["SELinux", { ...milan, "/sys/fs/selinux/enforce": "1" }, snp, ["warning:selinux-enforcing"]],
  [
    "a read-only /etc",
    { ...milan, "/proc/self/mountinfo": mountinfo.replace("/ / rw,relatime", "/ / ro,relatime") },
    snp,
    ["read-only"],
  ],
  [
    "a file system that went read-only",
    { ...milan, "/proc/self/mountinfo": mountinfo.replace("/dev/sdb1 rw", "/dev/sdb1 ro") },
    snp,
    ["read-only"],
  ],
  [
    "/opt without exec",
    { ...milan, "/proc/self/mountinfo": mountinfo.replace("/opt rw", "/opt rw,noexec") },
    snp,
    ["no-exec"],
  ],
  ["5th generation Xeon with TDX", emerald, tdx, []],
  [
    "TDX is not in the BIOS",
    { ...emeraldOff, "/proc/cpuinfo": cpuinfo("GenuineIntel", 6, 207, "vmx") },
    tdx,
    ["tdx-not-in-bios (reboot)"],
  ],
  ["TDX is not switched on", { ...emeraldOff, ...cmdline("quiet") }, tdx, ["tdx-not-switched-on (reboot)"]],
  ["TDX without nohibernate", { ...emeraldOff, ...cmdline("kvm_intel.tdx=1") }, tdx, ["tdx-not-switched-on (reboot)"]],
  ["TDX's module failed", emeraldOff, tdx, ["tdx-module-failed (reboot)"]],
  [
    "a kernel without TDX",
    { ...emerald, "/sys/module/kvm_intel/parameters/tdx": undefined },
    tdx,
    ["kernel-without-tdx (reboot)"],
  ],
  ["no TDX keys", { ...emerald, "/sys/fs/cgroup/misc.capacity": "tdx 0\n" }, tdx, ["no-tdx-keys (reboot)"]],
  [
    "no attestation",
    { ...emerald, "/etc/qgs.conf": undefined, "/sys/module/kvm_intel/parameters/sgx": "N" },
    tdx,
    ["warning:sgx-off", "warning:quote-service-missing"],
  ],
  ...Object.entries({
    "an Ice Lake Xeon": 106,
    "a Cascade Lake Xeon": 85,
    "a Xeon E3-1280 v6": 158,
    "a Core i7-13700K": 183,
  }).map(([cpu, model]): (typeof hosts)[number] => [
    cpu,
    { ...emeraldOff, "/proc/cpuinfo": cpuinfo("GenuineIntel", 6, model, "vmx") },
    tdx,
    ["cpu-without-tdx"],
  ]),
  [
    "a Sapphire Rapids Xeon without TDX",
    { ...emeraldOff, "/proc/cpuinfo": cpuinfo("GenuineIntel", 6, 143, "vmx") },
    tdx,
    ["cpu-may-lack-tdx (reboot)"],
  ],
  ["an EPYC in a TDX group", milan, tdx, ["cpu-without-tdx"]],
  [
    "TDX's parameter reads 1",
    { ...emerald, "/sys/module/kvm_intel/parameters/tdx": "1\n" },
    tdx,
    ["warning:parameter-digit"],
  ],
  [
    "kvm_intel is not loaded",
    {
      ...emerald,
      "/sys/module/kvm_intel/parameters/tdx": undefined,
      "/sys/module/kvm_intel/parameters/sgx": undefined,
      "/dev/kvm": undefined,
    },
    tdx,
    ["kvm-missing", "kvm-intel-missing"],
  ],
  [
    "VT-x is off in the BIOS",
    { ...emeraldOff, "/proc/cpuinfo": cpuinfo("GenuineIntel", 6, 207, ""), "/dev/kvm": undefined },
    tdx,
    ["virtualization-off (reboot)", "tdx-not-in-bios (reboot)"],
  ],
  [
    "SEV-SNP switched on by the preparation, before the reboot",
    { ...milanOff, "/etc/modprobe.d/contrast-runtime.conf": "options kvm_amd sev_snp=1\n" },
    snp,
    ["snp-not-active-yet (reboot)"],
  ],
  [
    "a vendor and a kernel that try to be something else",
    {
      ...milan,
      "/proc/cpuinfo": cpuinfo("$(reboot)\\n`id`", 25, 1, "svm"),
      "/proc/sys/kernel/osrelease": "'; reboot #\n",
    },
    snp,
    ["cpu-unsupported"],
  ],
  [
    "a kernel's name that is not one, in a sentence",
    {
      ...milan,
      "/proc/sys/kernel/osrelease": "6.8 '$(reboot)' %s \\n\n",
      "/sys/module/kvm_amd/parameters/sev_snp": undefined,
    },
    snp,
    ["kernel-without-snp (reboot)"],
  ],
  ["a host without its files in /proc", { ...milan, "/proc/cpuinfo": undefined }, snp, ["cpu-unsupported"]],
  ["a GPU for VMs", { ...milan, ...hopper }, withGpu, []],
  ["a GPU with a display output", { ...milan, ...hopper, [`${gpuDevice}/class`]: "0x030000\n" }, withGpu, []],
  ["no GPU", { ...milan, ...hopper, [`${gpuDevice}/class`]: "0x020000\n" }, withGpu, ["gpu-missing"]],
  ["somebody else's GPU", { ...milan, ...hopper, [`${gpuDevice}/vendor`]: "0x1002\n" }, withGpu, ["gpu-missing"]],
  ["no VFIO", { ...milan, ...hopper, "/dev/vfio/vfio": undefined }, withGpu, ["vfio-missing"]],
  ["a GPU without IOMMU or TEE", { ...milan, ...hopper, [iommu]: undefined }, noTee, ["iommu-off (reboot)"]],
  ["an empty file tree, for local", {}, local, []],
  ["AKS with its hypervisor", { ...common, "/dev/kvm": undefined, "/dev/mshv": "" }, aks, []],
  ["AKS without it", common, aks, ["mshv-missing"]],
];
