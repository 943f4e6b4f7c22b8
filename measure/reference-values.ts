import type { MeasurementInputs } from "../runtime/measurement-inputs.ts";
import type { Tee } from "../runtime/platforms.ts";
import { Refusal } from "../runtime/refusal.ts";
import { rawSha256, toHex } from "./bytes.ts";
import { vcpuPlaceholder, withVcpus } from "./kata-kernel-command-line.ts";
import {
  commandLineHash,
  digestBeforeVcpus,
  digestsByVcpus,
  digestWithVcpus,
  type SnpLaunch,
  vcpuAreas,
} from "./snp.ts";
import { type MrtdOrder, rtmrs, type TdxEvents } from "./tdx.ts";
import { signatureOf, type Vmm } from "./vmsa.ts";

export interface ReferenceValues {
  /** One row per CPU model and vCPU count: both are part of an SNP launch digest. Hex. */
  snp: SnpReferenceValue[];
  /** One row, or one per vCPU count if RTMR0 is known by count or the command line contains the count. */
  tdx: TdxReferenceValue[];
  /** What a verifier will see but this table cannot predict, and why. */
  notPredictable: { name: string; reason: string }[];
}

export interface SnpReferenceValue {
  /** QEMU's CPU model; absent for IGVM, whose file holds the whole initial state. */
  model?: string;
  /** AMD's name of the host generation that runs this model, as in certificates; absent where any can. */
  product?: string;
  vcpus: number;
  measurement: string;
}

export interface TdxReferenceValue {
  /** Absent: the same for any number. */
  vcpus?: number;
  mrtd: string;
  /** By index; null where the inputs do not define them. Hex. */
  rtmrs: (string | null)[];
  events: TdxEvents;
}

export interface ReferenceOptions {
  tee: Tee;
  /** QEMU CPU models; see cpuModelsOf. */
  models?: readonly string[];
  vcpus?: readonly number[];
  vmm?: Vmm;
  mrtdOrder?: MrtdOrder;
}

/** Contrast's Kata chooses the model by the host, upstream always uses the same one (virtcontainers/qemu_amd64.go). */
export const cpuModelsOf = (flavour: string): string[] =>
  flavour === "contrast-go" ? ["EPYC-Milan", "EPYC-Genoa"] : ["EPYC-v4"];

/** A pod's CPU limit sets its vCPUs; verifiers that list values in advance list them for these counts. */
export const usualVcpus = [1, 2, 3, 4, 5, 6, 7, 8] as const;
/** Of a pod with a limit of one CPU, which Kata adds its own to: the example where only one count is shown. */
export const exampleVcpus = 2;

const productOf = (model: string): string | undefined => /^EPYC-(Milan|Genoa|Turin)\b/.exec(model)?.[1];

/** Computes every value that the inputs define, equal to what the files give. Throws a Refusal if they fit no such guest. */
export function referenceValues(inputs: MeasurementInputs, options: ReferenceOptions): ReferenceValues {
  if (options.tee === "none") {
    return {
      snp: [],
      tdx: [],
      notPredictable: [{ name: "attestation", reason: "nothing is measured: this platform has no TEE" }],
    };
  }
  if (options.tee === "tdx") return tdxValues(inputs, options);
  return inputs.igvm === undefined ? snpValues(inputs, options) : igvmValues(inputs.igvm);
}

function igvmValues(igvm: NonNullable<MeasurementInputs["igvm"]>): ReferenceValues {
  return { snp: [{ vcpus: igvm.vcpus, measurement: igvm.launchDigest }], tdx: [], notPredictable: [] };
}

/** The launch that the inputs describe, ready for the digest; undefined if its command line is not known. */
function snpLaunch(inputs: MeasurementInputs, vcpus: number, vmm?: Vmm): SnpLaunch | undefined {
  const { snp, kernel, initrd, commandLine } = inputs;
  if (snp === undefined) {
    throw new Refusal(
      "wrong-firmware",
      "The payload's firmware has no SEV metadata, so it cannot start an SEV-SNP guest. Use an OVMF built from OvmfPkg/AmdSev.",
    );
  }
  if (kernel !== undefined && commandLine === undefined) return undefined;
  const bytes = (text: string) => Buffer.from(text, "hex");
  return {
    firmwareDigest: bytes(snp.firmwareDigest),
    sections: snp.sections,
    ...(snp.hashTableGpa === undefined ? {} : { hashTableGpa: snp.hashTableGpa }),
    resetEip: snp.resetEip,
    guestFeatures: snp.guestFeatures,
    ...(vmm === undefined ? {} : { vmm }),
    ...(kernel === undefined || commandLine === undefined
      ? {}
      : {
          kernel: {
            kernel: bytes(kernel.sha256),
            initrd: initrd === undefined ? rawSha256(new Uint8Array()) : bytes(initrd.sha256),
            commandLine: commandLineHash(withVcpus(commandLine, vcpus)),
          },
        }),
  };
}

