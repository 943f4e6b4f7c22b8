import { Refusal } from "../runtime/refusal.ts";
import { sha256, toHex } from "./bytes.ts";
import { guestPolicyFields } from "./id-block.ts";
import type { MeasurementInputs } from "./inputs.ts";
import { commandLineHash, digestBeforeVcpus, digestsByVcpus, type SnpLaunch } from "./snp.ts";
import { type MrtdOrder, rtmrs } from "./tdx.ts";
import { signatureOf, type Vmm } from "./vmsa.ts";

export interface ReferenceValues {
  /** One row per CPU model and vCPU count: both are part of an SNP launch digest. Hex. */
  snp: SnpReferenceValue[];
  /** RTMRs by index; null where the inputs do not define them. */
  tdx?: { mrtd: string; rtmrs: (string | null)[] };
  /** What a verifier will see and this table does not say, and why. */
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

export interface ReferenceOptions {
  tee: "snp" | "tdx" | "none";
  /** QEMU CPU models; see cpuModelsOf. */
  models?: readonly string[];
  vcpus?: readonly number[];
  vmm?: Vmm;
  mrtdOrder?: MrtdOrder;
}

/** Contrast's Kata chooses the model by the host, upstream always takes one (virtcontainers/qemu_amd64.go). */
export const cpuModelsOf = (flavour: string): string[] =>
  flavour === "contrast-go" ? ["EPYC-Milan", "EPYC-Genoa"] : ["EPYC-v4"];

/** A pod's CPU limit sets its vCPUs; verifiers that list values up front list these. */
export const usualVcpus = [1, 2, 3, 4, 5, 6, 7, 8] as const;

const productOf = (model: string): string | undefined => /^EPYC-(Milan|Genoa|Turin)\b/.exec(model)?.[1];

/** Computes every value that the inputs define; equal to what the files themselves give. Throws a Refusal when they fit no such guest. */
export function referenceValues(inputs: MeasurementInputs, options: ReferenceOptions): ReferenceValues {
  if (options.tee === "none") {
    return {
      snp: [],
      notPredictable: [{ name: "attestation", reason: "nothing is measured: this platform has no TEE" }],
    };
  }
  if (options.tee === "tdx") return tdxValues(inputs, options.mrtdOrder ?? "single-pass");
  return inputs.igvm === undefined ? snpValues(inputs, options) : igvmValues(inputs.igvm);
}

function igvmValues(igvm: NonNullable<MeasurementInputs["igvm"]>): ReferenceValues {
  return { snp: [{ vcpus: igvm.vcpus, measurement: igvm.launchDigest }], notPredictable: [] };
}

/** The launch that the inputs describe, ready for the digest; undefined where its command line is not known. */
export function snpLaunch(inputs: MeasurementInputs, vmm?: Vmm): SnpLaunch | undefined {
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
    ...(kernel === undefined
      ? {}
      : {
          kernel: {
            kernel: bytes(kernel.sha256),
            initrd: initrd === undefined ? sha256(new Uint8Array()) : bytes(initrd.sha256),
            commandLine: commandLineHash(commandLine ?? ""),
          },
        }),
  };
}

function snpValues(inputs: MeasurementInputs, options: ReferenceOptions): ReferenceValues {
  const launch = snpLaunch(inputs, options.vmm);
  if (launch === undefined) {
    return {
      snp: [],
      notPredictable: [
        {
          name: "SNP launch digest",
          reason: "it covers the kernel command line, which is not known for this Kata flavour",
        },
      ],
    };
  }
  const before = digestBeforeVcpus(launch);
  const vcpus = options.vcpus ?? usualVcpus;
  const most = Math.max(...vcpus);
  const snp = (options.models ?? ["EPYC-v4"]).flatMap((model) => {
    const row = digestsByVcpus(before, launch, signatureOf(model), most);
    const product = productOf(model);
    return vcpus.map((count) => ({
      model,
      ...(product === undefined ? {} : { product }),
      vcpus: count,
      measurement: toHex(row[count - 1] ?? new Uint8Array()),
    }));
  });
  return { snp, notPredictable: [] };
}

