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

export interface Rtmrs {
  /** Hex by index; null where the inputs do not define it. */
  values: [null, null, string | null, string];
  notPredictable: { name: string; reason: string }[];
}

/**
 * Runtime measurement registers of a guest that OVMF boots directly into a Linux EFI stub. RTMR2 holds what the stub
 * measures: the load options, UTF-16LE with their NUL, to which OVMF prepends "initrd=initrd " when there is an initrd,
 * then the initrd file. RTMR3 belongs to the guest's user space and starts at zero.
 */
export function rtmrs(input: { commandLine?: string; initrdSha384?: Uint8Array }): Rtmrs {
  const notPredictable = [
    {
      name: "RTMR0",
      reason: "holds firmware configuration, ACPI tables and the memory map, which depend on memory size and devices",
    },
    { name: "RTMR1", reason: "holds the kernel as QEMU patched it, whose initrd address depends on memory size" },
  ];
  if (input.commandLine === undefined) {
    notPredictable.push({ name: "RTMR2", reason: "covers the kernel command line, which is not given" });
    return { values: [null, null, null, "0".repeat(96)], notPredictable };
  }
  const options = `${input.initrdSha384 === undefined ? "" : "initrd=initrd "}${input.commandLine}\0`;
  let rtmr2: Uint8Array = extendRtmr(Buffer.alloc(48), sha384(Buffer.from(options, "utf16le")));
  if (input.initrdSha384 !== undefined) rtmr2 = extendRtmr(rtmr2, input.initrdSha384);
  return { values: [null, null, toHex(rtmr2), "0".repeat(96)], notPredictable };
}
