import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { afterAll, expect, test, vi } from "vitest";
import { readVeritySuperblock } from "../../../../measure/verity-superblock.ts";
import { packageRoot } from "../../../../tools/files/project.ts";
import { bundle } from "../../../../tools/image/bundle.ts";
import { main } from "../../../../tools/measure/main.ts";
import { firmware, initrd, kernel } from "../../measure/pod-vm.ts";
import { expected, sum } from "../../measure/vectors.ts";

const vectors = join(packageRoot, "test/vectors/measure");
const directory = mkdtempSync(join(tmpdir(), "measure-command-"));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

const measureWith = (node: string, program: string, ...args: string[]) =>
  resultOf(spawnSync(node, [program, ...args], { encoding: "utf8" }));
const source = join(packageRoot, "tools/measure/main.ts");
const measure = (...args: string[]) => measureWith(process.execPath, source, ...args);

/** In this process, which is quicker; its output is not JSON. */
async function say(...args: string[]) {
  const [out, err] = [vi.spyOn(console, "log"), vi.spyOn(console, "error")];
  try {
    for (const spy of [out, err]) spy.mockImplementation(() => {});
    const status = await main(args);
    return { status, stdout: out.mock.calls.join("\n"), stderr: err.mock.calls.join("\n") };
  } finally {
    for (const spy of [out, err]) spy.mockRestore();
  }
}

function resultOf({ status, stdout, stderr }: { status: number | null; stdout: string; stderr: string }) {
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
  expect(measure("snp", ...guest, "--vcpus=1", "--vcpu-sig=8392466").output).toEqual(byType.output);
  const parts = ["--vcpu-family=23", "--vcpu-model=1", "--vcpu-stepping=2"];
  expect(measure("snp", ...guest, "--vcpus=1", ...parts).output).toEqual(byType.output);
  const { firmwareDigest } = byType.output;
  expect(firmwareDigest).toBe(
    "086e2e9149ebf45abdc3445fba5b2da8270bdbb04094d7a2c37faaa4b24af3aa16aff8c374c2a55c467a50da6d466b74",
  );
  const known = ["--vcpus=1", "--vcpu-type=EPYC-v4", `--snp-ovmf-hash=${firmwareDigest}`];
  expect(measure("snp", ...guest, ...known).output).toEqual(byType.output);
});

test("an empty kernel, command line, initrd or hash counts as absent", () => {
  const row = expected.snp.find(({ kernelInitrdDevNull, vmm }) => !kernelInitrdDevNull && vmm === "QEMU");
  const guest = ["--ovmf", join(vectors, row?.ovmf ?? ""), "--vcpus=1", "--vcpu-type=EPYC-v4", "--append="];
  expect(measure("snp", ...guest, "--initrd=", "--kernel=", "--snp-ovmf-hash=").output).toMatchObject({
    measurement: row?.digest,
  });
  const kernel = [...guest, "--kernel=/dev/null"];
  expect(measure("snp", ...kernel, "--initrd=").output).toEqual(measure("snp", ...kernel).output);
});

test("tdx says what its options leave out", async () => {
  const ovmf = join(directory, "tdx-firmware");
  writeFileSync(ovmf, firmware());
  const tdx = async (...args: string[]) => JSON.parse((await say("tdx", "--ovmf", ovmf, ...args)).stdout);
  expect((await tdx()).notPredictable.at(-1)).toEqual({
    name: "RTMR2",
    reason: "covers the kernel command line, which is not given",
  });
  expect(await tdx("--append=quiet", "--initrd=")).toEqual(await tdx("--append=quiet"));
});

test("input from a pipe is measured like a file", () => {
  const file = join(directory, "piped");
  writeFileSync(file, "a kernel");
  const guest = ["--ovmf", join(vectors, "ovmf_AmdSev_suffix.bin"), "--vcpus=1", "--vcpu-type=EPYC-v4"];
  const words = [process.execPath, source, "snp", ...guest, "--kernel=/dev/stdin"];
  const piped = spawnSync("sh", ["-c", 'printf "a kernel" | "$@"', "sh", ...words], { encoding: "utf8" });
  expect(resultOf(piped).output).toEqual(measure("snp", ...guest, `--kernel=${file}`).output);
});

/** The machine's own Node, besides the project's; the project's if there is no other. */
const machinesNode =
  (process.env.PATH ?? "")
    .split(delimiter)
    .filter((folder) => !folder.includes("node_modules"))
    .map((folder) => join(folder, "node"))
    .find((path) => existsSync(path)) ?? process.execPath;

test("the bundle runs by itself, under an older Node, too", async () => {
  const program = join(directory, "bundle/measure.mjs");
  await bundle([{ from: "tools/measure/main.ts", to: program }]);
  const file = join(vectors, expected.igvm[0]?.file ?? "");
  const { output } = measureWith(machinesNode, program, "igvm", file);
  expect(output).toMatchObject({ measurement: expected.igvm[0]?.digest });
  // What Node 20 would not link, wherever this test runs.
  expect(readFileSync(program, "utf8")).not.toMatch(/import\{[^}]*zstd[^}]*\}from"node:zlib"/i);
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
  const disk = join(directory, "initdata.disk");
  const gzip = Buffer.from(output.annotation, "base64");
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(gzip.length));
  writeFileSync(disk, Buffer.concat([Buffer.from("initdata"), length, gzip, Buffer.alloc(512)]));
  expect(measure("initdata", disk).output).toEqual(output);
  expect(measure("initdata", "--policy", document, document).status).toBe(2);
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
  // Kata takes no parameters without a salt.
  expect(measure("verity", data).output).not.toHaveProperty("kernelVerityParams");
});

