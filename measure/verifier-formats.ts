import { guestPolicyFields } from "./id-block.ts";
import type { ReferenceValues } from "./reference-values.ts";

/** Features that Kata's TDs may use, as in Contrast's manifests: bytes of XFAM, little-endian. */
const usualXfam = "e702060000000000";

/**
 * `ReferenceValues` of Contrast's manifest (edgelesssys/contrast, internal/manifest/referencevalues.go). Minimum TCB
 * versions depend on the hosts, so the user gives them; null is "to be filled in", as Contrast's own
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
    ...(values.tdx.length === 0
      ? {}
      : {
          tdx: values.tdx.map(({ mrtd, rtmrs }) => ({
            MrTd: mrtd,
            MrSeam: "",
            Rtmrs: rtmrs.map((rtmr) => rtmr ?? ""),
            Xfam: usualXfam,
            MemoryIntegrity: false,
          })),
        }),
  };
}

const rtmrNames = ["rtmr_0", "rtmr_1", "rtmr_2", "rtmr_3"];
const unique = (values: (string | null | undefined)[]) =>
  [...new Set(values)].filter((value) => typeof value === "string");

/**
 * Reference values under the names that Trustee's default policy for CPUs asks for (confidential-containers/trustee,
 * ear_default_policy_cpu.rego). The verifier has shown SNP measurements as base64 and, later, as hex: the list has
 * both, and one of them must match.
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
    ...(values.tdx.length === 0 ? {} : { mr_td: unique(values.tdx.map((row) => row.mrtd)), xfam: [usualXfam] }),
    ...Object.fromEntries(
      rtmrNames
        .map((name, index) => [name, unique(values.tdx.map((row) => row.rtmrs[index]))] as const)
        .filter(([, list]) => list.length > 0),
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

/** Reference values as a table for people. Hex throughout. */
export interface ReferenceTable {
  /** Launch digest by CPU model ("IGVM" where the file holds the whole initial state), then by vCPU count. */
  snp?: Record<string, Record<string, string>>;
  /** By vCPU count; "any" where the count changes nothing. */
  tdx?: Record<string, Record<string, string>>;
  /** What a verifier will see but this table cannot predict: the reason by name. */
  notPredictable?: Record<string, string>;
}

export function referenceTable({ snp, tdx, notPredictable }: ReferenceValues): ReferenceTable {
  const models = [...new Set(snp.map(({ model = "IGVM" }) => model))];
  const digests = (of: string) =>
    snp.filter(({ model = "IGVM" }) => model === of).map(({ vcpus, measurement }) => [vcpus, measurement]);
  const registers = ({ mrtd, rtmrs }: ReferenceValues["tdx"][number]) => ({
    MRTD: mrtd,
    ...Object.fromEntries(rtmrs.flatMap((value, index) => (value === null ? [] : [[`RTMR${index}`, value]]))),
  });
  return {
    ...(snp.length > 0 && {
      snp: Object.fromEntries(models.map((model) => [model, Object.fromEntries(digests(model))])),
    }),
    ...(tdx.length > 0 && { tdx: Object.fromEntries(tdx.map((row) => [row.vcpus ?? "any", registers(row)])) }),
    ...(notPredictable.length > 0 && {
      notPredictable: Object.fromEntries(notPredictable.map(({ name, reason }) => [name, reason])),
    }),
  };
}
