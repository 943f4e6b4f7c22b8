import { cpuGeneration } from "./cpu-generations.ts";
import { error, type Finding, warning } from "./finding.ts";
import type { HostFacts } from "./host-facts.ts";

/** What the kernel writes for a parameter that is on: `Y`, or `1` in older kernels. */
const isOn = (value: string | undefined): boolean => value !== undefined && /^[Yy1]/.test(value);

const hasOption = ({ kernel }: HostFacts, option: RegExp): boolean =>
  kernel.commandLine.split(/\s+/).some((word) => option.test(word));

const bios = {
  snp: "enable SMEE, RMP table coverage of all memory, IOMMU and SEV-SNP Support, and give SEV-ES a part of the ASID space",
  tdx: "enable Total Memory Encryption with multi-tenancy (TME-MT), TDX with a non-zero key split, the SEAM loader and SGX, and populate the memory slots of each socket alike",
};

/** A `1` is not as good as a `Y`, because Kata's Go runtime looks for exactly that letter. */
const digitWarning = (parameter: string): Finding =>
  warning(
    "parameter-digit",
    `${parameter} reads "1" instead of "Y": Kata's Go runtime takes that as "not available". Newer kernels write Y.`,
  );

const wrongCpu = ({ cpu }: HostFacts, tee: "snp" | "tdx"): Finding | undefined => {
  const generation = cpuGeneration(cpu);
  const [vendor, name, needs] =
    tee === "snp"
      ? ["AuthenticAMD", "SEV-SNP", "an AMD EPYC 7003 (Milan) or newer"]
      : ["GenuineIntel", "TDX", "a 5th generation Intel Xeon, a Xeon 6 or newer"];
  if (cpu.vendor === vendor && (generation === undefined || generation.tee === tee)) return undefined;
  const what = generation?.name ?? `of vendor "${cpu.vendor || "unknown"}"`;
  return error(
    `cpu-without-${tee}`,
    `${name} needs ${needs}, but this node's CPU is ${what}: take the node out of the group.`,
  );
};

/** SEV-SNP as the kernel's kvm_amd reports it; if it is off, every cause that can be seen from here. */
export function checkSnp(facts: HostFacts): Finding[] {
  const cpu = wrongCpu(facts, "snp");
  if (cpu !== undefined) return [cpu];
  const { parameters, misc, devices } = facts;
  const parameter = parameters["kvm_amd.sev_snp"];
  if (!isOn(parameter)) return whySnpIsOff(facts);
  const findings: Finding[] = [];
  if (parameter?.startsWith("1")) findings.push(digitWarning("/sys/module/kvm_amd/parameters/sev_snp"));
  if (misc.sev_es === 0) {
    findings.push(
      error(
        "no-snp-asids",
        'No ASIDs are left for SEV-SNP VMs: in the BIOS, set "SEV-ES ASID Space Limit Control" to manual and the limit to more than 1, such as 100.',
        true,
      ),
    );
  }
  if (!devices.includes("sev")) {
    findings.push(
      error(
        "sev-device-missing",
        '/dev/sev, which starts SEV-SNP VMs, is missing: run "modprobe ccp" and add it to a file in /etc/modules-load.d.',
      ),
    );
  }
  return findings;
}

