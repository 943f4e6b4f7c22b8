import fc from "fast-check";
import { expect, test } from "vitest";
import { type ByteSource, guidBytes, guidText, sourceOf } from "../../../measure/bytes.ts";
import { collectInputs } from "../../../measure/collect-inputs.ts";
import { readIgvm } from "../../../measure/igvm.ts";
import { parseCommandLine } from "../../../measure/kernel-command-line.ts";
import { initrdFormat, readKernel } from "../../../measure/linux.ts";
import { readFirmware } from "../../../measure/ovmf.ts";
import { partitionTypes, readFilesystem, readPartitions } from "../../../measure/partitions.ts";
import { Refusal } from "../../../runtime/refusal.ts";
import { mutations, readers } from "./fuzz-targets.ts";
import { erofs, firmware, kernel, rootfs } from "./pod-vm.ts";
import { vector } from "./vectors.ts";

test("firmware: table, SEV and TDX metadata", () => {
  const read = readFirmware(firmware());
  expect(read).toMatchObject({
    size: 65536,
    gpa: 0xffff0000,
    resetEip: 0x80b004,
    hashTable: { gpa: 0x810c00, size: 1024 },
    svsm: false,
  });
  expect(read.sev?.map((section) => section.type)).toContain(0x10);
  expect(read.tdx).toHaveLength(2);
});

test("kernel, initrd, partitions and file systems", () => {
  const bytes = kernel();
  expect(readKernel(bytes, bytes.length)).toEqual({
    kind: "bzImage",
    version: "6.18.35 (test) #1",
    protocol: 0x20f,
    commandLineLimit: 2047,
    efiStub: true,
  });
  expect(initrdFormat(Buffer.from("28b52ffd00", "hex"))).toBe("zstd");
  const { image } = rootfs();
  expect(readPartitions(sourceOf(image))).toMatchObject([
    { index: 1, type: partitionTypes.rootX64, name: "root", offset: 32768, size: 262144 },
    { index: 2, type: partitionTypes.rootVerityX64, offset: 294912, size: 4096 },
  ]);
  expect(readFilesystem(sourceOf(erofs()))).toMatchObject({ type: "erofs", size: 262144, blockSize: 4096 });
  const ext4 = Buffer.alloc(65536);
  ext4.writeUInt32LE(60, 1028);
  ext4.writeUInt16LE(0xef53, 1080);
  expect(readFilesystem(sourceOf(ext4))).toMatchObject({ type: "ext4", size: 61440, blockSize: 1024 });
  const squashfs = Buffer.alloc(4096);
  squashfs.write("hsqs");
  squashfs.writeUInt32LE(131072, 12);
  squashfs.writeUInt16LE(4, 28);
  squashfs.writeBigUInt64LE(4000n, 40);
  expect(readFilesystem(sourceOf(squashfs))).toMatchObject({ type: "squashfs", size: 4000, blockSize: 131072 });
});

test("an MBR image, as Kata's own builder makes them", () => {
  const image = Buffer.alloc(512 * 100);
  image.writeUInt16LE(0xaa55, 510);
  image[446 + 4] = 0x83;
  image.writeUInt32LE(10, 446 + 8);
  image.writeUInt32LE(50, 446 + 12);
  expect(readPartitions(sourceOf(image))).toEqual([{ index: 1, type: "0x83", offset: 5120, size: 25600 }]);
  image.writeUInt32LE(500, 446 + 12);
  expect(() => readPartitions(sourceOf(image))).toThrow(
    "partition 1 ends at byte 261120, but the image has 51200 bytes (at offset 0x1be)",
  );
});

const edit = (bytes: Uint8Array, offset: number, value: number): Buffer => {
  const copy = Buffer.from(bytes);
  copy.writeUInt32LE(value, offset);
  return copy;
};

const vast: ByteSource = {
  size: 50_000_000_000,
  read: () => {
    throw new Error("was read");
  },
};

test.each<[string, () => unknown, string]>([
  ["truncated firmware", () => readFirmware(firmware().subarray(0, 40)), "40 bytes is too short for a firmware image"],
  [
    "no table",
    () => readFirmware(Buffer.alloc(4096)),
    "no OVMF table: expected GUID 96b582de-1fb2-45f7-baea-a366c55a082d",
  ],
  [
    "table too long",
    () => readFirmware(edit(vector("ovmf_AmdSev_suffix.bin"), 4096 - 50, 0x82deffff)),
    "the OVMF table says it has 65535 bytes",
  ],
  [
    "truncated kernel",
    () => readKernel(kernel(), 3000),
    "says it has 5120 bytes, but there are 3000: it is truncated (at offset 0x1f4)",
  ],
  [
    "a kernel version far away",
    () => readKernel(edit(kernel(), 0x20c, 0xfff0_0000), 5120),
    "has its version string at 0x101f0, but its setup ends at 0x400 (at offset 0x20e)",
  ],
  [
    "vast firmware",
    () => collectInputs({ firmware: vast }),
    "firmware: 50000000000 bytes is more than 1073741824, which no such file has (at offset 0x0)",
  ],
  ["vast IGVM file", () => collectInputs({ igvm: vast }), "IGVM file: 50000000000 bytes is more than"],
  [
    "not a kernel",
    () => readKernel(Buffer.alloc(1024), 1024),
    'is neither a bzImage ("HdrS" is missing) nor an ELF file (at offset 0x202)',
  ],
  ["unknown initrd", () => initrdFormat(Buffer.from("hello")), "starts with 68656c6c6f, which is neither cpio"],
  ["IGVM magic", () => readIgvm(Buffer.from("IGV?....")), 'starts with "IGV?", expected "IGVM" (at offset 0x0)'],
  [
    "truncated IGVM",
    () => readIgvm(vector("igvm-tooling-test_bzImage-x64-enc.igvm").subarray(0, 100_000)),
    "it is truncated (at offset 0x10)",
  ],
  [
    "IGVM checksum",
    () => readIgvm(edit(vector("igvm-tooling-test_bzImage-x64-enc.igvm"), 0x48, 5)),
    "but its headers have",
  ],
  [
    "GPT checksum",
    () => readPartitions(sourceOf(edit(rootfs().image, 512 + 56, 1))),
    "has a GPT header whose checksum is wrong (at offset 0x210)",
  ],
  [
    "GPT entries",
    () => readPartitions(sourceOf(edit(rootfs().image, 1024 + 40, 9))),
    "has partition entries whose checksum is wrong (at offset 0x400)",
  ],
])("%s: what and where", (_, read, message) => {
  expect(read).toThrow(Refusal);
  expect(read).toThrow(message);
});

test("a GUID reads as it was written", () => {
  fc.assert(fc.property(fc.uuid(), (uuid) => guidText(guidBytes(uuid)) === uuid));
});

test("a command line splits where the kernel splits it", () => {
  expect(parseCommandLine(' quiet a="b c" dm-mod.create="x,,,ro,0 8 verity 1" "k=v w" e= ')).toEqual([
    { key: "quiet" },
    { key: "a", value: "b c" },
    { key: "dm-mod.create", value: "x,,,ro,0 8 verity 1" },
    { key: "k", value: "v w" },
    { key: "e", value: "" },
  ]);
});

test.each(Object.keys(readers) as (keyof typeof readers)[])("%s: damaged files are refused, never crash", (name) => {
  const { sample, read } = readers[name];
  fc.assert(
    fc.property(mutations(sample), (bytes) => {
      try {
        read(bytes);
      } catch (error) {
        if (!(error instanceof Refusal)) throw error;
      }
    }),
    { numRuns: 300 },
  );
});
