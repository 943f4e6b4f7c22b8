import { type ByteSource, chunksOf, guidBytes, View } from "./bytes.ts";
import { unpackLzma } from "./lzma.ts";

/*
 * How the kernel gets from QEMU to the firmware. From 10.0 on, QEMU offers it as it is under the name etc/boot/kernel, and
 * edk2 from stable202502 on prefers that. Otherwise it is the kernel whose setup header QEMU has filled in, among others
 * with the initrd's address, which depends on the guest's memory.
 */

/** QEMU has the file's name as a string that ends there. */
export const offersBootFiles = (vmm: ByteSource): boolean => contains(vmm, "etc/boot/kernel\0");

/** Drivers are in compressed firmware volumes: sections with this GUID (edk2 gLzmaCustomDecompressGuid). */
const lzmaGuid = guidBytes("ee4e5898-3914-4259-9d6e-dc7bd79403cf");

/** edk2's OvmfPkg/QemuKernelLoaderFsDxe compares names with this prefix. */
export function takesBootFiles(firmware: Uint8Array): boolean {
  const bytes = Buffer.from(firmware.buffer, firmware.byteOffset, firmware.length);
  if (bytes.includes("etc/boot/\0")) return true;
  for (let at = bytes.indexOf(lzmaGuid); at >= 0; at = bytes.indexOf(lzmaGuid, at + 1)) {
    const data = lzmaSection(bytes, at);
    if (data !== undefined && Buffer.from(unpackLzma(data, 0).buffer).includes("etc/boot/\0")) return true;
  }
  return false;
}

/**
 * The data of the section whose GUID is there: u24 size, u8 type 2 (GUID-defined), GUID, u16 offset of the data. Undefined
 * where the GUID stands for something else, such as the decoder's name.
 */
function lzmaSection(bytes: Buffer, guidAt: number): View | undefined {
  const start = guidAt - 4;
  if (start < 0 || guidAt + 20 > bytes.length || bytes[start + 3] !== 2) return undefined;
  const size = bytes.readUIntLE(start, 3);
  const dataAt = bytes.readUInt16LE(guidAt + 16);
  if (dataAt < 24 || dataAt + 18 > size || start + size > bytes.length) return undefined;
  return new View(bytes.subarray(start + dataAt, start + size), "firmware", start + dataAt);
}

function contains(source: ByteSource, text: string): boolean {
  let tail = Buffer.alloc(0);
  for (const chunk of chunksOf(source)) {
    const bytes = Buffer.concat([tail, chunk]);
    if (bytes.includes(text)) return true;
    tail = bytes.subarray(Math.max(0, bytes.length - text.length));
  }
  return false;
}
