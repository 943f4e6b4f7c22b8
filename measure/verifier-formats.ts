import type { PlatformName } from "../runtime/spec.ts";
import { guestPolicyFields } from "./guest-policy.ts";
import type { HostValues, SnpTcb } from "./host-values.ts";
import type { ReferenceValues, SnpReferenceValue, TdxReferenceValue } from "./reference-values.ts";

/**
 * Features that TDs of Kata use, by what their hosts' CPUs have: x87, SSE, AVX, AVX-512, PKU and AMX (bits 0 to 2, 5 to 7,
 * 9, 17, 18 of XFAM, little-endian) on every CPU with TDX; on newer ones, with newer KVM, CET as well (bits 11 and 12).
 */
const xfams = { withoutCet: "e702060000000000", withCet: "e71a060000000000" };

/** Platforms as Contrast prints them, and as patches of its manifests test for them. */
const contrastName = (platform: PlatformName) =>
  platform
    .split("-")
    .map((word) => (word === "metal" ? "Metal" : word.toUpperCase()))
    .join("-");

interface ContrastOptions {
  platform: PlatformName;
  guestPolicy: bigint;
  hosts?: HostValues;
}

/**
 * `ReferenceValues` of Contrast's manifest (edgelesssys/contrast, internal/manifest/referencevalues.go). What depends on the
 * hosts is null or empty where it is not given: "to be filled in", as Contrast's own `generate` writes; so are registers
 * that are not predictable. Contrast refuses both until they are filled in.
 */
export function contrastReferenceValues(
  values: ReferenceValues,
  { platform, guestPolicy, hosts = {} }: ContrastOptions,
): { snp?: object[]; tdx?: object[] } {
  const common = { Platform: contrastName(platform) };
  const { PageSwapDisabled: _, ...policy } = guestPolicyFields(guestPolicy);
  const { smt = true, tsme, chipIds, mitigationVector } = hosts;
  const snp = values.snp.flatMap((row) =>
    productsOf(row).map((product) => ({
      ...common,
      ProductName: product,
      TrustedMeasurement: row.measurement,
      MinimumTCB: contrastTcb(hosts.snpTcb?.find((tcb) => tcb.product === undefined || tcb.product === product)),
      GuestPolicy: policy,
      // What may be on, not what must be.
      PlatformInfo: { SMTEnabled: smt, ...(tsme === undefined ? {} : { TSMEEnabled: tsme }) },
      ...(mitigationVector === undefined ? {} : { MinimumMitigationVector: mitigationVector }),
      ...(chipIds === undefined ? {} : { AllowedChipIDs: chipIds }),
      CPUs: row.vcpus,
    })),
  );
  const tdx = alike(values.tdx).flatMap(({ counts, row, rtmr0 }) =>
    (hosts.mrSeam ?? [""]).map((mrSeam) => {
      const [first = "", ...others] = rtmr0;
      return {
        ...common,
        MrTd: row.mrtd,
        MrSeam: mrSeam,
        Rtmrs: [first, ...row.rtmrs.slice(1).map((rtmr) => rtmr ?? "")],
        ...(others.length === 0 ? {} : { Rtmr0Alternatives: others }),
        // Contrast does not compare the bits of CET.
        Xfam: xfams.withoutCet,
        MemoryIntegrity: false,
        ...(counts.length === 1 ? { CPUs: counts[0] } : {}),
      };
    }),
  );
  return { ...(snp.length === 0 ? {} : { snp }), ...(tdx.length === 0 ? {} : { tdx }) };
}

/** IGVM files, and models that run on any host, are trusted for both products that Contrast knows. */
const productsOf = ({ product }: SnpReferenceValue) => (product === undefined ? ["Milan", "Genoa"] : [product]);

const contrastTcb = (tcb: SnpTcb | undefined) => ({
  BootloaderVersion: tcb?.bootloader ?? null,
  TEEVersion: tcb?.tee ?? null,
  SNPVersion: tcb?.snp ?? null,
  MicrocodeVersion: tcb?.microcode ?? null,
});

/** Rows that differ in RTMR0 alone are one: Contrast lists its values beside each other. */
function alike(rows: readonly TdxReferenceValue[]): { counts: number[]; row: TdxReferenceValue; rtmr0: string[] }[] {
  const groups = Map.groupBy(rows, ({ mrtd, rtmrs }) => JSON.stringify([mrtd, ...rtmrs.slice(1)]));
  return [...groups.values()].flatMap((group) => {
    const [row] = group;
    const counts = group.flatMap(({ vcpus }) => vcpus ?? []);
    return row === undefined ? [] : [{ counts, row, rtmr0: unique(group.map(({ rtmrs }) => rtmrs[0])) }];
  });
}

