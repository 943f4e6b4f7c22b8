import { crc32 } from "node:zlib";
import { type ByteSource, rawSha256 } from "../../../measure/bytes.ts";
import { type CollectOptions, collectInputs } from "../../../measure/collect-inputs.ts";
import { type KataBuild, kataCommandLine } from "../../../measure/kata-kernel-command-line.ts";
import { partitionTypes, writePartitionTable } from "../../../measure/partitions.ts";
import { checkConsistency, withCommandLine } from "../../../measure/payload-consistency.ts";
import { buildHashTree, hashTreeSize, type VerityParameters } from "../../../measure/verity.ts";
import { kernelVerityParams, veritySuperblock } from "../../../measure/verity-superblock.ts";
import type { FlavourName } from "../../../runtime/flavours.ts";
import { kataConfiguration } from "../../../runtime/kata-configuration.ts";
import type { FileRole, GuestImage, PayloadFile } from "../../../runtime/manifest.ts";
import { platforms } from "../../../runtime/platforms.ts";
import type { PlatformName } from "../../../runtime/spec.ts";
import { vector } from "./vectors.ts";

/* The parts of a pod-VM image, small and synthetic, with every header that the readers look at. */

/** A firmware of 16 pages that ends like OVMF's AmdSev build, and a TDX metadata table that its GUID entry points to. */
export function firmware(fill = 0x5a): Buffer {
  const bytes = Buffer.alloc(16 * 4096, fill);
  bytes.set(vector("ovmf_AmdSev_suffix.bin"), 15 * 4096);
  bytes.write("etc/boot/\0", 0x100, "latin1");
  // The suffix's entry says that the metadata is 0x9d0 bytes before the end.
  const at = bytes.length - 0x9d0;
  bytes.write("TDVF", at, "latin1");
  for (const [index, value] of [16 + 2 * 32, 1, 2].entries()) bytes.writeUInt32LE(value, at + 4 + index * 4);
  const sections = [
    [0x1000, 0x4000, 0xffff1000, 0x4000, 0, 1],
    [0, 0, 0x809000, 0x2000, 2, 0],
  ];
  for (const [index, [data = 0, raw = 0, gpa = 0, size = 0, type = 0, attributes = 0]] of sections.entries()) {
    const entry = at + 16 + index * 32;
    bytes.writeUInt32LE(data, entry);
    bytes.writeUInt32LE(raw, entry + 4);
    bytes.writeBigUInt64LE(BigInt(gpa), entry + 8);
    bytes.writeBigUInt64LE(BigInt(size), entry + 16);
    bytes.writeUInt32LE(type, entry + 24);
    bytes.writeUInt32LE(attributes, entry + 28);
  }
  return bytes;
}

/** A QEMU that offers the kernel as it is. */
const qemu = Buffer.from("\x7fELF … etc/boot/kernel\0 …");

/** A bzImage of one setup sector and one page, also a PE executable without sections. */
export function kernel(version = "6.18.35 (test) #1", commandLineLimit = 2047): Buffer {
  const bytes = Buffer.alloc(1024 + 4096, 0x90);
  bytes.fill(0, 0x1f1, 0x268);
  bytes.write("MZ", 0, "latin1");
  bytes.writeUInt32LE(0x40, 0x3c);
  bytes.fill(0, 0x40, 0x100);
  bytes.write("PE\0\0", 0x40, "latin1");
  bytes.writeUInt16LE(0x20b, 0x40 + 24);
  bytes.writeUInt32LE(0x400, 0x40 + 24 + 60);
  bytes.writeUInt32LE(6, 0x40 + 24 + 108);
  bytes[0x1f1] = 1;
  bytes.writeUInt32LE(4096 / 16, 0x1f4);
  bytes.writeUInt16LE(0xaa55, 0x1fe);
  bytes.write("HdrS", 0x202, "latin1");
  bytes.writeUInt16LE(0x20f, 0x206);
  bytes.writeUInt16LE(0x100, 0x20e);
  bytes.write(`${version}\0`, 0x300, "latin1");
  bytes.writeUInt32LE(commandLineLimit, 0x238);
  return bytes;
}

