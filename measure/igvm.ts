import { crc32 } from "node:zlib";
import { hex, toHex, View } from "./bytes.ts";

/**
 * IGVM files (microsoft/igvm, igvm_defs): a fixed header, a list of type-length-value headers, and file data that those
 * point to. All numbers little-endian, addresses guest-physical, offsets from the start of the file.
 */
export interface Igvm {
  version: number;
  /** The variable headers, read from the file on each iteration: a file with many headers takes no memory. */
  headers(): Generator<IgvmHeader>;
  platforms: IgvmPlatform[];
  /** Guest policies by compatibility mask. */
  policies: { policy: bigint; mask: number }[];
  idBlocks: IgvmIdBlock[];
}

export interface IgvmPlatform {
  /** The bit by which other headers say that they are for this platform. */
  mask: number;
  type: number;
  highestVtl: number;
  version: number;
  sharedGpaBoundary: bigint;
}

export const igvmPlatformType = { native: 0, vsm: 1, sevSnp: 2, tdx: 3, sev: 4, sevEs: 5, cca: 6 } as const;
export const igvmPageType = { normal: 0, secrets: 1, cpuid: 2, cpuidXf: 3 } as const;

export type IgvmHeader =
  | { kind: "page"; offset: number; mask: number; gpa: bigint; flags: number; type: number; data?: Uint8Array }
  | { kind: "parameter-area"; offset: number; index: number; size: number; data?: Uint8Array }
  | { kind: "parameter-insert"; offset: number; mask: number; gpa: bigint; index: number }
  | { kind: "vp-context"; offset: number; mask: number; gpa: bigint; vp: number; data: Uint8Array }
  /** Anything that does not enter an SNP launch digest: name and raw contents. */
  | { kind: "other"; offset: number; name: string; mask?: number; content: Uint8Array };

export const igvmPageFlag = { large: 1, unmeasured: 2, shared: 4 } as const;

export interface IgvmIdBlock {
  mask: number;
  authorKeyEnabled: boolean;
  launchDigest: string;
  familyId: string;
  imageId: string;
  version: number;
  guestSvn: number;
  idKeyAlgorithm: number;
  authorKeyAlgorithm: number;
  /** Curve and coordinates, little-endian in 72 bytes each. */
  idKey: { curve: number; qx: Uint8Array; qy: Uint8Array };
  idKeySignature: { r: Uint8Array; s: Uint8Array };
}

/** Header types: name, smallest content in bytes, offset of the compatibility mask where there is one. */
const types: Record<number, [name: string, size: number, maskAt?: number]> = {
  1: ["SUPPORTED_PLATFORM", 16, 0],
  257: ["GUEST_POLICY", 16, 8],
  258: ["RELOCATABLE_REGION", 48, 0],
  259: ["PAGE_TABLE_RELOCATION_REGION", 32, 0],
  260: ["CORIM_DOCUMENT", 16, 0],
  261: ["CORIM_SIGNATURE", 16, 0],
  262: ["CCA_POLICY", 32, 0],
  263: ["VERSION_STRING", 0],
  769: ["PARAMETER_AREA", 16],
  770: ["PAGE_DATA", 24, 8],
  771: ["PARAMETER_INSERT", 16, 8],
  772: ["VP_CONTEXT", 20, 8],
  773: ["REQUIRED_MEMORY", 24, 8],
  775: ["VP_COUNT_PARAMETER", 8],
  776: ["SRAT", 8],
  777: ["MADT", 8],
  778: ["MMIO_RANGES", 8],
  779: ["SNP_ID_BLOCK", 696, 0],
  780: ["MEMORY_MAP", 8],
  781: ["ERROR_RANGE", 16, 8],
  782: ["COMMAND_LINE", 8],
  783: ["SLIT", 8],
  784: ["PPTT", 8],
  785: ["VBS_MEASUREMENT", 864, 0],
  786: ["DEVICE_TREE", 8],
  787: ["ENVIRONMENT_INFO_PARAMETER", 8],
};

const file = "IGVM file";

/** Reads and checks every header. */
export function readIgvm(bytes: Uint8Array): Igvm {
  const view = new View(bytes, file);
  const magic = view.text(0, 4, "magic");
  if (magic !== "IGVM") view.fail(0, `starts with "${magic}", expected "IGVM"`);
  const version = view.u32(4, "format version");
  if (version !== 1 && version !== 2) view.fail(4, `has format version ${version}, expected 1 or 2`);
  if (version === 2 && view.u32(28, "page size") !== 4096) {
    view.fail(28, `has pages of ${view.u32(28, "page size")} bytes, expected 4096`);
  }
  const start = view.u32(8, "variable header offset");
  const size = view.u32(12, "variable header size");
  const fixed = version === 2 ? 32 : 24;
  if (start < fixed || start % 8 !== 0)
    view.fail(8, `has its variable headers at ${hex(start)}, expected an aligned offset after the fixed header`);
  view.need(start, size, "the variable headers");
  const total = view.u32(16, "file size");
  if (total > bytes.length) view.fail(16, `says it has ${total} bytes, but there are ${bytes.length}: it is truncated`);
  const expected = view.u32(20, "checksum");
  const checksum = crc32(bytes.subarray(24, start + size), crc32(Buffer.alloc(4), crc32(bytes.subarray(0, 20))));
  if (checksum !== expected) view.fail(20, `has checksum ${hex(expected)}, but its headers have ${hex(checksum)}`);

  const igvm: Igvm = {
    version,
    headers: () => walk(view, start, size),
    platforms: [],
    policies: [],
    idBlocks: [],
  };
  for (const header of igvm.headers()) {
    if (header.kind !== "other") continue;
    const content = new View(header.content, file, header.offset + 8);
    if (header.name === "SUPPORTED_PLATFORM") igvm.platforms.push(readPlatform(content));
    else if (header.name === "GUEST_POLICY")
      igvm.policies.push({ policy: content.u64(0, "policy"), mask: content.u32(8, "mask") });
    else if (header.name === "SNP_ID_BLOCK") igvm.idBlocks.push(readIdBlock(content));
    else continue;
    if (igvm.platforms.length + igvm.policies.length + igvm.idBlocks.length > 128) {
      view.fail(header.offset, "has more platforms, policies and ID blocks than there are compatibility bits");
    }
  }
  return igvm;
}