const rtmrNames = ["rtmr_0", "rtmr_1", "rtmr_2", "rtmr_3"];
const unique = <Value extends string | number>(values: readonly (Value | null | undefined)[]): Value[] => [
  ...new Set(values.filter((value) => value !== null && value !== undefined)),
];

/**
 * Reference values under the names that Trustee's default policy for CPUs asks for (confidential-containers/trustee,
 * ear_default_policy_cpu.rego): lists where it looks for a member, single values where it compares. The verifier has shown
 * SNP measurements as base64 and, later, as hex: the list has both, and one of them must match. What depends on the hosts is
 * absent where it is not given.
 */
export function trusteeReferenceValues(
  values: ReferenceValues,
  guestPolicy: bigint,
  hosts: HostValues = {},
): Record<string, unknown> {
  const lists = {
    ...(values.tdx.length === 0 ? {} : { mr_td: values.tdx.map((row) => row.mrtd), xfam: Object.values(xfams) }),
    ...Object.fromEntries(rtmrNames.map((name, index) => [name, values.tdx.map((row) => row.rtmrs[index])])),
    mr_seam: hosts.mrSeam ?? [],
    tcb_svn: hosts.tdxTcbSvn ?? [],
    snp_launch_measurement: values.snp.flatMap(({ measurement }) => [
      measurement,
      Buffer.from(measurement, "hex").toString("base64"),
    ]),
    ...snpTcbLists(hosts.snpTcb ?? []),
  };
  const policy = guestPolicyFields(guestPolicy);
  const single = {
    ...(values.snp.length === 0
      ? {}
      : {
          snp_guest_abi_major: policy.ABIMajor,
          snp_guest_abi_minor: policy.ABIMinor,
          snp_single_socket: policy.SingleSocket,
          snp_smt_allowed: policy.SMT,
          snp_smt_enabled: hosts.smt,
          snp_tsme_enabled: hosts.tsme,
        }),
    tdvfkernel: onlyOne(values.tdx.map(({ events }) => events.kernel)),
    tdvfkernelparams: onlyOne(values.tdx.map(({ events }) => events.loadOptions)),
  };
  return {
    ...Object.fromEntries(
      Object.entries(lists)
        .map(([name, list]) => [name, unique<string | number>(list)] as const)
        .filter(([, list]) => list.length > 0),
    ),
    ...Object.fromEntries(Object.entries(single).filter(([, value]) => value !== undefined)),
  };
}

const snpTcbLists = (tcbs: readonly SnpTcb[]) => ({
  snp_bootloader: tcbs.map(({ bootloader }) => bootloader),
  snp_microcode: tcbs.map(({ microcode }) => microcode),
  snp_snp_svn: tcbs.map(({ snp }) => snp),
  snp_tee_svn: tcbs.map(({ tee }) => tee),
});

/** The policy compares with one value: of several none would be right. */
function onlyOne(values: readonly (string | undefined)[]): string | undefined {
  const all = unique(values);
  return all.length === 1 ? all[0] : undefined;
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
  /** By vCPU count; "any" where the count changes nothing. Registers, and digests of events of the log. */
  tdx?: Record<string, Record<string, string>>;
  /** What a verifier will see but this table cannot predict: the reason by name. */
  notPredictable?: Record<string, string>;
}

export function referenceTable({ snp, tdx, notPredictable }: ReferenceValues): ReferenceTable {
  const models = [...new Set(snp.map(({ model = "IGVM" }) => model))];
  const digests = (of: string) =>
    snp.filter(({ model = "IGVM" }) => model === of).map(({ vcpus, measurement }) => [vcpus, measurement]);
  const registers = ({ mrtd, rtmrs, events }: TdxReferenceValue) => ({
    MRTD: mrtd,
    ...Object.fromEntries(rtmrs.flatMap((value, index) => (value === null ? [] : [[`RTMR${index}`, value]]))),
    ...(events.kernel === undefined ? {} : { "kernel event": events.kernel }),
    ...(events.loadOptions === undefined ? {} : { "load options event": events.loadOptions }),
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
