import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished, test, vi } from "vitest";
import { launchTable, launchValues } from "../../../../measure/launch-values.ts";
import { measuredRuntime } from "../../../../measure/runtime.ts";
import { judgeSettings } from "../../../../runtime/kata-overrides.ts";
import { manifestSchema } from "../../../../runtime/manifest.ts";
import { main } from "../../../../tools/measure/main.ts";

const fixture = (name: string) => `test/fixtures/manifests/${name}.json`;
const manifestOf = (name: string) => manifestSchema.parse(JSON.parse(readFileSync(fixture(name), "utf8")));

async function measure(...args: string[]) {
  const [log, error] = [vi.spyOn(console, "log"), vi.spyOn(console, "error")];
  log.mockImplementation(() => {});
  error.mockImplementation(() => {});
  const code = await main(["manifest", ...args]);
  const [output, problem] = [log.mock.calls.flat().join("\n"), error.mock.calls.flat().join("\n")];
  vi.restoreAllMocks();
  return { code, output: code === 0 ? JSON.parse(output) : output, problem };
}

test("a payload's values from its manifest alone, in each verifier's shape", async () => {
  const snp = [fixture("fixture-contrast-go"), "--platform", "metal-qemu-snp"];
  const { output: table } = await measure(...snp, "--vcpus", "1,4-5");
  expect(Object.keys(table.snp)).toEqual(["EPYC-Milan", "EPYC-Genoa"]);
  expect(Object.keys(table.snp["EPYC-Genoa"])).toEqual(["1", "4", "5"]);

  const { output: contrast } = await measure(...snp, "--vcpus", "4", "--for", "contrast");
  expect(contrast.snp.map((row: { TrustedMeasurement: string }) => row.TrustedMeasurement)).toEqual([
    table.snp["EPYC-Milan"]["4"],
    table.snp["EPYC-Genoa"]["4"],
  ]);
  const { output: trustee } = await measure(...snp, "--vcpus", "4", "--for", "trustee");
  expect(trustee.snp_launch_measurement).toContain(table.snp["EPYC-Milan"]["4"]);
  const { output: message } = await measure(...snp, "--vcpus", "4", "--for", "rvps");
  expect(JSON.parse(Buffer.from(message.payload, "base64").toString())).toEqual(trustee);

  const { output: tdx } = await measure(fixture("fixture-contrast-go"), "--platform", "metal-qemu-tdx");
  expect(tdx.tdx.any.MRTD).toMatch(/^[0-9a-f]{96}$/);
  expect(Object.keys(tdx.notPredictable)).toEqual(["RTMR0", "RTMR1"]);
});

const snpGuest = [fixture("fixture-contrast-go"), "--platform", "metal-qemu-snp"];
const tdxGuest = [fixture("fixture-contrast-go"), "--platform", "metal-qemu-tdx"];
const tcb = "bootloader=4,tee=0,snp=22,microcode=213";

test("values with what the runtime sets of Kata are those of a stack's runtime that sets it", async () => {
  const kata = { hypervisor: { kernel_params: "systemd.log_level=debug" }, agent: { dial_timeout: 300 } };
  const acknowledgedWeakenings = ["hypervisor.kernel_params:systemd.log_level"];
  const set = [
    ...["--kata", "hypervisor.kernel_params=systemd.log_level=debug", "--kata", "agent.dial_timeout=300"],
    ...["--acknowledge-weakening", ...acknowledgedWeakenings],
  ];
  const [subject, settings] = [
    { platform: "metal-qemu-snp", manifest: manifestOf("fixture-contrast-go") } as const,
    { kata, acknowledgedWeakenings },
  ];
  const { changes } = judgeSettings(subject, settings);
  expect(changes?.kernelParams).toEqual(["systemd.log_level=debug"]);
  const expected = launchTable(measuredRuntime({ ...subject, changes }))?.snp?.["EPYC-Milan"]?.["2"];
  const [{ output: plain }, { output, problem }] = [await measure(...snpGuest), await measure(...snpGuest, ...set)];
  expect(problem).toBe("");
  expect(output.snp["EPYC-Milan"]["2"]).toBe(expected);
  expect(output.snp["EPYC-Milan"]["2"]).not.toBe(plain.snp["EPYC-Milan"]["2"]);
});

