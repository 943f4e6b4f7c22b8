import { largestLaunchMemory, sevSectionType } from "../runtime/measurement-inputs.ts";
import { hex, View } from "./bytes.ts";

/**
 * OVMF/EDK2 firmware volumes as confidential VMMs read them: the GUIDed table at the end of the image
 * (edk2 OvmfPkg/ResetVector), the SEV metadata and the TDX metadata that it points to. All numbers little-endian,
 * addresses guest-physical.
 */
export interface Firmware {
  /** Bytes. The image is mapped so that it ends at 4 GiB. */
  size: number;
  gpa: number;
  /** SEV_ES_RESET_BLOCK: where application processors start. */
  resetEip?: number;
  /** SEV_HASH_TABLE_RV: where the VMM puts the hashes of kernel, initrd and command line. Absent or 0: it cannot. */
  hashTable?: { gpa: number; size: number };
  sev?: SevSection[];
  tdx?: TdxSection[];
  /** SVSM_INFO: this firmware is a secure VM service module, not an OVMF. */
  svsm: boolean;
  /** Every entry of the table, by GUID, with its data's offset from the start of the file. */
  entries: { guid: string; offset: number; size: number }[];
}

export interface SevSection {
  gpa: number;
  /** Bytes; a multiple of 4096. */
  size: number;
  type: number;
}

export interface TdxSection {
  /** Offset in the file and bytes there; 0 bytes: zero-filled memory. Not checked here: only MRTD reads the data. */
  dataOffset: number;
  rawSize: number;
  gpa: number;
  /** Bytes of guest memory; a multiple of 4096, at least `rawSize`. */
  size: number;
  /** 0 firmware volume, 1 its variables, 2 hand-off block, 3 scratch memory (Intel TDX Virtual Firmware Design Guide). */
  type: number;
  /** Bit 0: contents are measured (MR.EXTEND); bit 1: added by the guest later (PAGE.AUG), not at launch. */
  attributes: number;
}

export const tdxAttribute = { extend: 1, augment: 2 } as const;

const footerGuid = "96b582de-1fb2-45f7-baea-a366c55a082d";
const guids = {
  hashTable: "7255371f-3a3b-4b04-927b-1da6efa8d454",
  resetBlock: "00f771de-1a7e-4fcb-890e-68c77e2fb44e",
  sevMetadata: "dc886566-984a-4798-a75e-5585a7bf67cc",
  tdxMetadata: "e47a6535-984a-4798-865e-4685a7bf8ec2",
  svsmInfo: "a789a612-0597-4c4b-a49f-cbb1fe9d1ddd",
} as const;

const file = "firmware";
/** u16 length and GUID, after each entry's data. */
const entryHeader = 18;
/** The table's footer ends this far before the end of the image (the reset vector follows). */
const footerEnd = 32;
const fourGiB = 0x1_0000_0000;
/** Real images are 2 to 16 MiB; QEMU's limit for `-bios` and pflash is far below this. */
const largestFirmware = 256 << 20;

export function readFirmware(bytes: Uint8Array): Firmware {
  const view = new View(bytes, file);
  if (bytes.length > largestFirmware) view.fail(0, `${bytes.length} bytes is more than any firmware has`);
  const entries = readTable(view);
  const entry = (guid: string, what: string): number | undefined => {
    const found = entries.find((each) => each.guid === guid);
    if (found === undefined) return undefined;
    if (found.size < 4) view.fail(found.offset, `the ${what} entry holds ${found.size} bytes, expected 4 or more`);
    return found.offset;
  };
  const firmware: Firmware = {
    size: bytes.length,
    gpa: fourGiB - bytes.length,
    svsm: entry(guids.svsmInfo, "SVSM info") !== undefined,
    entries,
  };
  const reset = entry(guids.resetBlock, "SEV-ES reset block");
  if (reset !== undefined) firmware.resetEip = view.u32(reset, "SEV-ES reset address");
  const table = entry(guids.hashTable, "SEV hash table");
  if (table !== undefined) {
    firmware.hashTable = { gpa: view.u32(table, "hash table address"), size: view.u32(table + 4, "hash table size") };
  }
  const sev = entry(guids.sevMetadata, "SEV metadata");
  if (sev !== undefined) firmware.sev = readSevMetadata(view, bytes.length - view.u32(sev, "SEV metadata offset"));
  const tdx = entry(guids.tdxMetadata, "TDX metadata");
  if (tdx !== undefined) firmware.tdx = readTdxMetadata(view, bytes.length - view.u32(tdx, "TDX metadata offset"));
  return firmware;
}

