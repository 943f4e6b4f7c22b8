import {
  all,
  any,
  anyIommu,
  bootedWith,
  device,
  iommuPassesThrough,
  keysFor,
  module,
  modulesPrepared,
  noGenerationWithout,
  not,
  on,
  present,
  vendor,
} from "./conditions.ts";
import { digitIsNotEnough } from "./kvm.ts";
import type { Table } from "./table.ts";

const parameter = "kvm_amd.sev_snp";
const iommuOff = any(bootedWith("amd_iommu=off|iommu=off"), not(anyIommu));
const passthrough = any(bootedWith("iommu=pt|iommu\\.passthrough=[1yY]"), iommuPassesThrough);
const bios =
  "enable SMEE, RMP table coverage of all memory, IOMMU and SEV-SNP Support, and give SEV-ES a part of the ASID space";

/**
 * SEV-SNP as the kernel's kvm_amd reports it; if it is off, every cause that can be seen from here. Sources: Kata's and
 * snphost's checks, and for the IOMMU the kernel's iommu_snp_enable() in drivers/iommu/amd/init.c.
 */
export const snp: Table = [
  [
    {
      code: "cpu-without-snp",
      wanted: all(vendor("AuthenticAMD"), noGenerationWithout("snp")),
      problem: "SEV-SNP needs an AMD EPYC 7003, 8004, 9004 or newer, but this node's CPU is {cpu}",
      remedy: "take the node out of the group",
    },
  ],
  [
    {
      code: "kvm-amd-missing",
      wanted: module("kvm_amd"),
      problem: "The module kvm_amd is not loaded",
      remedy: 'run "modprobe kvm_amd sev=1 sev_snp=1"; if that fails, enable SVM Mode in the BIOS',
    },
  ],
  [
    {
      code: "kernel-without-snp",
      wanted: present(parameter),
      problem: "Kernel {kernel} cannot host SEV-SNP VMs",
      remedy: "boot 6.11 or newer (or a distribution's kernel with the patches) with CONFIG_KVM_AMD_SEV",
      needsReboot: true,
    },
  ],
  [
    {
      code: "iommu-off",
      wanted: any(on(parameter), not(iommuOff)),
      problem: "The IOMMU is off, so the kernel turns SEV-SNP off too",
      remedy: "enable it in the BIOS, and remove iommu=off and amd_iommu=off from the kernel's command line",
      needsReboot: true,
    },
    {
      code: "iommu-passthrough",
      wanted: any(on(parameter), iommuOff, not(passthrough)),
      problem: "The IOMMU passes DMA through untranslated, so the kernel turns SEV-SNP off",
      remedy:
        "remove iommu=pt from the kernel's command line, or add iommu=nopt if passthrough is the kernel's default",
      needsReboot: true,
    },
    {
      code: "iommu-page-tables",
      wanted: any(on(parameter), not(bootedWith("amd_iommu=(.*,)?pgtbl_v2(,.*)?"))),
      problem: "The IOMMU uses version 2 page tables, so the kernel turns SEV-SNP off",
      remedy: "remove amd_iommu=pgtbl_v2 from its command line",
      needsReboot: true,
    },
    {
      code: "snp-switched-off",
      wanted: any(on(parameter), not(bootedWith("kvm[-_]amd\\.sev([-_]snp)?=[0nN]|mem_encrypt=off"))),
      problem: "The kernel's command line turns SEV-SNP off",
      remedy: "remove kvm_amd.sev=0, kvm_amd.sev_snp=0 and mem_encrypt=off from it",
      needsReboot: true,
    },
  ],
  [
    {
      code: "snp-not-active-yet",
      wanted: any(on(parameter), not(modulesPrepared)),
      problem: "SEV-SNP is switched on for kvm_amd and not active yet (kvm_amd.sev_snp is {sev_snp})",
      remedy: `reboot the host; if that does not help, in the BIOS, ${bios}`,
      needsReboot: true,
    },
  ],
  [
    {
      code: "snp-off",
      wanted: on(parameter),
      problem: "SEV-SNP is off (kvm_amd.sev_snp is {sev_snp})",
      remedy: `in the BIOS, ${bios}; then "dmesg | grep -i sev" shows what is still missing`,
      needsReboot: true,
    },
  ],
  [
    digitIsNotEnough(parameter),
    {
      code: "no-snp-asids",
      wanted: keysFor("sev_es"),
      problem: "No ASIDs are left for SEV-SNP VMs",
      remedy: 'in the BIOS, set "SEV-ES ASID Space Limit Control" to manual and the limit to more than 1, such as 100',
      needsReboot: true,
    },
    {
      code: "sev-device-missing",
      wanted: device("sev"),
      problem: "/dev/sev, which starts SEV-SNP VMs, is missing",
      remedy: 'run "modprobe ccp" and add it to a file in /etc/modules-load.d',
    },
  ],
];
