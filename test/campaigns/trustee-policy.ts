// trustee-policy.ts POLICY: evaluates Trustee's policy for CPUs (attestation-service's ear_default_policy_cpu.rego, from
// whichever version) with the engine that Trustee uses (crate regorus), on guests as our reference values describe them.
// Every claim must be affirmed; with one of the guest's values another, the claim that covers it must not.
import { cp } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { HostValues } from "../../measure/host-values.ts";
import { referenceValues } from "../../measure/reference-values.ts";
import { trusteeReferenceValues } from "../../measure/verifier-formats.ts";
import { toStderr } from "../../tools/process/progress.ts";
import { check } from "../../tools/process/run.ts";
import { cached } from "../../tools/programs/cache.ts";
import { podVm } from "../unit/measure/pod-vm.ts";

const [policy] = process.argv.slice(2);
if (policy === undefined) throw new Error("The policy's path is missing.");

const source = fileURLToPath(new URL("trustee-policy", import.meta.url));
const directory = await cached(
  {
    name: "trustee-policy-regorus-0.11.0",
    inputs: 1,
    make: async (target) => {
      toStderr("Building the policy engine (a minute) …");
      await cp(source, target, { recursive: true });
      await check("cargo", [
        "build",
        "--quiet",
        "--release",
        "--locked",
        "--manifest-path",
        join(target, "Cargo.toml"),
      ]);
    },
  },
  toStderr,
);
const engine = join(directory, "target", "release", "trustee-policy");

type Claims = Record<string, unknown>;
/** AR4SI: 2 to 31 affirm a claim; 2 and 3 are the policy's best. */
const best = { executables: 3, hardware: 2, configuration: 2 };

const tcb = { bootloader: 4, tee: 0, snp: 22, microcode: 213 };
const { inputs } = podVm();

const snpHosts: HostValues = { snpTcb: [tcb], smt: true, tsme: false };
const snp = referenceValues(inputs, { tee: "snp", vcpus: [1, 2, 3] });
/** As Trustee's verifier shows a report (deps/verifier/src/snp). */
const snpGuest = (changes: Claims = {}): Claims => ({
  snp: {
    measurement: snp.snp[1]?.measurement,
    reported_tcb_bootloader: tcb.bootloader,
    reported_tcb_microcode: tcb.microcode,
    reported_tcb_snp: tcb.snp,
    reported_tcb_tee: tcb.tee,
    platform_smt_enabled: true,
    platform_tsme_enabled: false,
    policy_abi_major: 0,
    policy_abi_minor: 0,
    policy_debug_allowed: false,
    policy_migrate_ma: false,
    policy_single_socket: false,
    policy_smt_allowed: true,
    ...changes,
  },
});

const tdx = referenceValues(inputs, { tee: "tdx", vcpus: [2] });
const [row] = tdx.tdx;
const tdxGuest = (changes: Claims = {}, events = row?.events): Claims => ({
  tdx: {
    quote: {
      header: { tee_type: "81000000", vendor_id: "939a7233f79c4ca9940a0db3957f0607" },
      body: {
        mr_td: row?.mrtd,
        rtmr_1: row?.rtmrs[1],
        rtmr_2: row?.rtmrs[2],
        xfam: "e71a060000000000",
        ...changes,
      },
    },
    td_attributes: { debug: false },
    tcb_status: "UpToDate",
    collateral_expiration_status: "0",
    uefi_event_logs: [
      {
        type_name: "EV_EFI_BOOT_SERVICES_APPLICATION",
        details: { device_paths: ["File(kernel)"] },
        digests: [{ alg: "SHA-384", digest: events?.kernel }],
      },
      {
        type_name: "EV_EVENT_TAG",
        details: { string: "LOADED_IMAGE::LoadOptions" },
        digests: [{ alg: "SHA-384", digest: events?.loadOptions }],
      },
    ],
  },
});

const guestPolicy = 0x30000n;
const of = { snp: trusteeReferenceValues(snp, guestPolicy, snpHosts), tdx: trusteeReferenceValues(tdx, guestPolicy) };
const other = "0".repeat(96);
const cases: [name: string, references: object, input: Claims, expected: Partial<typeof best>][] = [
  ["an SNP guest with two vCPUs", of.snp, snpGuest(), best],
  ["another launch digest", of.snp, snpGuest({ measurement: other }), { ...best, executables: 33 }],
  ["older microcode", of.snp, snpGuest({ reported_tcb_microcode: 3 }), { ...best, hardware: 97 }],
  ["a host without SMT", of.snp, snpGuest({ platform_smt_enabled: false }), { ...best, configuration: 3 }],
  [
    "no host values at all",
    trusteeReferenceValues(snp, guestPolicy),
    snpGuest(),
    { executables: 3, hardware: 97, configuration: 3 },
  ],
  ["a TD with two vCPUs, on a host with CET", of.tdx, tdxGuest(), best],
  ["a TD on a host without CET", of.tdx, tdxGuest({ xfam: "e702060000000000" }), best],
  ["another kernel", of.tdx, tdxGuest({ rtmr_1: other }), { ...best, executables: 33 }],
  ["another command line", of.tdx, tdxGuest({ rtmr_2: other }), { ...best, executables: 33 }],
  ["another event of the kernel", of.tdx, tdxGuest({}, { ...row?.events, kernel: other }), { ...best, executables: 4 }],
  ["another firmware", of.tdx, tdxGuest({ mr_td: other }), { ...best, hardware: 97 }],
  ["features that no Kata guest has", of.tdx, tdxGuest({ xfam: "ffffffffffffffff" }), { ...best, configuration: 36 }],
];

const lines = cases.map(([, references, input]) => JSON.stringify({ references, input }));
const answers = (await check(engine, [policy], { input: `${lines.join("\n")}\n` })).trim().split("\n");
for (const [index, [name, , , expected]] of cases.entries()) {
  const { executables, hardware, configuration } = JSON.parse(answers[index] ?? "{}");
  const found = JSON.stringify({ executables, hardware, configuration });
  const ok = found === JSON.stringify({ ...best, ...expected });
  console.log(`${ok ? "ok    " : "FAILED"} ${name}: ${found}`);
  if (!ok) process.exitCode = 1;
}
