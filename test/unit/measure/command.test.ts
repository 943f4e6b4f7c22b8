import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { afterAll, expect, test } from "vitest";
import { initrd, kernel } from "./pod-vm.ts";
import { expected, sum } from "./vectors.ts";

const clone = resolve(import.meta.dirname, "../../..");
const vectors = join(clone, "test/vectors/measure");
const directory = mkdtempSync(join(tmpdir(), "measure-command-"));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

function measure(...args: string[]) {
  const { status, stdout, stderr } = spawnSync(process.execPath, [join(clone, "tools/measure.ts"), ...args], {
    encoding: "utf8",
  });
  return { status, stderr, output: status === 0 && stdout.startsWith("{") ? JSON.parse(stdout) : stdout };
}

test("snp takes sev-snp-measure's options", () => {
  const [row] = expected.snp;
  const guest = [
    "--ovmf",
    join(vectors, row?.ovmf ?? ""),
    "--kernel",
    "/dev/null",
    "--initrd",
    "/dev/null",
    "--append",
    row?.append ?? "",
  ];
  const byType = measure("snp", ...guest, "--vcpus", "1", "--vcpu-type", "EPYC-v4", "--guest-features", "0x1");
  expect(byType.output).toMatchObject({ measurement: row?.digest, vcpus: 1, cpuSignature: "0x800f12" });
  expect(measure("snp", ...guest, "--vcpus=1", "--vcpu-sig=0x800f12").output).toEqual(byType.output);
});

test("igvm, tdx and initdata print what they measure", () => {
  expect(measure("igvm", join(vectors, expected.igvm[0]?.file ?? "")).output).toMatchObject({
    measurement: expected.igvm[0]?.digest,
    idBlock: { matches: true },
  });
  const document = join(directory, "initdata.toml");
  writeFileSync(document, expected.initdata.toml);
  const { output } = measure("initdata", document);
  expect(output).toMatchObject({
    algorithm: "sha256",
    digest: expected.initdata.sha256,
    hostData: expected.initdata.sha256,
  });
  expect(measure("initdata", "--decode", output.annotation).output).toMatchObject({ document: expected.initdata.toml });
  expect(measure("initdata", "--policy", document).output).toEqual({ policyDigest: expected.initdata.sha256 });
});

test("verity writes the hash device and prints Kata's parameters", () => {
  const [data, tree] = [join(directory, "data"), join(directory, "tree")];
  writeFileSync(data, Buffer.alloc(4096 * 200, 7));
  const plain = measure("verity", data, "--salt", "ab".repeat(32)).output;
  const written = measure("verity", data, tree, "--no-superblock", "--salt", "ab".repeat(32)).output;
  expect(written).toEqual(plain);
  expect(written.kernelVerityParams).toBe(
    `root_hash=${written.rootHash},salt=${"ab".repeat(32)},data_blocks=200,data_block_size=4096,hash_block_size=4096`,
  );
  expect(readFileSync(tree).length).toBe(written.treeSize);
  expect(sum(Buffer.concat([Buffer.alloc(32, 0xab), readFileSync(tree).subarray(0, 4096)]))).toBe(written.rootHash);
});

test("mistakes are one sentence without a stack", () => {
  const [firmware, bzImage, cpio] = [join(directory, "firmware"), join(directory, "kernel"), join(directory, "initrd")];
  writeFileSync(firmware, Buffer.alloc(4096));
  writeFileSync(bzImage, kernel());
  writeFileSync(cpio, initrd);
  for (const [args, message] of [
    [
      ["snp", "--ovmf", firmware, "--vcpus", "1", "--vcpu-type", "EPYC"],
      /^measure: firmware: no OVMF table: .* \(at offset 0xfd0\)\.$/,
    ],
    [
      ["snp", "--ovmf", "/nowhere", "--vcpus", "1", "--vcpu-type", "EPYC"],
      /^measure: \/nowhere cannot be read: ENOENT\.$/,
    ],
    [
      ["snp", "--ovmf", firmware, "--vcpus", "x", "--vcpu-type", "EPYC"],
      /^measure: --vcpus is "x", expected a number such as 4 or 0x4\.$/,
    ],
    [
      ["snp", "--ovmf", join(vectors, "ovmf_AmdSev_suffix.bin"), "--vcpus", "0", "--vcpu-type", "EPYC"],
      /with 0 vCPUs cannot be measured/,
    ],
    [
      ["snp", "--ovmf", firmware, "--vcpus", "1", "--vcpu-type", "Pentium"],
      /^measure: CPU model "Pentium" is not known\. Use one of EPYC, /,
    ],
    [["snp", "--vcpu", "1"], /^measure: Unknown option '--vcpu'/],
    [
      ["layers", "registry/app:1"],
      /^measure: There is no file or directory registry\/app:1; an image of a registry is named /,
    ],
    [["measure"], /^measure: "measure" is not a command: expected snp, tdx, .*layers\.$/],
  ] as const) {
    const { status, stderr } = measure(...args);
    expect(status).toBe(1);
    expect(stderr.trim()).toMatch(message);
    expect(stderr).not.toMatch(/\n\s+at /);
  }
  expect(measure("--help").output).toMatch(/--vcpu-type MODEL/);
});