export const initrd = Buffer.from("070701 not much of an archive");
export const salt = Buffer.alloc(32, 0xab);

/** 64 blocks that start like an erofs. */
export function erofs(fill = 1): Buffer {
  const bytes = Buffer.alloc(64 * 4096, fill);
  bytes.fill(0, 1024, 1024 + 128);
  bytes.writeUInt32LE(0xe0f5e1e2, 1024);
  bytes[1024 + 12] = 12;
  bytes.writeUInt32LE(64, 1024 + 36);
  return bytes;
}

/** A GPT image: the data and its hash tree, with or without a superblock as systemd-repart and Kata make them. */
export function rootfs(options: { fill?: number; superblock?: boolean } = {}): {
  image: Buffer;
  root: string;
  verityParams: string;
} {
  const { fill = 1, superblock = false } = options;
  const data = erofs(fill);
  const parameters: VerityParameters = {
    algorithm: "sha256",
    dataBlockSize: 4096,
    hashBlockSize: 4096,
    dataBlocks: 64,
    salt,
  };
  const start = superblock ? 4096 : 0;
  const tree = Buffer.alloc(start + hashTreeSize(parameters));
  if (superblock) tree.set(veritySuperblock({ ...parameters, uuid: "00000000-0000-4000-8000-000000000001" }));
  const root = buildHashTree([data], parameters, (offset, block) => tree.set(block, start + offset));
  const sectors = 64 + data.length / 512 + tree.length / 512 + 64;
  const first = { firstSector: 64, sectors: data.length / 512 };
  const table = writePartitionTable({
    diskUuid: "00000000-0000-4000-8000-000000000002",
    sectors,
    partitions: [
      { ...first, type: partitionTypes.rootX64, uuid: "00000000-0000-4000-8000-000000000003", name: "root" },
      {
        firstSector: 64 + first.sectors,
        sectors: tree.length / 512,
        type: partitionTypes.rootVerityX64,
        uuid: "00000000-0000-4000-8000-000000000004",
        name: "root-verity",
      },
    ],
  });
  const image = Buffer.alloc(sectors * 512);
  image.set(table.primary, 0);
  image.set(data, 64 * 512);
  image.set(tree, 64 * 512 + data.length);
  image.set(table.backup, image.length - table.backup.length);
  return { image, root: root.toString("hex"), verityParams: kernelVerityParams(parameters, root) };
}

export type IgvmPart = readonly [type: number, ...fields: readonly (readonly [bytes: 1 | 2 | 4 | 8, value: number])[]];

export const igvmPage = (gpa: number, mask: number, flags: number, type: number, dataAt = 0): IgvmPart =>
  [770, [8, gpa], [4, mask], [4, dataAt], [4, flags], [2, type], [2, 0]] as const;

/** An IGVM file of these variable headers, followed by their data. */
export function igvmOf(version: 1 | 2, parts: readonly IgvmPart[], data = Buffer.alloc(4096)): Buffer {
  const headers = Buffer.concat(
    parts.map(([type, ...fields]) => {
      const content = Buffer.concat(
        fields.map(([bytes, value]) => {
          const field = Buffer.alloc(8);
          field.writeBigUInt64LE(BigInt(value));
          return field.subarray(0, bytes);
        }),
      );
      const header = Buffer.alloc(8 + Math.ceil(content.length / 8) * 8);
      header.writeUInt32LE(type, 0);
      header.writeUInt32LE(content.length, 4);
      header.set(content, 8);
      return header;
    }),
  );
  const fixed = Buffer.alloc(version === 1 ? 24 : 32);
  const start = fixed.length;
  fixed.write("IGVM");
  for (const [index, value] of [version, start, headers.length, start + headers.length + data.length].entries())
    fixed.writeUInt32LE(value, 4 + index * 4);
  if (version === 2) fixed.writeUInt32LE(4096, 28);
  fixed.writeUInt32LE(crc32(headers, crc32(fixed)), 20);
  return Buffer.concat([fixed, headers, data]);
}

