// measure-agreement.ts [CASES, default 200]: runs random guests and images through our code and through the real tools
// (sev-snp-measure, veritysetup, sfdisk, mkfs, go-sev-guest, osslsigncode), which must agree on every byte.
import { createHash } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { rawSha256, sourceOf, toHex } from "../../measure/bytes.ts";
import { readFirmware } from "../../measure/ovmf.ts";
import { partitionTypes, readFilesystem, readPartitions, writePartitionTable } from "../../measure/partitions.ts";
import { authenticode } from "../../measure/pe.ts";
import { commandLineHash, firmwareLaunch, launchDigest } from "../../measure/snp.ts";
import { contrastReferenceValues } from "../../measure/verifier-formats.ts";
import { buildHashTree, hashTreeSize, type VerityParameters } from "../../measure/verity.ts";
import { veritySuperblock } from "../../measure/verity-superblock.ts";
import { type CpuModel, cpuSignatures, vmms } from "../../measure/vmsa.ts";
import { toStderr } from "../../tools/process/progress.ts";
import { check, run } from "../../tools/process/run.ts";
import { requireHostPrograms } from "../../tools/programs/host-packages.ts";
import { vector } from "../unit/measure/vectors.ts";
import { contrastDecoder, debianFirmware, debianKernel, sevSnpMeasure, veritysetup } from "./real-tools.ts";

const cases = Number(process.argv[2] ?? 200);
const directory = mkdtempSync(join(tmpdir(), "measure-agreement-"));
const at = (name: string) => join(directory, name);
const file = (name: string, bytes: Uint8Array | string) => {
  writeFileSync(at(name), bytes);
  return at(name);
};

/** Checks one property of a subject and reports for how many cases it held. */
async function agree<Case>(
  subject: string,
  numRuns: number,
  arbitrary: fc.Arbitrary<Case>,
  holds: (value: Case) => Promise<void>,
) {
  const begin = Date.now();
  await fc.assert(fc.asyncProperty(arbitrary, holds), { numRuns, endOnFailure: true });
  console.log(`ok     ${subject}: ${numRuns} cases agree (${((Date.now() - begin) / 1000).toFixed(1)} s)`);
}

function expectEqual(what: string, ours: unknown, theirs: unknown): void {
  if (ours !== theirs) throw new Error(`${what}: ours is ${ours}, the real tool's is ${theirs}`);
}

async function launchDigests(): Promise<void> {
  const [command, ...args] = await sevSnpMeasure(toStderr);
  const suffixes = ["ovmf_AmdSev_suffix.bin", "ovmf_OvmfX64_suffix.bin"].map((name) => file(name, vector(name)));
  const firmware = [
    ...suffixes,
    ...(await debianFirmware(toStderr)).filter((path) => readFirmware(readFileSync(path)).sev),
  ];
  const whole = Buffer.from(readFileSync(firmware[2] ?? ""));
  const suffix = vector("ovmf_AmdSev_suffix.bin");
  whole.set(suffix, whole.length - suffix.length);
  firmware.push(file("whole-AmdSev.fd", whole));
  const guest = fc.record({
    ovmf: fc.constantFrom(...firmware),
    model: fc.constantFrom(...(Object.keys(cpuSignatures) as CpuModel[])),
    vcpus: fc.integer({ min: 1, max: 64 }),
    guestFeatures: fc.constantFrom(0x1, 0x21, 0x3f),
    vmm: fc.constantFrom(...vmms),
    kernel: fc.option(fc.uint8Array({ maxLength: 9000 }), { nil: undefined }),
    initrd: fc.option(fc.uint8Array({ maxLength: 9000 }), { nil: undefined }),
    commandLine: fc.string({ unit: "grapheme" }).filter((text) => !text.includes("\0") && !text.startsWith("-")),
  });
  await agree("launch digests with sev-snp-measure", cases, guest, async (each) => {
    const options = [
      "--vcpus",
      `${each.vcpus}`,
      "--vcpu-type",
      each.model,
      "--vmm-type",
      each.vmm,
      "--ovmf",
      each.ovmf,
    ];
    options.push("--guest-features", `0x${each.guestFeatures.toString(16)}`);
    if (each.kernel) options.push("--kernel", file("kernel", each.kernel), `--append=${each.commandLine}`);
    if (each.kernel && each.initrd) options.push("--initrd", file("initrd", each.initrd));
    const bytes = readFileSync(each.ovmf);
    const ours = () =>
      toHex(
        launchDigest(
          {
            ...firmwareLaunch(bytes, readFirmware(bytes)),
            guestFeatures: each.guestFeatures,
            vmm: each.vmm,
            ...(each.kernel && {
              kernel: {
                kernel: rawSha256(each.kernel),
                initrd: rawSha256(each.initrd ?? new Uint8Array()),
                commandLine: commandLineHash(each.commandLine),
              },
            }),
          },
          cpuSignatures[each.model],
          each.vcpus,
        ),
      );
    const theirs = await run(command, [...args, "--mode", "snp", ...options]);
    if (theirs.code === 0) expectEqual("digest", ours(), theirs.stdout.trim());
    else expectEqual("refusal", refuses(ours), true);
  });
}

