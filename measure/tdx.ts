import { createHash } from "node:crypto";
import { Refusal } from "../runtime/refusal.ts";
import { sha384, toHex, View } from "./bytes.ts";
import { type Firmware, type TdxSection, tdxAttribute } from "./ovmf.ts";

/**
 * How a VMM interleaves TDH.MEM.PAGE.ADD and TDH.MR.EXTEND. `single-pass`: each page is added, then extended (QEMU 9 and
 * later, upstream KVM); `two-pass`: all pages of a section are added, then all extended (QEMU 8 forks).
 */
const mrtdOrders = ["single-pass", "two-pass"] as const;
export type MrtdOrder = (typeof mrtdOrders)[number];

/**
 * MRTD: one SHA-384 over a stream of records (Intel TDX module specification, TDH.MEM.PAGE.ADD and TDH.MR.EXTEND). An added
 * page is 128 bytes: "MEM.PAGE.ADD" in 16, u64 address, zeroes. Each extended 256 bytes are 128 bytes "MR.EXTEND", u64
 * address, zeroes, then the data. Little-endian.
 */
export function mrtd(firmware: Uint8Array, sections: readonly TdxSection[], order: MrtdOrder = "single-pass"): string {
  const digest = createHash("sha384");
  const view = new View(firmware, "firmware");
  for (const [index, section] of sections.entries()) {
    if ((section.attributes & tdxAttribute.augment) !== 0) continue;
    const extended = (section.attributes & tdxAttribute.extend) !== 0;
    const data = view.slice(section.dataOffset, section.rawSize, `data of TDX metadata section ${index}`);
    if (order === "single-pass") {
      for (let at = 0; at < section.size; at += 4096) {
        digest.update(addRecord(section.gpa + at));
        if (extended) digest.update(extendRecords(section.gpa + at, data.subarray(at, at + 4096)));
      }
    } else {
      for (let at = 0; at < section.size; at += 4096) digest.update(addRecord(section.gpa + at));
      for (let at = 0; extended && at < section.size; at += 4096) {
        digest.update(extendRecords(section.gpa + at, data.subarray(at, at + 4096)));
      }
    }
  }
  return digest.digest("hex");
}

function addRecord(gpa: number): Buffer {
  const record = Buffer.alloc(128);
  record.write("MEM.PAGE.ADD", "latin1");
  record.writeBigUInt64LE(BigInt(gpa), 16);
  return record;
}

/** The sixteen records of a page; data that ends before the page does is followed by zeroes. */
function extendRecords(gpa: number, data: Uint8Array): Buffer {
  const records = Buffer.alloc(16 * 384);
  for (let chunk = 0; chunk < 16; chunk += 1) {
    const at = chunk * 384;
    records.write("MR.EXTEND", at, "latin1");
    records.writeBigUInt64LE(BigInt(gpa + chunk * 256), at + 16);
    records.set(data.subarray(chunk * 256, chunk * 256 + 256), at + 128);
  }
  return records;
}

export function firmwareMrtd(bytes: Uint8Array, firmware: Firmware, order?: MrtdOrder): string {
  if (firmware.tdx === undefined) {
    throw new Refusal(
      "firmware-without-tdx-metadata",
      "The firmware has no TDX metadata, so it cannot start a TDX guest. Use an OVMF built with TDX support (OVMF.inteltdx.fd).",
    );
  }
  return mrtd(bytes, firmware.tdx, order);
}

/** TDH.MR.RTMR.EXTEND: RTMR' = SHA-384(RTMR ‖ digest). */
export const extendRtmr = (rtmr: Uint8Array, digest: Uint8Array): Buffer => sha384(Buffer.concat([rtmr, digest]));

/** What a guest that OVMF boots directly into a Linux EFI stub extends its registers with. */
export interface MeasuredBoot {
  /** RTMR0, where somebody knows it. Hex. */
  rtmr0?: string | undefined;
  /** Authenticode digest of the kernel as the firmware gets it. */
  kernel?: Uint8Array | undefined;
  commandLine?: string | undefined;
  initrdSha384?: Uint8Array | undefined;
}

export interface Rtmrs {
  /** Hex by index; null where the inputs do not define it. */
  values: [string | null, string | null, string | null, string];
  /** Digests of single events of the log, for verifiers that look there. Hex. */
  events: TdxEvents;
}

export interface TdxEvents {
  /** EV_EFI_BOOT_SERVICES_APPLICATION "File(kernel)". */
  kernel?: string;
  /** EV_EVENT_TAG "LOADED_IMAGE::LoadOptions". */
  loadOptions?: string;
}

const action = (text: string) => sha384(Buffer.from(text, "latin1"));
/** EV_SEPARATOR: edk2 from stable202411 on measures it here; before, into RTMR0. */
const separator = sha384(Buffer.alloc(4));

/** RTMR1 (edk2 OvmfPkg/Tcg/TdTcg2Dxe): the kernel as it is loaded, then what the firmware does until the kernel takes over. */
export const rtmr1 = (kernel: Uint8Array): Buffer =>
  replay([
    kernel,
    action("Calling EFI Application from Boot Option"),
    separator,
    action("Exit Boot Services Invocation"),
    action("Exit Boot Services Returned with Success"),
  ]);

/** What OVMF hands to the stub, UTF-16LE with its NUL: "initrd=initrd " comes first when there is an initrd. */
const loadOptions = (commandLine: string, hasInitrd: boolean) =>
  sha384(Buffer.from(`${hasInitrd ? "initrd=initrd " : ""}${commandLine}\0`, "utf16le"));

const replay = (digests: readonly Uint8Array[]): Buffer =>
  digests.reduce<Buffer>((register, digest) => extendRtmr(register, digest), Buffer.alloc(48));

/**
 * Runtime measurement registers. RTMR0 is the firmware's: the memory map, ACPI and SMBIOS tables, its own configuration.
 * RTMR1 see there. RTMR2 holds what the stub measures: its load options, then the initrd. RTMR3 belongs to the guest's user
 * space and starts at zero.
 */
export function rtmrs({ rtmr0, kernel, commandLine, initrdSha384 }: MeasuredBoot): Rtmrs {
  const options = commandLine === undefined ? undefined : loadOptions(commandLine, initrdSha384 !== undefined);
  const rtmr2 = options && replay([options, ...(initrdSha384 === undefined ? [] : [initrdSha384])]);
  return {
    values: [
      rtmr0 ?? null,
      kernel === undefined ? null : toHex(rtmr1(kernel)),
      rtmr2 === undefined ? null : toHex(rtmr2),
      "0".repeat(96),
    ],
    events: {
      ...(kernel === undefined ? {} : { kernel: toHex(kernel) }),
      ...(options === undefined ? {} : { loadOptions: toHex(options) }),
    },
  };
}