test("what only hosts know stands where verifiers look for it", async () => {
  const hosts = ["--snp-tcb", tcb, "--smt", "on", "--tsme", "off"];
  const { output: trustee, problem } = await measure(...snpGuest, "--vcpus=2", "--for", "trustee", ...hosts);
  expect(trustee).toMatchObject({
    snp_bootloader: [4],
    snp_snp_svn: [22],
    snp_smt_enabled: true,
    snp_tsme_enabled: false,
  });
  expect(problem).toBe("");

  const each = ["--snp-tcb", `Milan:${tcb}`, "--snp-tcb", `Genoa:${tcb.replace("213", "84")}`];
  const { output: contrast } = await measure(...snpGuest, "--vcpus=2", "--for", "contrast", ...each, "--tsme", "on");
  const rows: { ProductName: string; MinimumTCB: { MicrocodeVersion: number }; CPUs: number }[] = contrast.snp;
  expect(rows.map((row) => [row.ProductName, row.MinimumTCB.MicrocodeVersion, row.CPUs])).toEqual([
    ["Milan", 213, 2],
    ["Genoa", 84, 2],
  ]);
  expect(rows[0]).toMatchObject({ Platform: "Metal-QEMU-SNP", PlatformInfo: { SMTEnabled: true, TSMEEnabled: true } });

  const rtmr0 = ["a", "b"].map((letter) => letter.repeat(96));
  const given = ["--rtmr0", `1=${rtmr0[0]}`, "--rtmr0", `2=${rtmr0[1]}`, "--mr-seam", "C".repeat(96)];
  const { output: tdx } = await measure(...tdxGuest, "--vcpus=1-2", "--for", "contrast", ...given);
  expect(tdx.tdx).toMatchObject([{ MrSeam: "c".repeat(96), Rtmr0Alternatives: [rtmr0[1]] }]);
  expect(tdx.tdx[0].Rtmrs[0]).toBe(rtmr0[0]);
});

test("an upgrade's old and new values stand together, since registering a name replaces what it had", async () => {
  const both = [...snpGuest, fixture("fixture-contrast-go-next"), "--vcpus=2", "--for=trustee"];
  const alone = ["fixture-contrast-go", "fixture-contrast-go-next"].map((name) =>
    launchTable(measuredRuntime({ platform: "metal-qemu-snp", manifest: manifestOf(name) })),
  );
  const { output } = await measure(...both);
  for (const table of alone) expect(output.snp_launch_measurement).toContain(table?.snp?.["EPYC-Genoa"]?.["2"]);

  const directory = mkdtempSync(join(tmpdir(), "manifests-"));
  onTestFinished(() => rmSync(directory, { recursive: true }));
  const other = join(directory, "other.json");
  const text = readFileSync(fixture("fixture-contrast-go-next"), "utf8");
  writeFileSync(other, text.replaceAll("cgroup_no_v1=all", "cgroup_no_v1=none"));
  const tdx = await measure(...tdxGuest, other, "--for=trustee");
  expect(Object.keys(tdx.output)).not.toContain("tdvfkernelparams");
  expect(tdx.problem).toContain("tdvfkernelparams is left out: it differs by payload or vCPU count");
});

test("what is missing is told beside the document", async () => {
  const told = async (...words: string[]) => (await measure(...words)).problem.split("\n");
  expect(await told(...snpGuest, "--for", "rvps")).toEqual([
    "Without --snp-tcb Trustee's default policy does not affirm the hardware.",
    "Without --smt Trustee's default policy does not affirm the configuration as an approved one.",
    "Without --tsme Trustee's default policy does not affirm the configuration as an approved one.",
  ]);
  expect(await told(...tdxGuest, "--for", "contrast")).toEqual([
    expect.stringMatching(/^RTMR0 is missing: it holds what QEMU and the firmware make of memory.*\(--rtmr0\)\.$/),
    expect.stringMatching(/^RTMR1 is missing: it covers the kernel .* lock again\.$/),
    "MrSeam is to be filled in (--mr-seam).",
  ]);
  expect(await told(...snpGuest)).toEqual([""]);
});