function refuses(action: () => unknown): boolean {
  try {
    action();
    return false;
  } catch {
    return true;
  }
}

async function verityTrees(): Promise<void> {
  const [command, ...args] = await veritysetup(toStderr);
  const blockSize = fc.constantFrom(512, 1024, 4096);
  const image = fc.record({
    algorithm: fc.constantFrom("sha256" as const, "sha384" as const, "sha512" as const),
    dataBlockSize: blockSize,
    hashBlockSize: blockSize,
    dataBlocks: fc.oneof(fc.integer({ min: 2, max: 40 }), fc.integer({ min: 100, max: 3000 })),
    salt: fc.uint8Array({ maxLength: 256 }),
    uuid: fc.uuid(),
    seed: fc.string(),
  });
  await agree("dm-verity with veritysetup", cases, image, async ({ uuid, seed, ...parameters }) => {
    const data = createHash("shake256", { outputLength: parameters.dataBlocks * parameters.dataBlockSize })
      .update(seed)
      .digest();
    const { root, device } = hashDevice(data, parameters, uuid);
    const [dataFile, theirs] = [file("data", data), file("theirs", "")];
    const { algorithm, dataBlockSize, hashBlockSize, salt } = parameters;
    const sizes = [`--data-block-size=${dataBlockSize}`, `--hash-block-size=${hashBlockSize}`];
    const options = [
      `--hash=${algorithm}`,
      ...sizes,
      `--salt=${salt.length === 0 ? "-" : toHex(salt)}`,
      `--uuid=${uuid}`,
    ];
    const printed = await check(command, [...args, "format", dataFile, theirs, ...options]);
    expectEqual("root hash", root, /Root hash:\s+(\w+)/.exec(printed)?.[1]);
    expectEqual("hash device", toHex(rawSha256(device)), toHex(rawSha256(readFileSync(theirs))));
    await check(command, [...args, "verify", dataFile, file("ours", device), root]);
  });
}

function hashDevice(data: Uint8Array, parameters: VerityParameters, uuid: string): { root: string; device: Buffer } {
  const start = parameters.hashBlockSize;
  const device = Buffer.alloc(start + hashTreeSize(parameters));
  device.set(veritySuperblock({ ...parameters, uuid }));
  const root = buildHashTree([data], parameters, (offset, block) => device.set(block, start + offset));
  return { root: toHex(root), device };
}

async function partitionTables(): Promise<void> {
  await requireHostPrograms([{ program: "sfdisk", package: "fdisk" }], toStderr);
  const name = fc.stringMatching(/^[a-z]{1,30}$/);
  const disk = fc.record({
    uuid: fc.uuid(),
    partitions: fc.array(fc.record({ uuid: fc.uuid(), name, sectors: fc.integer({ min: 1, max: 200 }) }), {
      minLength: 1,
      maxLength: 12,
    }),
  });
  await agree("partition tables with sfdisk", cases, disk, async ({ uuid, partitions }) => {
    let firstSector = 34;
    const placed = partitions.map((partition) => {
      firstSector += partition.sectors;
      return { ...partition, firstSector: firstSector - partition.sectors, type: partitionTypes.linux };
    });
    const sectors = firstSector + 40;
    const table = writePartitionTable({ diskUuid: uuid, sectors, partitions: placed });
    const image = Buffer.alloc(sectors * 512);
    image.set(table.primary);
    image.set(table.backup, image.length - table.backup.length);
    const dump = JSON.parse(await check("sfdisk", ["--json", file("disk", image)])).partitiontable;
    expectEqual("disk", String(dump.id).toLowerCase(), uuid);
    const theirs = dump.partitions.map((each: Record<string, unknown>) => [
      each.start,
      each.size,
      String(each.uuid).toLowerCase(),
      each.name,
    ]);
    expectEqual(
      "partitions",
      JSON.stringify(placed.map((each) => [each.firstSector, each.sectors, each.uuid, each.name])),
      JSON.stringify(theirs),
    );
    const verified = await run("sfdisk", ["--verify", at("disk")]);
    expectEqual("verification", /No errors detected/.test(verified.stdout), true);
    const script = placed.map((each) => `start=${each.firstSector}, size=${each.sectors}`).join("\n");
    for (const label of placed.length > 4 ? ["gpt"] : ["gpt", "dos"]) {
      truncateSync(file("made", ""), (sectors + 2048) * 512);
      await check("sfdisk", ["--quiet", at("made")], { input: `label: ${label}\nfirst-lba: 34\n${script}\n` });
      const read = readPartitions(sourceOf(readFileSync(at("made"))));
      expectEqual(
        label,
        JSON.stringify(read.map((each) => [each.offset, each.size])),
        JSON.stringify(placed.map((each) => [each.firstSector * 512, each.sectors * 512])),
      );
    }
  });
}

