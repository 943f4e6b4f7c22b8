import { hex, View } from "./bytes.ts";

/** What the boot headers of a Linux kernel image say about it. */
export interface Kernel {
  kind: "bzImage" | "elf";
  /** "6.1.0-56-cloud-amd64 (debian-kernel@…) #1 SMP …"; bzImage only. */
  version?: string;
  /** Boot protocol, such as 0x20f for 2.15. */
  protocol?: number;
  /** Longest command line in bytes without its final NUL; QEMU and the kernel cut or refuse longer ones. */
  commandLineLimit?: number;
  /** The image is also a PE executable, which OVMF needs to start it directly. */
  efiStub: boolean;
}

/**
 * The setup header of a bzImage (kernel Documentation/arch/x86/boot.rst; little-endian): 0x1F1 setup sectors, 0x1FE
 * 0xAA55, 0x202 "HdrS", 0x206 protocol, 0x20E version string, 0x238 command line size. `head` is at least the first 64 KiB
 * of the file, or all of it; `size` is the file's.
 */
export function readKernel(head: Uint8Array, size: number): Kernel {
  const view = new View(head, "kernel");
  if (view.text(0, 4, "magic") === "\x7fELF") return { kind: "elf", efiStub: false };
  if (view.size < 0x268) view.fail(0, `${view.size} bytes is too short for a bzImage`);
  if (view.u16(0x1fe, "boot flag") !== 0xaa55 || view.text(0x202, 4, "setup header") !== "HdrS") {
    view.fail(0x202, 'is neither a bzImage ("HdrS" is missing) nor an ELF file');
  }
  const protocol = view.u16(0x206, "boot protocol");
  if (protocol < 0x206)
    view.fail(0x206, `has boot protocol ${protocol >> 8}.${protocol & 0xff}, expected 2.6 or later`);
  const setupSize = ((view.u8(0x1f1, "setup sectors") || 4) + 1) * 512;
  const systemSize = view.u32(0x1f4, "system size") * 16;
  if (setupSize + systemSize > size) {
    view.fail(0x1f4, `says it has ${setupSize + systemSize} bytes, but there are ${size}: it is truncated`);
  }
  // From the setup header on; the string is part of the setup.
  const pointer = view.u16(0x20e, "version string");
  const versionAt = 0x200 + pointer;
  const setupEnd = Math.min(setupSize, view.size);
  if (versionAt >= setupEnd)
    view.fail(0x20e, `has its version string at ${hex(versionAt)}, but its setup ends at ${hex(setupEnd)}`);
  return {
    kind: "bzImage",
    ...(pointer === 0 ? {} : { version: view.text(versionAt, Math.min(256, setupEnd - versionAt), "version string") }),
    protocol,
    commandLineLimit: view.u32(0x238, "command line size"),
    efiStub: view.text(0, 2, "DOS header") === "MZ" && isPe(view),
  };
}

function isPe(view: View): boolean {
  const at = view.u32(0x3c, "PE header offset");
  return at + 4 <= view.size && view.text(at, 4, "PE header") === "PE";
}

const initrdMagics: [name: string, magic: string][] = [
  ["gzip", "1f8b"],
  ["zstd", "28b52ffd"],
  ["xz", "fd377a585a00"],
  ["lz4", "02214c18"],
  ["bzip2", "425a68"],
  ["lzma", "5d0000"],
  ["lzo", "894c5a"],
  ["cpio", Buffer.from("070701").toString("hex")],
  ["cpio", Buffer.from("070702").toString("hex")],
];

/** How an initrd starts: compressed, or as a cpio archive (often microcode before a compressed one). */
export function initrdFormat(head: Uint8Array): string {
  const start = Buffer.from(head.subarray(0, 8)).toString("hex");
  const known = initrdMagics.find(([, magic]) => start.startsWith(magic));
  if (known === undefined)
    return new View(head, "initrd").fail(
      0,
      `starts with ${start || "nothing"}, which is neither cpio nor a compression that Linux knows`,
    );
  return known[0];
}
