import { Refusal } from "../runtime/refusal.ts";

/**
 * CPUID Fn0000_0001 EAX of the CPU models that QEMU emulates (QEMU target/i386/cpu.c builtin_x86_defs). It is the
 * *emulated* CPU's, not the host's, and is in RDX of every VMSA, so the launch digest differs by model.
 */
export const cpuSignatures = {
  EPYC: 0x800f12,
  "EPYC-v1": 0x800f12,
  "EPYC-v2": 0x800f12,
  "EPYC-IBPB": 0x800f12,
  "EPYC-v3": 0x800f12,
  "EPYC-v4": 0x800f12,
  "EPYC-Rome": 0x830f10,
  "EPYC-Rome-v1": 0x830f10,
  "EPYC-Rome-v2": 0x830f10,
  "EPYC-Rome-v3": 0x830f10,
  "EPYC-Milan": 0xa00f11,
  "EPYC-Milan-v1": 0xa00f11,
  "EPYC-Milan-v2": 0xa00f11,
  "EPYC-Genoa": 0xa10f10,
  "EPYC-Genoa-v1": 0xa10f10,
  "EPYC-Turin": 0xb00f00,
} as const;
export type CpuModel = keyof typeof cpuSignatures;

/** CPUID Fn0000_0001 EAX from family, model and stepping (AMD publication 25481). */
export function cpuSignature(family: number, model: number, stepping: number): number {
  const [low, high] = family > 0xf ? [0xf, (family - 0xf) & 0xff] : [family, 0];
  return ((high << 20) | (((model >> 4) & 0xf) << 16) | (low << 8) | ((model & 0xf) << 4) | (stepping & 0xf)) >>> 0;
}

export function signatureOf(model: string): number {
  const signature = (cpuSignatures as Record<string, number>)[model];
  if (signature === undefined) {
    throw new Refusal(
      "unknown-cpu-model",
      `CPU model "${model}" is not known. Use one of ${Object.keys(cpuSignatures).join(", ")}, or give its signature.`,
    );
  }
  return signature;
}

/** Who sets the initial registers: QEMU/KVM, Amazon EC2 or Google Compute Engine. */
export const vmms = ["QEMU", "ec2", "gce"] as const;
export type Vmm = (typeof vmms)[number];

/** Where the boot processor starts; application processors start at the firmware's reset address. */
export const bootEip = 0xfffffff0;

/**
 * The 4096-byte VM save area of a vCPU at launch (AMD APM volume 2, table B-4; initial values of KVM and QEMU, and of
 * EC2 and GCE as sev-snp-measure found them). Little-endian. A segment is u16 selector, u16 attributes, u32 limit,
 * u64 base.
 */
export function vmsaPage(options: { eip: number; cpuSignature: number; guestFeatures: number; vmm?: Vmm }): Uint8Array {
  const { eip, guestFeatures, vmm = "QEMU" } = options;
  const ec2 = vmm === "ec2";
  const page = Buffer.alloc(4096);
  const segment = (offset: number, attributes: number, selector = 0, base = 0) => {
    page.writeUInt16LE(selector, offset);
    page.writeUInt16LE(attributes, offset + 2);
    page.writeUInt32LE(0xffff, offset + 4);
    page.writeBigUInt64LE(BigInt(base), offset + 8);
  };
  const u64 = (offset: number, value: bigint) => page.writeBigUInt64LE(value, offset);

  segment(0x00, 0x93); // es
  segment(0x10, ec2 && eip === bootEip ? 0x9a : 0x9b, 0xf000, (eip & 0xffff0000) >>> 0); // cs
  segment(0x20, ec2 ? 0x92 : 0x93); // ss
  segment(0x30, 0x93); // ds
  segment(0x40, 0x93); // fs
  segment(0x50, 0x93); // gs
  segment(0x60, 0); // gdtr
  segment(0x70, 0x82); // ldtr
  segment(0x80, 0); // idtr
  segment(0x90, ec2 ? 0x83 : 0x8b); // tr
  u64(0xd0, 0x1000n); // efer: SVME, set by KVM
  u64(0x148, 0x40n); // cr4: MCE, set by KVM
  u64(0x158, 0x10n); // cr0
  u64(0x160, 0x400n); // dr7
  u64(0x168, 0xffff0ff0n); // dr6
  u64(0x170, 2n); // rflags
  u64(0x178, BigInt(eip & 0xffff)); // rip
  u64(0x268, vmm === "gce" ? 0x70106n : 0x7040600070406n); // g_pat
  u64(0x310, vmm === "QEMU" ? BigInt(options.cpuSignature) : 0x600n); // rdx
  u64(0x3b0, BigInt(guestFeatures)); // sev_features
  u64(0x3e8, 1n); // xcr0
  if (vmm === "QEMU") {
    page.writeUInt32LE(0x1f80, 0x408); // mxcsr, set since KVM_SEV_INIT2 (host kernel 6.11)
    page.writeUInt16LE(0x37f, 0x410); // x87 control word
  }
  return page;
}