test("a hash device has whole blocks, even if a single data block needs no tree", async () => {
  const [data, tree] = [join(directory, "one-block"), join(directory, "one-tree")];
  writeFileSync(data, Buffer.alloc(4096, 7));
  const uuid = "00000000-0000-4000-8000-000000000001";
  expect((await say("verity", data, tree, `--uuid=${uuid}`)).status).toBe(0);
  const device = readFileSync(tree);
  expect(device.length).toBe(4096);
  expect(readVeritySuperblock(device)).toMatchObject({ uuid, dataBlocks: 1 });
  expect(device.subarray(512)).toEqual(Buffer.alloc(4096 - 512));
});

test("verity overwrites nothing if it cannot do what it is asked", async () => {
  const [data, tree] = [join(directory, "kept-data"), join(directory, "kept-tree")];
  writeFileSync(data, Buffer.alloc(8192, 7));
  writeFileSync(tree, "precious");
  expect((await say("verity", data, data, "--no-superblock")).stderr).toMatch(
    /kept-data is the data file: the tree would/,
  );
  expect((await say("verity", data, tree)).stderr).toMatch(/--uuid \(or --no-superblock\) is missing/);
  expect((await say("verity", data, tree, "--uuid=x")).stderr).toMatch(/"x" is not a UUID/);
  const odd = await say("verity", data, tree, "--no-superblock", "--hash-block-size=1000");
  expect(odd.stderr).toMatch(/power of two/);
  expect([readFileSync(data), readFileSync(tree, "utf8")]).toEqual([Buffer.alloc(8192, 7), "precious"]);
});

test("mistakes are one sentence without a stack", async () => {
  const [ovmf, bzImage, cpio] = [join(directory, "firmware"), join(directory, "kernel"), join(directory, "initrd")];
  writeFileSync(ovmf, Buffer.alloc(4096));
  writeFileSync(bzImage, kernel());
  writeFileSync(cpio, initrd);
  const vast = join(directory, "vast");
  writeFileSync(vast, "");
  truncateSync(vast, 50_000_000_000);
  for (const [args, message, code] of [
    [
      ["snp", "--ovmf", ovmf, "--vcpus", "1", "--vcpu-type", "EPYC"],
      /^firmware: no OVMF table: .* \(at offset 0xfd0\)\.$/,
      1,
    ],
    [
      ["snp", "--ovmf", "/nowhere", "--vcpus", "1", "--vcpu-type", "EPYC"],
      /^\/nowhere cannot be read: no such file or directory\.$/,
      1,
    ],
    [["igvm", vast], /^.*vast has 50000000000 bytes, expected at most 1073741824\.$/, 1],
    [["igvm", directory], /^.* is a directory, expected a file\.$/, 1],
    [
      ["verity", bzImage, join(directory, "no/tree"), "--no-superblock", "--data-block-size=512"],
      /^\S+no\/tree: no such file or directory \(open\)\.$/,
      1,
    ],
    [
      ["snp", "--ovmf", ovmf, "--vcpus", "1", "--vcpu-type", "EPYC", "--append", "quiet", "ro"],
      /^Too many arguments for 'snp'\. Expected 0 arguments but got 1: ro\.\nSee: measure snp --help$/,
      2,
    ],
    [
      ["snp", "--ovmf", ovmf, "--vcpus", "1", "--vcpu-family", "25"],
      /^--vcpu-family needs --vcpu-model and --vcpu-stepping\.\n/,
      2,
    ],
    [
      ["snp", "--ovmf", ovmf, "--vcpus", "x", "--vcpu-type", "EPYC"],
      /^Option '--vcpus <number>' argument 'x' is invalid\. It must be a number such as 4 or 0x4\.\n/,
      2,
    ],
    [
      ["snp", "--ovmf", join(vectors, "ovmf_AmdSev_suffix.bin"), "--vcpus", "0", "--vcpu-type", "EPYC"],
      /^Option '--vcpus <number>' argument '0' is invalid\. It must be from 1 to 4096\.\n/,
      2,
    ],
    [
      ["snp", "--ovmf", ovmf, "--vcpus", "1", "--vcpu-type", "Pentium"],
      /^Option '--vcpu-type <model>' argument 'Pentium' is invalid\. Allowed choices are EPYC, /,
      2,
    ],
    [["snp", "--vcpu", "1"], /^Unknown option '--vcpu': did you mean --vcpus\?\n/, 2],
    [["constructor"], /^Unknown command 'constructor'\.\n/, 2],
    [
      ["layers", "registry/app:1"],
      /^There is no file or directory registry\/app:1; an image of a registry is named /,
      1,
    ],
    [["measure"], /^Unknown command 'measure'\.\nSee: measure --help$/, 2],
  ] as const) {
    const { status, stderr } = await say(...args);
    expect(status).toBe(code);
    expect(stderr.trim()).toMatch(message);
    expect(stderr).not.toMatch(/\n\s+at /);
  }
  expect((await say("snp", "-h")).stdout).toMatch(/--vcpu-type <model>/);
  expect((await say("--help")).stdout).toMatch(/^ {2}layers +The dm-verity root hash of each layer/m);
  expect(await say()).toMatchObject({ status: 2, stderr: expect.stringContaining("  layers ") });
});