test.each([
  [2, ["--platform", "local"], "Missing required argument 'manifests'"],
  [
    2,
    [...snpGuest, fixture("fixture-contrast-go-next")],
    "A table is of one manifest: say for which verifier by --for.",
  ],
  [2, [fixture("fixture-kata-go")], "Required option '--platform <name>' not specified"],
  [
    2,
    [fixture("fixture-kata-go"), "--platform", "metal-qemu-sev"],
    "argument 'metal-qemu-sev' is invalid. Allowed choices are aks-clh-snp, metal-qemu-snp",
  ],
  [1, [fixture("fixture-local"), "--platform", "local"], "Platform local has no TEE: nothing is measured."],
  [
    1,
    [fixture("fixture-kata-go"), "--platform", "metal-qemu-insecure"],
    "Platform metal-qemu-insecure has no TEE: nothing is measured.",
  ],
  [
    1,
    [fixture("fixture-contrast-go"), "--platform", "aks-clh-snp"],
    "has no file of role igvm, snapshotter, which aks-clh-snp needs.",
  ],
  [1, ["nowhere.json", "--platform", "metal-qemu-snp"], "nowhere.json cannot be read: no such file or directory"],
  [
    1,
    ["package.json", "--platform", "metal-qemu-snp"],
    "package.json is not a manifest: schemaVersion is missing. Allowed: 1.",
  ],
  [
    2,
    [fixture("fixture-kata-go"), "--platform", "metal-qemu-snp", "--vcpus", "8-1"],
    "argument '8-1' is invalid. It must be counts from 1 to 512 such as 2, 1-8 or 1,4-6.",
  ],
  [
    2,
    [fixture("fixture-kata-go"), "--platform", "metal-qemu-snp", "--for", "veraison"],
    "argument 'veraison' is invalid. Allowed choices are table, contrast, trustee, rvps, corim.",
  ],
  [
    2,
    [...snpGuest, "--for=trustee", "--mr-seam", "a".repeat(96)],
    "--mr-seam is of TDX, which metal-qemu-snp does not",
  ],
  [2, [...tdxGuest, "--for=trustee", "--smt", "on"], "--smt is of SEV-SNP, which metal-qemu-tdx does not have."],
  [2, [...snpGuest, "--rtmr0", `2=${"a".repeat(96)}`], "--rtmr0 is of TDX, which metal-qemu-snp does not have."],
  [2, [...snpGuest, "--smt", "on"], "--smt is for verifiers: say which one by --for contrast, trustee, rvps or corim."],
  [
    2,
    [...snpGuest, "--for=contrast", "--snp-tcb", tcb, "--snp-tcb", `Milan:${tcb}`],
    "--snp-tcb has several values for one product: Contrast takes one, the least that is accepted.",
  ],
  [2, [...snpGuest, "--for=trustee", "--snp-tcb", tcb.replace("22", "256")], "microcode=N, each from 0 to 255."],
  [2, [...snpGuest, "--for=trustee", "--snp-tcb", `Rome:${tcb}`], '"Rome" is none of the products Milan, Genoa.'],
  [2, [...tdxGuest, "--for=corim"], "A CoRIM is written for SEV-SNP alone: Intel's profile"],
  [2, [...snpGuest, "--for=corim", "--tsme", "off"], "--tsme has no certain place in a CoRIM"],
  [2, [...snpGuest, "--for=corim", "--snp-tcb", `Milan:${tcb}`], "--snp-tcb has no value for Genoa"],
  [2, [...tdxGuest, "--rtmr0", `9=${"a".repeat(96)}`], "--rtmr0 is for 9 vCPUs, which is none of the counts to print"],
  [2, [...snpGuest, "--kata", "default_memory=1"], "It must be TABLE.KEY=VALUE"],
  [2, [...snpGuest, "--kata", "guest.memory=1"], "--kata guest.memory: must be a text, a number"],
  [2, [...snpGuest, "--kata", "agent.dial_timeout=null"], "--kata agent.dial_timeout: must be a text, a number"],
  [2, [...snpGuest, "--kata", "hypervisor.default_memry=1"], "--kata hypervisor.default_memry: "],
  [2, [...snpGuest, "--kata", "agent.debug_console_enabled=true"], "agent.debug_console_enabled"],
  [2, [...tdxGuest, "--rtmr0", "2=ab"], "It must be COUNT=VALUE: a number of vCPUs and 96 hex digits."],
  [
    2,
    [...tdxGuest, "--rtmr0", `2=${"a".repeat(96)}`, "--rtmr0", `2=${"b".repeat(96)}`],
    "There are two values for 2 vCPUs.",
  ],
])("exit code %i: %j", async (expected, args, sentence) => {
  const { code, problem } = await measure(...args);
  expect(code).toBe(expected);
  expect(problem).toContain(sentence);
});

test.each(["firmware", "kernel", "initrd", "rootfs"])("a manifest with another %s gives no values", async (role) => {
  const manifest = manifestOf("fixture-contrast-go");
  const files = manifest.files.map((file) => (file.role === role ? { ...file, sha256: "9".repeat(64) } : file));
  const directory = mkdtempSync(join(tmpdir(), "manifest-"));
  const path = join(directory, "manifest.json");
  writeFileSync(path, JSON.stringify({ ...manifest, files }));
  const { code, problem } = await measure(path, "--platform", "metal-qemu-snp");
  rmSync(directory, { recursive: true });
  expect(code).toBe(1);
  expect(problem).toMatch(
    new RegExp(`The ${role} .* has the SHA-256 9{64}, but the measurement's inputs were collected`),
  );
});

test("the stack's output has the review card's value for two vCPUs, and those from one to eight", () => {
  const runtime = measuredRuntime({ platform: "metal-qemu-snp", manifest: manifestOf("fixture-contrast-go") });
  const table = launchTable(runtime);
  const card = launchValues(runtime);
  expect(table?.snp?.["EPYC-Milan"]?.["2"]).toBe(card["EPYC-Milan launch digest, 2 vCPUs"]);
  expect(Object.keys(table?.snp?.["EPYC-Milan"] ?? {})).toEqual(["1", "2", "3", "4", "5", "6", "7", "8"]);
  expect(launchTable(measuredRuntime({ platform: "local", manifest: manifestOf("fixture-local") }))).toBeUndefined();
});