function tdxValues(inputs: MeasurementInputs, order: MrtdOrder): ReferenceValues {
  if (inputs.tdx === undefined) {
    throw new Refusal(
      "wrong-firmware",
      "The payload's firmware has no TDX metadata, so it cannot start a TDX guest. Use an OVMF built with TDX support.",
    );
  }
  const { values, notPredictable } = rtmrs({
    ...(inputs.commandLine === undefined ? {} : { commandLine: inputs.commandLine }),
    ...(inputs.initrd === undefined ? {} : { initrdSha384: Buffer.from(inputs.initrd.sha384, "hex") }),
  });
  const mrtd = order === "single-pass" ? inputs.tdx.mrtd.singlePass : inputs.tdx.mrtd.twoPass;
  return { snp: [], tdx: { mrtd, rtmrs: values }, notPredictable };
}

/** Features that a TD of Kata may use, as Contrast's manifests have them: bytes of XFAM, little-endian. */
export const usualXfam = "e702060000000000";

/**
 * `ReferenceValues` of Contrast's manifest (edgelesssys/contrast, internal/manifest/referencevalues.go). Minimum TCB
 * versions depend on the hosts, so they are what the user gives; null is "to be filled in", as Contrast's own
 * `generate` writes. TDX values that are not predictable stay empty, which Contrast refuses until they are filled in.
 */
export function contrastReferenceValues(
  values: ReferenceValues,
  options: { guestPolicy: bigint; minimumTcb?: { bootloader: number; tee: number; snp: number; microcode: number } },
): { snp?: object[]; tdx?: object[] } {
  const tcb = options.minimumTcb;
  const { PageSwapDisabled: _, ...policy } = guestPolicyFields(options.guestPolicy);
  const snp = values.snp.flatMap((row) =>
    // IGVM and models that run on any host are trusted for both products.
    (row.product === undefined ? ["Milan", "Genoa"] : [row.product]).map((product) => ({
      ProductName: product,
      TrustedMeasurement: row.measurement,
      MinimumTCB: {
        BootloaderVersion: tcb?.bootloader ?? null,
        TEEVersion: tcb?.tee ?? null,
        SNPVersion: tcb?.snp ?? null,
        MicrocodeVersion: tcb?.microcode ?? null,
      },
      GuestPolicy: policy,
      PlatformInfo: { SMTEnabled: true },
    })),
  );
  return {
    ...(snp.length === 0 ? {} : { snp }),
    ...(values.tdx === undefined
      ? {}
      : {
          tdx: [
            {
              MrTd: values.tdx.mrtd,
              MrSeam: "",
              Rtmrs: values.tdx.rtmrs.map((rtmr) => rtmr ?? ""),
              Xfam: usualXfam,
              MemoryIntegrity: false,
            },
          ],
        }),
  };
}

/**
 * Reference values under the names that Trustee's default policy for CPUs asks for (confidential-containers/trustee,
 * ear_default_policy_cpu.rego). The verifier has shown SNP measurements as base64 and, later, as hex: both stand in the
 * list, of which one has to match.
 */
export function trusteeReferenceValues(values: ReferenceValues, guestPolicy: bigint): Record<string, unknown> {
  const policy = guestPolicyFields(guestPolicy);
  const snp = values.snp.flatMap(({ measurement }) => [
    measurement,
    Buffer.from(measurement, "hex").toString("base64"),
  ]);
  return {
    ...(snp.length === 0
      ? {}
      : {
          snp_launch_measurement: snp,
          snp_guest_abi_major: policy.ABIMajor,
          snp_guest_abi_minor: policy.ABIMinor,
          snp_single_socket: policy.SingleSocket,
          snp_smt_allowed: policy.SMT,
        }),
    ...(values.tdx === undefined ? {} : { mr_td: [values.tdx.mrtd], xfam: [usualXfam] }),
    ...Object.fromEntries(
      (values.tdx?.rtmrs ?? []).flatMap((rtmr, index) => (rtmr === null ? [] : [[`rtmr_${index}`, [rtmr]]])),
    ),
  };
}

/** What `rvps-tool register --path` takes: the values for Trustee's "sample" extractor, base64 of their JSON. */
export const trusteeMessage = (
  values: Record<string, unknown>,
): { version: string; type: string; payload: string } => ({
  version: "0.1.0",
  type: "sample",
  payload: Buffer.from(JSON.stringify(values)).toString("base64"),
});
