import {
  all,
  any,
  bootedWith,
  flag,
  keysFor,
  module,
  noGenerationWithout,
  not,
  on,
  onlySomeHave,
  present,
  quoteService,
  vendor,
} from "./conditions.ts";
import { digitIsNotEnough } from "./kvm.ts";
import type { Table } from "./table.ts";

const parameter = "kvm_intel.tdx";
const bios =
  "enable Total Memory Encryption with multi-tenancy (TME-MT), TDX with a non-zero key split, the SEAM loader and SGX, and populate the memory slots of each socket alike";

/** TDX as the kernel's kvm_intel reports it; if it is off, why. Sources: canonical/tdx's checks and the kernel's messages. */
export const tdx: Table = [
  [
    {
      code: "cpu-without-tdx",
      wanted: all(vendor("GenuineIntel"), noGenerationWithout("tdx")),
      problem: "TDX needs a 5th generation Intel Xeon, a Xeon 6 or newer, but this node's CPU is {cpu}",
      remedy: "take the node out of the group",
    },
  ],
  [
    {
      code: "cpu-may-lack-tdx",
      wanted: any(on(parameter), flag("tdx_host_platform"), not(onlySomeHave("tdx"))),
      problem:
        "The kernel sees no TDX (no tdx_host_platform in /proc/cpuinfo), and of this CPU, {cpu}, only models made for some clouds have it",
      remedy: `if the BIOS does not offer TDX, take the node out of the group; if it does, ${bios}; kernels before 6.8 do not look for it`,
      needsReboot: true,
    },
    {
      code: "tdx-not-in-bios",
      wanted: any(on(parameter), flag("tdx_host_platform"), onlySomeHave("tdx")),
      problem: "The kernel sees no TDX (no tdx_host_platform in /proc/cpuinfo)",
      remedy: `in the BIOS, ${bios}; kernels before 6.8 do not look for it`,
      needsReboot: true,
    },
  ],
  [
    {
      code: "kvm-intel-missing",
      wanted: module("kvm_intel"),
      problem: "The module kvm_intel is not loaded",
      remedy: 'run "modprobe kvm_intel tdx=1"; if that fails, enable VT-x in the BIOS',
    },
  ],
  [
    {
      code: "kernel-without-tdx",
      wanted: present(parameter),
      problem: "Kernel {kernel} cannot host TDX VMs",
      remedy: "boot 6.16 or newer, or a distribution's kernel with the patches",
      needsReboot: true,
    },
  ],
  [
    {
      code: "tdx-not-switched-on",
      wanted: any(on(parameter), all(bootedWith("kvm[-_]intel\\.tdx=[1yY]"), bootedWith("nohibernate"))),
      problem: "KVM does not use TDX",
      remedy: 'add "kvm_intel.tdx=1 nohibernate" to the kernel\'s command line',
      needsReboot: true,
    },
  ],
  [
    {
      code: "tdx-module-failed",
      wanted: on(parameter),
      problem: "TDX is enabled, but its module did not start",
      remedy: '"dmesg | grep -i tdx" shows why; a BIOS or microcode update usually helps',
      needsReboot: true,
    },
  ],
  [
    digitIsNotEnough(parameter),
    {
      code: "no-tdx-keys",
      wanted: keysFor("tdx"),
      problem: "No private keys are left for TDX VMs",
      remedy: "in the BIOS, give TDX a larger part of the TME-MT/TDX key split",
      needsReboot: true,
    },
    {
      code: "sgx-off",
      severity: "warning",
      wanted: any(not(present("kvm_intel.sgx")), on("kvm_intel.sgx")),
      problem: "SGX is off, and no TDX quote can be signed without it",
      remedy: "enable SW Guard Extensions in the BIOS",
    },
    {
      code: "quote-service-missing",
      severity: "warning",
      wanted: quoteService,
      problem: "Intel's quote generation service (tdx-qgs, unit qgsd) is not installed",
      remedy: "TDX VMs start here but cannot be attested",
    },
  ],
];
