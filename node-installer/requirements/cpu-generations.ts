/** A server CPU as `/proc/cpuinfo` names it, in decimals. */
export interface CpuSignature {
  vendor: string;
  family: number;
  model: number;
}

export interface CpuGeneration {
  name: string;
  /** What its hardware can do, whatever BIOS and kernel enable. */
  tee: "snp" | "tdx" | "none";
}

interface Row extends CpuGeneration {
  vendor: "AuthenticAMD" | "GenuineIntel";
  family: number;
  /** First and last model, inclusive. */
  models: readonly [number, number];
}

/**
 * AMD: family and model ranges from the virtee project's `sev` library and AMD's revision guides. Intel: from the kernel's
 * arch/x86/include/asm/intel-family.h. The first match counts.
 */
export const cpuGenerations: readonly Row[] = [
  { vendor: "AuthenticAMD", family: 0x17, models: [0x00, 0xff], name: "EPYC 7001 or 7002 (Naples, Rome)", tee: "none" },
  { vendor: "AuthenticAMD", family: 0x19, models: [0x00, 0x0f], name: "EPYC 7003 (Milan)", tee: "snp" },
  { vendor: "AuthenticAMD", family: 0x19, models: [0x10, 0x1f], name: "EPYC 9004 (Genoa)", tee: "snp" },
  {
    vendor: "AuthenticAMD",
    family: 0x19,
    models: [0xa0, 0xaf],
    name: "EPYC 97x4 or 8004 (Bergamo, Siena)",
    tee: "snp",
  },
  { vendor: "AuthenticAMD", family: 0x1a, models: [0x00, 0x1f], name: "EPYC 9005 (Turin)", tee: "snp" },
  { vendor: "AuthenticAMD", family: 0x1a, models: [0x50, 0xcf], name: "EPYC (Venice)", tee: "snp" },
  { vendor: "GenuineIntel", family: 6, models: [143, 143], name: "4th generation Xeon (Sapphire Rapids)", tee: "tdx" },
  { vendor: "GenuineIntel", family: 6, models: [207, 207], name: "5th generation Xeon (Emerald Rapids)", tee: "tdx" },
  { vendor: "GenuineIntel", family: 6, models: [173, 174], name: "Xeon 6 (Granite Rapids)", tee: "tdx" },
  { vendor: "GenuineIntel", family: 6, models: [175, 175], name: "Xeon 6 (Sierra Forest)", tee: "tdx" },
];

/** `undefined`: not in the table; it may be a newer CPU. */
export const cpuGeneration = ({ vendor, family, model }: CpuSignature): CpuGeneration | undefined =>
  cpuGenerations.find(
    (row) => row.vendor === vendor && row.family === family && model >= row.models[0] && model <= row.models[1],
  );
