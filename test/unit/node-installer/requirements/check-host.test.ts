import { describe, expect, test } from "vitest";
import { checkHost, gatherHostFacts, hostFactsSchema } from "../../../../node-installer/requirements/check-host.ts";
import { cpuGeneration } from "../../../../node-installer/requirements/cpu-generations.ts";
import { goDuration } from "../../../../node-installer/requirements/kubelet-configuration.ts";
import { platforms } from "../../../../runtime/platforms.ts";
import type { HostRequirements } from "../../../../runtime/spec.ts";
import { MemoryHost } from "../../../fakes/memory-host.ts";

type Files = Record<string, string | undefined>;

const mountinfo = "22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw\n23 22 8:2 / /opt rw,relatime - xfs /dev/sdb1 rw\n";
const cpuinfo = (vendor: string, family: number, model: number, flags: string) =>
  [0, 1]
    .map(
      (n) =>
        `processor\t: ${n}\nvendor_id\t: ${vendor}\ncpu family\t: ${family}\nmodel\t\t: ${model}\nflags\t\t: fpu ${flags}\n`,
    )
    .join("\n");

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
const milan: Files = {
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

const snp = platforms["metal-qemu-snp"].host;
const tdx = platforms["metal-qemu-tdx"].host;
const local = platforms.local.host;

const gather = (files: Files) => {
  const present = Object.entries(files).filter((entry): entry is [string, string] => entry[1] !== undefined);
  return gatherHostFacts(new MemoryHost({ files: Object.fromEntries(present) }), ["/etc/containerd", "/opt"]);
};
const codes = async (files: Files, requirements: HostRequirements) =>
  checkHost(await gather(files), [requirements]).map(({ code, severity, needsReboot }) =>
    [severity === "warning" ? "warning:" : "", code, needsReboot ? " (reboot)" : ""].join(""),
  );

describe("hosts", () => {
  const cmdline = (options: string): Files => ({ "/proc/cmdline": `root=/dev/sda1 ro ${options}\n` });
  const cases: [string, Files, HostRequirements, string[]][] = [
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
    ["a Xeon in an SNP group", emerald, snp, ["cpu-without-snp"]],
    [
      "an AMD CPU newer than the table",
      { ...milan, "/proc/cpuinfo": cpuinfo("AuthenticAMD", 27, 1, "svm sev_snp") },
      snp,
      [],
    ],
    [
      "a virtual machine",
      { ...milanOff, "/proc/cpuinfo": cpuinfo("AuthenticAMD", 25, 1, ""), "/dev/kvm": undefined },
      snp,
      ["virtualization-off (reboot)", "snp-off (reboot)"],
    ],
    [
      "an ARM server",
      { ...common, "/proc/cpuinfo": "processor: 0\nCPU implementer: 0x41\n" },
      snp,
      ["cpu-unsupported", "cpu-without-snp"],
    ],
    [
      "no vhost modules",
      { ...milan, "/dev/vhost-vsock": undefined, "/dev/vhost-net": undefined },
      snp,
      ["vhost-vsock-missing", "vhost-net-missing"],
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
    [
      "TDX without nohibernate",
      { ...emeraldOff, ...cmdline("kvm_intel.tdx=1") },
      tdx,
      ["tdx-not-switched-on (reboot)"],
    ],
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
    [
      "Ice Lake in a TDX group",
      { ...emeraldOff, "/proc/cpuinfo": cpuinfo("GenuineIntel", 6, 106, "vmx") },
      tdx,
      ["tdx-not-in-bios (reboot)"],
    ],
    ["an EPYC in a TDX group", milan, tdx, ["cpu-without-tdx"]],
    ["anything at all, for local", { "/proc/self/mountinfo": mountinfo }, local, []],
    ["an empty file tree, for local", {}, local, []],
    [
      "AKS with the Microsoft hypervisor",
      { ...common, "/dev/kvm": undefined, "/dev/mshv": "" },
      platforms["aks-clh-snp"].host,
      [],
    ],
    ["AKS without it", common, platforms["aks-clh-snp"].host, ["mshv-missing"]],
  ];
  test.each(cases)("%s", async (_, files, requirements, expected) => {
    expect(await codes(files, requirements)).toEqual(expected);
  });
});

describe("GPUs", () => {
  const device = "/sys/bus/pci/devices/0000:21:00.0";
  const files: Files = {
    ...milan,
    [`${device}/vendor`]: "0x10de\n",
    [`${device}/class`]: "0x030200\n",
    "/dev/vfio/vfio": "",
    "/sys/bus/pci/drivers/vfio-pci/module/version": "1",
    "/sys/bus/pci/drivers/nvidia/module/version": "1",
  };
  const check = async (driver: string | undefined, rest: Files = {}) => {
    const present = Object.entries({ ...files, ...rest }).filter(
      (entry): entry is [string, string] => entry[1] !== undefined,
    );
    const host = new MemoryHost({ files: Object.fromEntries(present) });
    if (driver !== undefined) host.link(`${device}/driver`, `../../drivers/${driver}`);
    const facts = await gatherHostFacts(host, []);
    return checkHost(facts, [platforms["metal-qemu-snp-gpu"].host]).map(({ code }) => code);
  };
  test("bound to vfio-pci", async () => expect(await check("vfio-pci")).toEqual([]));
  test("taken by NVIDIA's driver", async () => expect(await check("nvidia")).toEqual(["gpu-not-bound"]));
  test("without a driver", async () => expect(await check(undefined)).toEqual(["gpu-not-bound"]));
  test("two of them, each with its own sentence", async () => {
    const other = device.replace("21", "22");
    const second = { [`${other}/vendor`]: "0x10de\n", [`${other}/class`]: "0x030200\n" };
    expect(await check("nvidia", second)).toEqual(["gpu-not-bound", "gpu-not-bound"]);
  });
  test("none", async () =>
    expect(await check(undefined, { [`${device}/class`]: "0x020000\n" })).toEqual(["gpu-missing"]));
});

test("every sentence names the value that is wrong and says what to do", async () => {
  const facts = await gather({ ...milan, "/proc/sys/fs/inotify/max_user_instances": "128\n", "/dev/sev": undefined });
  expect(checkHost(facts, [snp]).map(({ message }) => message)).toEqual([
    '/dev/sev, which starts SEV-SNP VMs, is missing: run "modprobe ccp" and add it to a file in /etc/modules-load.d.',
    "fs.inotify.max_user_instances is 128, which a few VMs exhaust: set it to 8192 in a file in /etc/sysctl.d.",
  ]);
});

test("facts survive a bundle, and contain none of the files they come from", async () => {
  const facts = await gather({ ...milan, "/etc/kubernetes/kubelet.conf": "token: secret" });
  const text = JSON.stringify(facts);
  expect(hostFactsSchema.parse(JSON.parse(text))).toEqual(facts);
  expect(text).not.toContain("secret");
});

test("several runtimes on one node: each finding once", async () => {
  const facts = await gather({ ...milan, "/dev/sev": undefined });
  expect(checkHost(facts, [snp, snp]).map(({ code }) => code)).toEqual(["sev-device-missing"]);
});

test.each([
  ["AuthenticAMD", 25, 17, "EPYC 9004 (Genoa)"],
  ["AuthenticAMD", 25, 160, "EPYC 97x4 or 8004 (Bergamo, Siena)"],
  ["AuthenticAMD", 26, 2, "EPYC 9005 (Turin)"],
  ["AuthenticAMD", 26, 17, "EPYC 9005 (Turin)"],
  ["AuthenticAMD", 23, 49, "EPYC 7001 or 7002 (Naples, Rome)"],
  ["GenuineIntel", 6, 207, "5th generation Xeon (Emerald Rapids)"],
  ["GenuineIntel", 6, 173, "Xeon 6 (Granite Rapids)"],
  ["GenuineIntel", 25, 1, undefined],
])("%s family %i model %i", (vendor, family, model, name) => {
  expect(cpuGeneration({ vendor, family, model })?.name).toBe(name);
});

test.each([
  ["5m0s", 300],
  ["1.5h", 5400],
  ["120s", 120],
  ["1500ms", 1.5],
  ["5", undefined],
  ["", undefined],
  ["5m x", undefined],
])("Go's duration %j", (text, seconds) => {
  expect(goDuration(text)).toBe(seconds);
});
