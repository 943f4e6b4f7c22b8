import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test, vi } from "vitest";
import { launchTable, launchValues } from "../../../../measure/launch-values.ts";
import { measuredRuntime } from "../../../../measure/runtime.ts";
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

test.each([
  [2, ["--platform", "local"], "Missing required argument 'manifest'"],
  [
    2,
    [fixture("fixture-kata-go"), "local", "--platform=local"],
    "Too many arguments for 'manifest'. Expected 1 argument but got 2: ",
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
  [1, ["nowhere.json", "--platform", "metal-qemu-snp"], "nowhere.json cannot be read: ENOENT"],
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
    "argument 'veraison' is invalid. Allowed choices are table, contrast, trustee, rvps.",
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

test("the stack's output has the review card's value for one vCPU, and those up to eight", () => {
  const runtime = measuredRuntime({ platform: "metal-qemu-snp", manifest: manifestOf("fixture-contrast-go") });
  const table = launchTable(runtime);
  const card = launchValues(runtime);
  expect(table?.snp?.["EPYC-Milan"]?.["1"]).toBe(card["EPYC-Milan launch digest"]);
  expect(Object.keys(table?.snp?.["EPYC-Milan"] ?? {})).toEqual(["1", "2", "3", "4", "5", "6", "7", "8"]);
  expect(launchTable(measuredRuntime({ platform: "local", manifest: manifestOf("fixture-local") }))).toBeUndefined();
});
