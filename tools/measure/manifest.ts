/** `measure manifest`: reference values of a payload from its manifest alone, in the shapes that verifiers take. */

import type { CorimPayload } from "../../measure/corim.ts";
import { defaultGuestPolicy } from "../../measure/guest-policy.ts";
import type { HostValues, SnpTcb } from "../../measure/host-values.ts";
import { valuesOf } from "../../measure/launch-values.ts";
import { type ReferenceValues, usualVcpus } from "../../measure/reference-values.ts";
import { type MeasuredRuntime, measuredRuntime } from "../../measure/runtime.ts";
import {
  contrastReferenceValues,
  referenceTable,
  trusteeMessage,
  trusteeReferenceValues,
} from "../../measure/verifier-formats.ts";
import { judgeSettings, type KataChanges, kataOverrides } from "../../runtime/kata-overrides.ts";
import type { Manifest } from "../../runtime/manifest.ts";
import { platforms, type Tee } from "../../runtime/platforms.ts";
import { Refusal } from "../../runtime/refusal.ts";
import type { PlatformName } from "../../runtime/spec.ts";
import { readManifest } from "../files/manifest.ts";

/** In which form the values are printed. */
type Shape = "table" | "contrast" | "trustee" | "rvps" | "corim";

interface Wanted {
  platform: PlatformName;
  vcpus?: readonly number[] | undefined;
  for: Shape;
  /** Keys of Kata's configuration that the runtime sets. */
  kata: [table: string, key: string, value: unknown][];
  acknowledgeWeakening: string[];
  rtmr0: [count: string, value: string][];
  snpTcb: SnpTcb[];
  smt?: "on" | "off" | undefined;
  tsme?: "on" | "off" | undefined;
  chipId: string[];
  mitigationVector?: number | undefined;
  mrSeam: string[];
  tdxTcbSvn: string[];
}

/** The values (a CoRIM is bytes), and what somebody who hands them to a verifier should know about them: sentences. */
export async function manifestValues(
  paths: readonly string[],
  wanted: Wanted,
): Promise<{ values: object | Uint8Array; notes: string[] }> {
  const { platform, for: shape } = wanted;
  const hosts = hostValues(wanted, platforms[platform].tee);
  const [first, ...others] = await Promise.all(paths.map((path) => valuesOfManifest(path, wanted)));
  if (first === undefined) throw new Refusal("usage", "The manifest is missing.");
  if (shape === "table") {
    if (others.length > 0) throw new Refusal("usage", "A table is of one manifest: say for which verifier by --for.");
    return { values: referenceTable(first.table), notes: [] };
  }
  if (shape === "corim") {
    const { corim } = await import("../../measure/corim.ts");
    const values = corim([first, ...others].map(corimPayload), hosts);
    const note = "Without --snp-tcb the values say nothing of the hosts' security versions: any is accepted.";
    return { values, notes: hosts.snpTcb === undefined ? [note] : [] };
  }
  const all = [first, ...others].map(({ table }) => table);
  const table: ReferenceValues = {
    snp: all.flatMap(({ snp }) => snp),
    tdx: all.flatMap(({ tdx }) => tdx),
    notPredictable: all.flatMap(({ notPredictable }) => notPredictable),
  };
  const { guestPolicy } = first;
  if (others.some((other) => other.guestPolicy !== guestPolicy))
    throw new Refusal("usage", "The guests of these manifests have different policies: register them one by one.");
  if (shape === "contrast")
    return {
      values: contrastReferenceValues(table, { platform, guestPolicy, hosts }),
      notes: contrastNotes(table, hosts),
    };
  const trustee = trusteeReferenceValues(table, guestPolicy, hosts);
  return { values: shape === "trustee" ? trustee : trusteeMessage(trustee), notes: trusteeNotes(table, hosts) };
}

interface PayloadValues {
  /** The manifest's. */
  name: string;
  table: ReferenceValues;
  guestPolicy: bigint;
}

/** @throws Refusal where its guests have no launch digest */
function corimPayload({ name, table, guestPolicy }: PayloadValues): CorimPayload {
  if (table.snp.length > 0) return { name, guests: table.snp, guestPolicy };
  const [problem = "it has no value of a guest."] = unpredicted(table, ["SNP launch digest"]);
  throw new Refusal("not-measured", `${name} cannot be in a CoRIM: ${problem}`);
}