function* walk(view: View, start: number, size: number): Generator<IgvmHeader> {
  const end = start + size;
  for (let at = start; at < end; ) {
    const raw = view.u32(at, "header type");
    const length = view.u32(at + 4, "header length");
    if (at + 8 + length > end) {
      view.fail(at, `header of type ${hex(raw)} has ${length} bytes, but the variable headers end at ${hex(end)}`);
    }
    const known = types[raw & 0x7fffffff];
    if (known !== undefined) yield readHeader(view, at, length, known);
    else if (raw < 0x80000000) view.fail(at, `has a header of the unknown type ${hex(raw)}, which may not be ignored`);
    at += 8 + Math.ceil(length / 8) * 8;
  }
}

function readHeader(view: View, offset: number, length: number, known: [string, number, number?]): IgvmHeader {
  const [name, smallest, maskAt] = known;
  if (length < smallest) view.fail(offset, `${name} has ${length} bytes, expected ${smallest}`);
  const at = offset + 8;
  const u32 = (field: number) => view.u32(at + field, name);
  const mask = maskAt === undefined ? 0 : u32(maskAt);
  const data = (from: number, bytes: number) =>
    from === 0 ? {} : { data: view.slice(from, bytes, `data of ${name}`) };
  switch (name) {
    case "PAGE_DATA": {
      const gpa = view.u64(at, name);
      const flags = u32(16);
      const large = (flags & igvmPageFlag.large) !== 0;
      if (gpa % (large ? 0x200000n : 0x1000n) !== 0n)
        view.fail(at, `${name} has the address ${hex(gpa)}, which is not page aligned`);
      const type = view.u16(at + 20, name);
      if (type > igvmPageType.cpuidXf) view.fail(at + 20, `${name} has the unknown page type ${type}`);
      return { kind: "page", offset, mask, gpa, flags, type, ...data(u32(12), large ? 0x200000 : 4096) };
    }
    case "PARAMETER_AREA": {
      const size = view.size64(at, name);
      if (size % 4096 !== 0) view.fail(at, `${name} has ${size} bytes, which is not whole pages`);
      return { kind: "parameter-area", offset, index: u32(8), size, ...data(u32(12), size) };
    }
    case "PARAMETER_INSERT":
      return { kind: "parameter-insert", offset, mask, gpa: view.u64(at, name), index: u32(12) };
    case "VP_CONTEXT": {
      const dataAt = u32(12);
      return {
        kind: "vp-context",
        offset,
        mask,
        gpa: view.u64(at, name),
        vp: view.u16(at + 16, name),
        data: view.slice(dataAt, Math.min(4096, Math.max(0, view.size - dataAt)), `data of ${name}`),
      };
    }
    default:
      return {
        kind: "other",
        offset,
        name,
        content: view.slice(at, length, name),
        ...(maskAt === undefined ? {} : { mask }),
      };
  }
}

function readPlatform(content: View): IgvmPlatform {
  const mask = content.u32(0, "compatibility mask");
  if (mask === 0 || (mask & (mask - 1)) !== 0) content.fail(0, `compatibility mask ${hex(mask)} is not a single bit`);
  return {
    mask,
    highestVtl: content.u8(4, "highest VTL"),
    type: content.u8(5, "platform type"),
    version: content.u16(6, "platform version"),
    sharedGpaBoundary: content.u64(8, "shared GPA boundary"),
  };
}

function readIdBlock(content: View): IgvmIdBlock {
  const name = "SNP_ID_BLOCK";
  const field = (at: number, length: number) => content.slice(at, length, name);
  return {
    mask: content.u32(0, name),
    authorKeyEnabled: content.u8(4, name) === 1,
    launchDigest: toHex(field(8, 48)),
    familyId: toHex(field(56, 16)),
    imageId: toHex(field(72, 16)),
    version: content.u32(88, name),
    guestSvn: content.u32(92, name),
    idKeyAlgorithm: content.u32(96, name),
    authorKeyAlgorithm: content.u32(100, name),
    idKeySignature: { r: field(104, 72), s: field(176, 72) },
    idKey: { curve: content.u32(248, name), qx: field(256, 72), qy: field(328, 72) },
  };
}