/** The rules on the IOMMU come from the kernel's iommu_snp_enable() in drivers/iommu/amd/init.c. */
function whySnpIsOff(facts: HostFacts): Finding[] {
  const { modules, parameters, iommu, kernel } = facts;
  if (!modules.includes("kvm_amd")) {
    return [
      error(
        "kvm-amd-missing",
        'The module kvm_amd is not loaded: run "modprobe kvm_amd sev=1 sev_snp=1"; if that fails, enable SVM Mode in the BIOS.',
      ),
    ];
  }
  if (!("kvm_amd.sev_snp" in parameters)) {
    return [
      error(
        "kernel-without-snp",
        `Kernel ${kernel.release} cannot host SEV-SNP VMs: boot 6.11 or newer (or a distribution's kernel with the patches) with CONFIG_KVM_AMD_SEV.`,
        true,
      ),
    ];
  }
  const findings: Finding[] = [];
  if (hasOption(facts, /^(amd_iommu=off|iommu=off)$/) || iommu.devices.length === 0) {
    findings.push(
      error(
        "iommu-off",
        "The IOMMU is off, so the kernel turns SEV-SNP off too: enable it in the BIOS, and remove iommu=off and amd_iommu=off from the kernel's command line.",
        true,
      ),
    );
  } else if (hasOption(facts, /^(iommu=pt|iommu\.passthrough=(1|y|Y))$/) || iommu.domain === "identity") {
    findings.push(
      error(
        "iommu-passthrough",
        "The IOMMU passes DMA through untranslated, so the kernel turns SEV-SNP off: remove iommu=pt from the kernel's command line, or add iommu=nopt if passthrough is the kernel's default.",
        true,
      ),
    );
  }
  if (hasOption(facts, /^amd_iommu=(.*,)?pgtbl_v2(,.*)?$/)) {
    findings.push(
      error(
        "iommu-page-tables",
        "The IOMMU uses version 2 page tables, so the kernel turns SEV-SNP off: remove amd_iommu=pgtbl_v2 from its command line.",
        true,
      ),
    );
  }
  if (hasOption(facts, /^kvm[-_]amd\.sev([-_]snp)?=(0|n|N)$/) || hasOption(facts, /^mem_encrypt=off$/)) {
    findings.push(
      error(
        "snp-switched-off",
        "The kernel's command line turns SEV-SNP off: remove kvm_amd.sev=0, kvm_amd.sev_snp=0 and mem_encrypt=off from it.",
        true,
      ),
    );
  }
  if (findings.length > 0) return findings;
  return [
    error(
      "snp-off",
      `SEV-SNP is off (kvm_amd.sev_snp is ${parameters["kvm_amd.sev_snp"]}): in the BIOS, ${bios.snp}; then "dmesg | grep -i sev" shows what is still missing.`,
      true,
    ),
  ];
}

/** TDX as the kernel's kvm_intel reports it; if it is off, why. */
export function checkTdx(facts: HostFacts): Finding[] {
  const cpu = wrongCpu(facts, "tdx");
  if (cpu !== undefined) return [cpu];
  const { parameters, misc, quoteService } = facts;
  const parameter = parameters["kvm_intel.tdx"];
  if (!isOn(parameter)) return [whyTdxIsOff(facts)];
  const findings: Finding[] = [];
  if (parameter?.startsWith("1")) findings.push(digitWarning("/sys/module/kvm_intel/parameters/tdx"));
  if (misc.tdx === 0) {
    findings.push(
      error(
        "no-tdx-keys",
        "No private keys are left for TDX VMs: in the BIOS, give TDX a larger part of the TME-MT/TDX key split.",
        true,
      ),
    );
  }
  if (parameters["kvm_intel.sgx"] !== undefined && !isOn(parameters["kvm_intel.sgx"])) {
    findings.push(
      warning(
        "sgx-off",
        "SGX is off, and no TDX quote can be signed without it: enable SW Guard Extensions in the BIOS.",
      ),
    );
  }
  if (!quoteService) {
    findings.push(
      warning(
        "quote-service-missing",
        "Intel's quote generation service (tdx-qgs, unit qgsd) is not installed: TDX VMs start here but cannot be attested.",
      ),
    );
  }
  return findings;
}

function whyTdxIsOff(facts: HostFacts): Finding {
  const { modules, parameters, cpu, kernel } = facts;
  if (!cpu.flags.includes("tdx_host_platform")) {
    return error(
      "tdx-not-in-bios",
      `The kernel sees no TDX (no tdx_host_platform in /proc/cpuinfo): in the BIOS, ${bios.tdx}; kernels before 6.8 do not look for it.`,
      true,
    );
  }
  if (!modules.includes("kvm_intel")) {
    return error(
      "kvm-intel-missing",
      'The module kvm_intel is not loaded: run "modprobe kvm_intel tdx=1"; if that fails, enable VT-x in the BIOS.',
    );
  }
  if (!("kvm_intel.tdx" in parameters)) {
    return error(
      "kernel-without-tdx",
      `Kernel ${kernel.release} cannot host TDX VMs: boot 6.16 or newer, or a distribution's kernel with the patches.`,
      true,
    );
  }
  const on = /^kvm[-_]intel\.tdx=(1|y|Y)$/;
  if (!hasOption(facts, on) || !hasOption(facts, /^nohibernate$/)) {
    return error(
      "tdx-not-switched-on",
      'KVM does not use TDX: add "kvm_intel.tdx=1 nohibernate" to the kernel\'s command line.',
      true,
    );
  }
  return error(
    "tdx-module-failed",
    'TDX is enabled, but its module did not start: "dmesg | grep -i tdx" shows why; a BIOS or microcode update usually helps.',
    true,
  );
}