async function valuesOfManifest(path: string, wanted: Wanted): Promise<PayloadValues> {
  const { platform, vcpus = usualVcpus } = wanted;
  const manifest = await readManifest(path, "The lock command writes manifests.");
  // The values of a payload that cannot serve the platform are those of no guest: it is refused here.
  const changes = changesOf(manifest, wanted);
  const table = valuesOf(withRtmr0(measuredRuntime({ platform, manifest, changes }), wanted.rtmr0), vcpus);
  const [unlisted] = wanted.rtmr0.filter(([count]) => !vcpus.includes(Number(count)));
  if (unlisted !== undefined)
    throw new Refusal(
      "usage",
      `--rtmr0 is for ${unlisted[0]} vCPUs, which is none of the counts to print: add it to --vcpus.`,
    );
  if (table === undefined) {
    throw new Refusal(
      "not-measured",
      platforms[platform].tee === "none"
        ? `Platform ${platform} has no TEE: nothing is measured.`
        : `${path} has no measurement inputs. Write it again with the lock command of this version.`,
    );
  }
  const { policy } = manifest.measurement?.igvm ?? {};
  return { name: manifest.name, table, guestPolicy: policy === undefined ? defaultGuestPolicy : BigInt(policy) };
}

/** As of a stack's runtime with this `kata`. @throws Refusal for each key that this Kata does not have */
function changesOf(manifest: Manifest, wanted: Wanted): KataChanges | undefined {
  const { platform, kata: given, acknowledgeWeakening: acknowledgedWeakenings } = wanted;
  if (given.length === 0 && acknowledgedWeakenings.length === 0) return undefined;
  const tables = Map.groupBy(given, ([table]) => table);
  const kata = kataOverrides.safeParse(
    Object.fromEntries(
      [...tables].map(([table, keys]) => [table, Object.fromEntries(keys.map(([, ...pair]) => pair))]),
    ),
  );
  if (!kata.success) {
    const [path] = kata.error.issues.map((issue) => issue.path.join("."));
    const what = "a text, a number, true, false or a list of texts, of the tables hypervisor, agent and runtime";
    throw new Refusal("usage", `--kata ${path || given[0]?.slice(0, 2).join(".")}: must be ${what}.`);
  }
  const { changes, mistakes } = judgeSettings({ platform, manifest }, { kata: kata.data, acknowledgedWeakenings });
  const say = ({ path, message }: (typeof mistakes)[number]) =>
    `${path.replace(/^kata\./, "--kata ").replace(/^acknowledgedWeakenings\S*/, "--acknowledge-weakening")}: ${message}`;
  if (mistakes.length > 0) throw new Refusal("usage", mistakes.map(say).join("\n"));
  return changes;
}

function withRtmr0(runtime: MeasuredRuntime, given: Wanted["rtmr0"]): MeasuredRuntime {
  const tdx = runtime.inputs?.tdx;
  if (given.length === 0 || tdx === undefined) return runtime;
  return {
    ...runtime,
    inputs: { ...runtime.inputs, tdx: { ...tdx, rtmr0: { ...tdx.rtmr0, ...Object.fromEntries(given) } } },
  };
}

/** @throws Refusal for what the platform's TEE, or a table, does not have */
function hostValues(wanted: Wanted, tee: Tee): HostValues {
  const { for: shape, snpTcb, smt, tsme, chipId, mitigationVector, mrSeam, tdxTcbSvn, rtmr0 } = wanted;
  const given = (tees: Tee, options: Record<string, unknown>) =>
    Object.entries(options).flatMap(([option, value]) =>
      value === undefined || (Array.isArray(value) && value.length === 0) ? [] : [{ tees, option }],
    );
  const ofHosts = [
    ...given("snp", {
      "--snp-tcb": snpTcb,
      "--smt": smt,
      "--tsme": tsme,
      "--chip-id": chipId,
      "--mitigation-vector": mitigationVector,
    }),
    ...given("tdx", { "--mr-seam": mrSeam, "--tdx-tcb-svn": tdxTcbSvn }),
  ];
  const [wrong] = [...ofHosts, ...given("tdx", { "--rtmr0": rtmr0 })].filter(({ tees }) => tees !== tee);
  if (wrong !== undefined)
    throw new Refusal(
      "usage",
      `${wrong.option} is of ${teeNames[wrong.tees]}, which ${wanted.platform} does not have.`,
    );
  if (shape === "table" && ofHosts[0] !== undefined)
    throw new Refusal(
      "usage",
      `${ofHosts[0].option} is for verifiers: say which one by --for contrast, trustee, rvps or corim.`,
    );
  if (shape === "corim") refuseOutsideCorim(wanted, tee);
  const products = snpTcb.map(({ product }) => product ?? "all");
  if (
    shape === "contrast" &&
    (new Set(products).size < products.length || (products.length > 1 && products.includes("all")))
  )
    throw new Refusal(
      "usage",
      "--snp-tcb has several values for one product: Contrast takes one, the least that is accepted.",
    );
  return {
    ...(snpTcb.length > 0 && { snpTcb }),
    ...(smt !== undefined && { smt: smt === "on" }),
    ...(tsme !== undefined && { tsme: tsme === "on" }),
    ...(chipId.length > 0 && { chipIds: chipId }),
    ...(mitigationVector !== undefined && { mitigationVector }),
    ...(mrSeam.length > 0 && { mrSeam }),
    ...(tdxTcbSvn.length > 0 && { tdxTcbSvn }),
  };
}