async function fileSystems(): Promise<void> {
  await requireHostPrograms(
    [
      { program: "mkfs.ext4", package: "e2fsprogs" },
      { program: "mkfs.erofs", package: "erofs-utils" },
      { program: "mksquashfs", package: "squashfs-tools" },
    ],
    toStderr,
  );
  const tree = mkdtempSync(at("tree-"));
  writeFileSync(join(tree, "file"), Buffer.alloc(100_000, 7));
  const made: [type: string, command: string[]][] = [
    ["erofs", ["mkfs.erofs", "--quiet", at("erofs"), tree]],
    ["squashfs", ["mksquashfs", tree, at("squashfs"), "-quiet", "-no-progress"]],
    ["ext4", ["mkfs.ext4", "-q", at("ext4"), "4096k"]],
    ["ext4", ["mkfs.ext4", "-q", "-b", "4096", "-O", "^64bit", at("ext4"), "8192k"]],
  ];
  for (const [type, [command = "", ...options]] of made) {
    rmSync(at(type), { force: true });
    await check(command, options);
    const read = readFilesystem(sourceOf(readFileSync(at(type))));
    expectEqual("type", read?.type, type);
    // squashfs pads its last block.
    const { size } = statSync(at(type));
    expectEqual(`size of ${type}`, type === "squashfs" ? Math.ceil((read?.size ?? 0) / 4096) * 4096 : read?.size, size);
  }
  console.log(`ok     file systems with mkfs: ${made.length} cases agree`);
}

async function contrastManifests(): Promise<void> {
  const [command, ...args] = await contrastDecoder(toStderr);
  const measurement = fc.uint8Array({ minLength: 48, maxLength: 48 }).map(toHex);
  const row = fc.record({ product: fc.constantFrom("Milan", "Genoa", "Turin"), vcpus: fc.constant(1), measurement });
  const component = fc.integer({ min: 0, max: 255 });
  const manifest = fc.record({
    rows: fc.array(row, { minLength: 1, maxLength: 8 }),
    // Bit 17 is always set; the decoder does not know the bits above 24.
    policy: fc.bigInt({ min: 0n, max: (1n << 25n) - 1n }).map((bits) => bits | (1n << 17n)),
    tcb: fc.option(fc.record({ bootloader: component, tee: component, snp: component, microcode: component }), {
      nil: undefined,
    }),
    hosts: fc.record(
      {
        smt: fc.boolean(),
        tsme: fc.boolean(),
        chipIds: fc.array(fc.uint8Array({ minLength: 64, maxLength: 64 }).map(toHex)),
        mitigationVector: fc.nat(),
      },
      { requiredKeys: [] },
    ),
  });
  await agree(
    "Contrast's reference values with go-sev-guest",
    cases,
    manifest,
    async ({ rows, policy, tcb, hosts }) => {
      const values = contrastReferenceValues(
        { snp: rows, tdx: [], notPredictable: [] },
        { platform: "metal-qemu-snp", guestPolicy: policy, hosts: { ...(tcb && { snpTcb: [tcb] }), ...hosts } },
      );
      const answers = await check(command, args, { input: `${JSON.stringify(values)}\n` });
      expectEqual("policies", answers, `${policy.toString(16)} ${hosts.smt ?? true}\n`.repeat(rows.length));
    },
  );
}

/** Debian's signed kernel, with random bytes changed behind its headers. */
async function kernels(): Promise<void> {
  await requireHostPrograms([{ program: "osslsigncode", package: "osslsigncode" }], toStderr);
  const signed = await debianKernel(toStderr);
  const head = 4096;
  const signature = 1 << 14;
  const place = fc.integer({ min: head, max: signed.length - signature });
  const changes = fc.array(fc.tuple(place, fc.integer({ min: 0, max: 255 })), { maxLength: 4 });
  await agree("kernels' Authenticode digests with osslsigncode", Math.min(cases, 20), changes, async (bytes) => {
    const changed = Buffer.from(signed);
    for (const [offset, value] of bytes) changed[offset] = value;
    // It exits with 1, since nobody vouches for Debian's certificate.
    const { stdout } = await run("osslsigncode", ["verify", "-in", file("kernel", changed)]);
    const [, theirs = ""] = /^Calculated message digest *: ([0-9A-F]+)/m.exec(stdout) ?? [];
    expectEqual("digest", toHex(authenticode(sourceOf(changed), "sha256")), theirs.toLowerCase());
  });
}

try {
  await contrastManifests();
  await kernels();
  await verityTrees();
  await launchDigests();
  await partitionTables();
  await fileSystems();
} finally {
  rmSync(directory, { recursive: true, force: true });
}