export const contrastGuest = (root: string): GuestImage => ({
  rootfsType: "erofs",
  kernelParams: `init=/nix/store/x/init roothash=${root} cgroup_no_v1=all`,
  kernelVerityParams: "",
});

export const contrast = { flavour: "contrast-go", kataVersion: "3.31.0" };

/** What is rendered for a payload with these parts. */
export const configurationFor = (
  { flavour, kataVersion }: KataBuild,
  guest: GuestImage,
  platform: PlatformName = "metal-qemu-snp",
) =>
  kataConfiguration({
    platform: platforms[platform],
    flavour: flavour as FlavourName,
    kataVersion,
    path: (role) => `/opt/edgeless/handler/${role}`,
    place: (path) => `/opt/edgeless/handler/${path}`,
    guest,
    kubeletRoot: "/var/lib/kubelet",
  });

/** The command line that Kata makes of what is rendered. */
export const passedLine = (build: KataBuild, guest: GuestImage): string | undefined =>
  kataCommandLine(build, configurationFor(build, guest));

/** As a file is read: what one call returned is gone at the next. */
export function fileSource(bytes: Uint8Array): ByteSource {
  let last = Buffer.alloc(0);
  return {
    size: bytes.length,
    read(offset, length) {
      last.fill(0xee);
      last = Buffer.from(bytes.subarray(offset, offset + length));
      return last;
    },
  };
}

/** The manifest's entries of files with these contents. */
export const filesOf = (parts: Partial<Record<FileRole, Uint8Array>>): PayloadFile[] =>
  Object.entries(parts).map(([role, bytes]) => ({
    role: role as FileRole,
    path: `share/${role}`,
    mode: "0644",
    size: bytes.length,
    sha256: Buffer.from(rawSha256(bytes)).toString("hex"),
  }));

/** The inputs of a whole pod VM as Contrast builds it, and what is rendered for it. */
export function podVm(
  changes: { firmware?: Buffer; kernel?: Buffer; initrd?: Buffer; image?: Buffer; vmm?: Buffer } & Partial<
    CollectOptions & KataBuild
  > = {},
) {
  const made = rootfs({ superblock: true });
  const parts = { firmware: firmware(), kernel: kernel(), initrd, image: made.image, vmm: qemu, ...changes };
  const guest = changes.guest ?? contrastGuest(made.root);
  const build = { flavour: parts.flavour ?? contrast.flavour, kataVersion: parts.kataVersion ?? contrast.kataVersion };
  const collected = collectInputs(
    {
      firmware: fileSource(parts.firmware),
      kernel: fileSource(parts.kernel),
      initrd: fileSource(parts.initrd),
      rootfs: fileSource(parts.image),
      vmm: fileSource(parts.vmm),
    },
    { guest, commandLine: changes.commandLine },
  );
  const passed = passedLine(build, guest);
  const files = filesOf({
    firmware: parts.firmware,
    kernel: parts.kernel,
    initrd: parts.initrd,
    rootfs: parts.image,
    vmm: parts.vmm,
  });
  const inputs = withCommandLine(collected, passed);
  return { parts, files, guest, build, passed, inputs, root: made.root, kernelSha256: rawSha256(parts.kernel) };
}

/** What is wrong with a pod VM, or with one whose inputs are others. */
export const problemsOf = (
  { files, guest, build, passed, inputs }: ReturnType<typeof podVm>,
  tee: "snp" | "tdx" | "none" = "snp",
  others = inputs,
): string[] => checkConsistency({ inputs: others, files, guest, passed, ...build, tee });