/** @throws Refusal for what the profiles of CoRIM have no certain place for */
function refuseOutsideCorim({ smt, tsme, mitigationVector }: Wanted, tee: Tee): void {
  if (tee === "tdx")
    throw new Refusal(
      "usage",
      "A CoRIM is written for SEV-SNP alone: Intel's profile (draft-cds-rats-intel-corim-profile) has neither a class for TDX guests nor a place for their RTMRs. Say --for contrast, trustee or rvps.",
    );
  const given = { "--smt": smt, "--tsme": tsme, "--mitigation-vector": mitigationVector };
  const [option] = Object.entries(given).find(([, value]) => value !== undefined) ?? [];
  if (option !== undefined)
    throw new Refusal(
      "usage",
      `${option} has no certain place in a CoRIM: AMD's profile has no mitigations, and masks single bits otherwise than CoRIM does. Leave it out, and let the verifier's own policy compare it.`,
    );
}

const teeNames: Record<Tee, string> = { snp: "SEV-SNP", tdx: "TDX", none: "no TEE" };

const unpredicted = ({ notPredictable }: ReferenceValues, names: readonly string[]) => [
  ...new Set(
    notPredictable.flatMap(({ name, reason }) => (names.includes(name) ? [`${name} is missing: it ${reason}.`] : [])),
  ),
];

/** Contrast refuses a manifest until nothing is empty. */
function contrastNotes(table: ReferenceValues, hosts: HostValues): string[] {
  return [
    ...unpredicted(table, ["SNP launch digest", "RTMR0", "RTMR1", "RTMR2"]),
    ...(table.snp.length > 0 && hosts.snpTcb === undefined ? ["MinimumTCB is to be filled in (--snp-tcb)."] : []),
    ...(table.tdx.length > 0 && hosts.mrSeam === undefined ? ["MrSeam is to be filled in (--mr-seam)."] : []),
  ];
}

/** Of what its default policy asks for; without it, a claim of its result is not affirming. */
function trusteeNotes(table: ReferenceValues, hosts: HostValues): string[] {
  const { snp, tdx } = table;
  const missing = (claim: string, values: Record<string, unknown>) =>
    Object.entries(values).flatMap(([option, value]) =>
      value === undefined ? [`Without ${option} Trustee's default policy does not affirm ${claim}.`] : [],
    );
  return [
    ...unpredicted(table, ["SNP launch digest", "RTMR1", "RTMR2"]),
    ...(snp.length === 0
      ? []
      : [
          ...missing("the hardware", { "--snp-tcb": hosts.snpTcb }),
          ...missing("the configuration as an approved one", { "--smt": hosts.smt, "--tsme": hosts.tsme }),
        ]),
    ...several(
      "tdvfkernel",
      "payload",
      tdx.map(({ events }) => events.kernel),
    ),
    ...several(
      "tdvfkernelparams",
      "payload or vCPU count",
      tdx.map(({ events }) => events.loadOptions),
    ),
  ];
}

const several = (name: string, by: string, values: (string | undefined)[]) =>
  new Set(values).size > 1
    ? [
        `${name} is left out: it differs by ${by}, and Trustee's default policy compares with one value. Without it, the executables claim is 4 instead of 3.`,
      ]
    : [];