function snpValues(inputs: MeasurementInputs, options: ReferenceOptions): ReferenceValues {
  const vcpus = options.vcpus ?? usualVcpus;
  const launch = snpLaunch(inputs, 1, options.vmm);
  if (launch === undefined) return { snp: [], tdx: [], notPredictable: [unknownCommandLine("SNP launch digest")] };
  // If the command line contains the count, everything before the vCPUs differs for each count as well.
  const varies = inputs.commandLine?.includes(vcpuPlaceholder) === true;
  const before = digestBeforeVcpus(launch);
  const befores = varies
    ? vcpus.map((count) => digestBeforeVcpus(snpLaunch(inputs, count, options.vmm) ?? launch))
    : vcpus.map(() => before);
  const snp = (options.models ?? ["EPYC-v4"]).flatMap((model) => {
    const areas = vcpuAreas(launch, signatureOf(model));
    const product = productOf(model);
    const row = varies ? [] : digestsByVcpus(before, areas, Math.max(1, ...vcpus));
    return vcpus.map((count, index) => ({
      model,
      ...(product === undefined ? {} : { product }),
      vcpus: count,
      measurement: toHex(row[count - 1] ?? digestWithVcpus(befores[index] ?? before, areas, count)),
    }));
  });
  return { snp, tdx: [], notPredictable: [] };
}

const unknownCommandLine = (name: string) => ({
  name,
  reason: "covers the kernel command line, which is not known for this Kata: give it to the lock command",
});

/** @throws Refusal for firmware that starts no TDX guest */
function tdxValues(inputs: MeasurementInputs, options: ReferenceOptions): ReferenceValues {
  const { commandLine, initrd, tdx } = inputs;
  if (tdx === undefined) {
    throw new Refusal(
      "wrong-firmware",
      "The payload's firmware has no TDX metadata, so it cannot start a TDX guest. Use an OVMF built with TDX support.",
    );
  }
  const mrtd = options.mrtdOrder === "two-pass" ? tdx.mrtd.twoPass : tdx.mrtd.singlePass;
  const kernel = measuredKernel(inputs);
  const row = (count: number) => {
    const { values, events } = rtmrs({
      rtmr0: tdx.rtmr0?.[count],
      kernel: kernel.digest,
      ...(commandLine === undefined ? {} : { commandLine: withVcpus(commandLine, count) }),
      ...(initrd === undefined ? {} : { initrdSha384: Buffer.from(initrd.sha384, "hex") }),
    });
    return { mrtd, rtmrs: values, events };
  };
  const vcpus = options.vcpus ?? usualVcpus;
  const varies = tdx.rtmr0 !== undefined || commandLine?.includes(vcpuPlaceholder) === true;
  const without = vcpus.filter((count) => tdx.rtmr0?.[count] === undefined);
  return {
    snp: [],
    tdx: varies ? vcpus.map((count) => ({ vcpus: count, ...row(count) })) : [row(1)],
    notPredictable: [
      ...(without.length === 0 ? [] : [unknownRtmr0(without, vcpus)]),
      ...(kernel.reason === undefined ? [] : [{ name: "RTMR1", reason: kernel.reason }]),
      ...(commandLine === undefined ? [unknownCommandLine("RTMR2")] : []),
    ],
  };
}

const unknownRtmr0 = (without: readonly number[], all: readonly number[]) => ({
  name: "RTMR0",
  reason: `holds what QEMU and the firmware make of memory, vCPUs and devices (memory map, ACPI and SMBIOS tables), which no file defines${
    without.length === all.length ? "" : `; for ${without.join(", ")} vCPUs nobody gave it`
  }: take it from a guest that you trust (--rtmr0)`,
});

/** The kernel's digest in RTMR1, or why it is not known. */
function measuredKernel({ kernel, tdx, vmm }: MeasurementInputs): { digest?: Buffer; reason?: string } {
  if (kernel?.efiStub === false)
    return { reason: "holds the kernel, which is no EFI executable that OVMF could start" };
  if (kernel?.authenticode === undefined || tdx?.bootFiles === undefined || vmm === undefined)
    return {
      reason: "covers the kernel and how QEMU passes it on, of which this manifest says too little: lock again",
    };
  if (tdx.bootFiles && vmm.bootFiles) return { digest: Buffer.from(kernel.authenticode, "hex") };
  return {
    reason: `holds the kernel as QEMU patched it, with an address that depends on memory size: ${
      vmm.bootFiles
        ? "this firmware takes no other (edk2 does from stable202502 on)"
        : "this QEMU offers no other (10.0 and later do)"
    }`,
  };
}