/** Entries are walked from the footer backwards: data, u16 length of data and header, GUID. */
function readTable(view: View): Firmware["entries"] {
  const footer = view.size - footerEnd - entryHeader;
  if (footer < 0) view.fail(0, `${view.size} bytes is too short for a firmware image`);
  const found = view.guid(footer + 2, "table footer");
  if (found !== footerGuid) {
    view.fail(footer + 2, `no OVMF table: expected GUID ${footerGuid}, found ${found}`);
  }
  const total = view.u16(footer, "table length");
  if (total < entryHeader || total > footer + entryHeader) {
    view.fail(footer, `the OVMF table says it has ${total} bytes, the image has room for ${footer + entryHeader}`);
  }
  const entries: Firmware["entries"] = [];
  const start = footer + entryHeader - total;
  let end = footer;
  while (end - start >= entryHeader) {
    const length = view.u16(end - entryHeader, "table entry length");
    const guid = view.guid(end - 16, "table entry GUID");
    if (length < entryHeader || length > end - start) {
      view.fail(
        end - entryHeader,
        `table entry ${guid} says it has ${length} bytes, expected ${entryHeader} to ${end - start}`,
      );
    }
    entries.push({ guid, offset: end - length, size: length - entryHeader });
    end -= length;
  }
  return entries;
}

/** Both kinds of metadata begin alike: signature, size of all of it, version, number of sections. */
function readSections<Section>(
  view: View,
  start: number,
  kind: { what: string; signature: string; entrySize: number },
  read: (at: number, name: string) => Section,
): Section[] {
  const { what, signature, entrySize } = kind;
  const magic = view.text(start, 4, what);
  if (magic !== signature) view.fail(start, `${what} starts with "${magic}", expected "${signature}"`);
  const size = view.u32(start + 4, what);
  const version = view.u32(start + 8, what);
  if (version !== 1) view.fail(start + 8, `${what} has version ${version}, expected 1`);
  const count = view.u32(start + 12, what);
  if (count > mostSections || 16 + count * entrySize > size)
    view.fail(start + 12, `${what} of ${size} bytes cannot hold ${count} sections`);
  view.need(start, size, what);
  return Array.from({ length: count }, (_, index) => read(start + 16 + index * entrySize, `${what} section ${index}`));
}

function readSevMetadata(view: View, start: number): SevSection[] {
  const kind = { what: "SEV metadata", signature: "ASEV", entrySize: 12 };
  const sections = readSections(view, start, kind, (at, name) => {
    const section = { gpa: view.u32(at, name), size: view.u32(at + 4, name), type: view.u32(at + 8, name) };
    if (section.gpa % 4096 !== 0 || section.size % 4096 !== 0 || section.gpa + section.size > fourGiB) {
      view.fail(at, `${name} at ${hex(section.gpa)} of ${hex(section.size)} bytes is not whole pages below 4 GiB`);
    }
    if (!Object.values<number>(sevSectionType).includes(section.type)) {
      view.fail(at + 8, `${name} has the unknown type ${hex(section.type)}`);
    }
    return section;
  });
  checkLaunchMemory(view, start, kind.what, sections);
  return sections;
}

function readTdxMetadata(view: View, start: number): TdxSection[] {
  const kind = { what: "TDX metadata", signature: "TDVF", entrySize: 32 };
  const sections = readSections(view, start, kind, (at, name) => {
    const section: TdxSection = {
      dataOffset: view.u32(at, name),
      rawSize: view.u32(at + 4, name),
      gpa: view.size64(at + 8, name),
      size: view.size64(at + 16, name),
      type: view.u32(at + 24, name),
      attributes: view.u32(at + 28, name),
    };
    checkTdxSection(section, name, (problem) => view.fail(at, problem));
    return section;
  });
  checkLaunchMemory(
    view,
    start,
    kind.what,
    sections.filter((section) => (section.attributes & tdxAttribute.augment) === 0),
  );
  return sections;
}

const mostSections = 128;

function checkLaunchMemory(view: View, start: number, what: string, sections: { size: number }[]): void {
  const total = sections.reduce((sum, section) => sum + section.size, 0);
  if (total > largestLaunchMemory)
    view.fail(start, `${what} describes ${hex(total)} bytes of launch memory, more than any firmware has`);
}

function checkTdxSection(section: TdxSection, name: string, fail: (problem: string) => never): void {
  if (section.gpa % 4096 !== 0 || section.size % 4096 !== 0) {
    fail(`${name} at ${hex(section.gpa)} of ${hex(section.size)} bytes is not whole pages`);
  }
  if (section.rawSize > section.size) {
    fail(`${name} has ${hex(section.rawSize)} bytes of data for ${hex(section.size)} bytes of memory`);
  }
}
