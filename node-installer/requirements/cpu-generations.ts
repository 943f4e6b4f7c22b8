/** A server CPU as `/proc/cpuinfo` names it, in decimals. */
export interface CpuSignature {
  vendor: string;
  family: number;
  model: number;
}

export interface CpuGeneration {
  name: string;
  /** What its hardware can do, whatever BIOS and kernel enable; some-tdx: only some of its models. */
  tee: "snp" | "tdx" | "some-tdx" | "none";
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
  ...amd("none", [
    [0x10, 0x00, 0xff, "Opteron or Phenom"],
    [0x15, 0x00, 0xff, "Opteron or FX"],
    [0x17, 0x01, 0x01, "EPYC 7001 or 7002 (Naples, Rome)"],
    [0x17, 0x31, 0x31, "EPYC 7001 or 7002 (Naples, Rome)"],
    [0x17, 0x00, 0xff, "EPYC 3000 or Ryzen (Zen, Zen 2)"],
    [0x19, 0x08, 0x08, "Ryzen Threadripper PRO 5000"],
    [0x19, 0x18, 0x18, "Ryzen Threadripper 7000"],
    [0x19, 0x20, 0x5f, "Ryzen 5000 or 6000"],
    [0x19, 0x60, 0x7f, "EPYC 4004 or Ryzen 7000 or 8000"],
    [0x1a, 0x08, 0x08, "Ryzen Threadripper 9000"],
    [0x1a, 0x20, 0x3f, "Ryzen AI 300"],
    [0x1a, 0x40, 0x4f, "EPYC 4005 or Ryzen 9000"],
    [0x1a, 0x60, 0x7f, "Ryzen AI"],
  ]),
  ...amd("snp", [
    [0x19, 0x00, 0x0f, "EPYC 7003 (Milan)"],
    [0x19, 0x10, 0x1f, "EPYC 9004 (Genoa)"],
    [0x19, 0xa0, 0xaf, "EPYC 97x4 or 8004 (Bergamo, Siena)"],
    [0x1a, 0x00, 0x1f, "EPYC 9005 (Turin)"],
    [0x1a, 0x50, 0xcf, "EPYC (Venice)"],
  ]),
  ...intel("some-tdx", [[143, 143, "4th generation Xeon (Sapphire Rapids)"]]),
  ...intel("tdx", [
    [207, 207, "5th generation Xeon (Emerald Rapids)"],
    [173, 174, "Xeon 6 (Granite Rapids)"],
    [175, 175, "Xeon 6 (Sierra Forest)"],
  ]),
  ...intel("none", [
    [63, 63, "Xeon E5 or E7 v3 (Haswell)"],
    [79, 79, "Xeon E5 or E7 v4 (Broadwell)"],
    [86, 86, "Xeon D-1500 (Broadwell)"],
    [85, 85, "1st, 2nd or 3rd generation Xeon (Skylake, Cascade Lake, Cooper Lake)"],
    [106, 106, "3rd generation Xeon (Ice Lake)"],
    [108, 108, "Xeon D (Ice Lake)"],
    [60, 60, "Xeon E3 v3 or Core (Haswell)"],
    [71, 71, "Xeon E3 v4 or Core (Broadwell)"],
    [94, 94, "Xeon E3 v5 or Core (Skylake)"],
    [158, 158, "Xeon E3 v6, E-2100 or E-2200, or Core (Kaby Lake, Coffee Lake)"],
    [165, 165, "Xeon W-1200 or Core (Comet Lake)"],
    [167, 167, "Xeon E-2300 or Core (Rocket Lake)"],
    [151, 151, "Core (Alder Lake)"],
    [154, 154, "Core (Alder Lake)"],
    [183, 183, "Xeon E-2400 or Core (Raptor Lake)"],
    [186, 186, "Core (Raptor Lake)"],
    [191, 191, "Core (Raptor Lake)"],
    [170, 170, "Core Ultra (Meteor Lake)"],
    [197, 198, "Core Ultra (Arrow Lake)"],
  ]),
];

function amd(tee: Row["tee"], rows: [family: number, first: number, last: number, name: string][]): Row[] {
  return rows.map(([family, first, last, name]) => ({
    vendor: "AuthenticAMD",
    family,
    models: [first, last],
    name,
    tee,
  }));
}

function intel(tee: Row["tee"], rows: [first: number, last: number, name: string][]): Row[] {
  return rows.map(([first, last, name]) => ({ vendor: "GenuineIntel", family: 6, models: [first, last], name, tee }));
}

/** `undefined`: not in the table; it may be a newer CPU. */
export const cpuGeneration = ({ vendor, family, model }: CpuSignature): CpuGeneration | undefined =>
  cpuGenerations.find(
    (row) => row.vendor === vendor && row.family === family && model >= row.models[0] && model <= row.models[1],
  );
