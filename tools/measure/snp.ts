import { hex, rawSha256, toHex } from "../../measure/bytes.ts";
import { readFirmware } from "../../measure/ovmf.ts";
import { commandLineHash, firmwareLaunch, launchDigest } from "../../measure/snp.ts";
import { cpuSignature, signatureOf, type Vmm } from "../../measure/vmsa.ts";
import { Refusal } from "../../runtime/refusal.ts";
import { digestOf, readWhole } from "./files.ts";

/** Scripts pass an empty text where there is no kernel, initrd, command line or hash; sev-snp-measure takes it so, too. */
export interface SnpGuest extends Cpu {
  ovmf: string;
  vcpus: number;
  kernel?: string | undefined;
  initrd?: string | undefined;
  append?: string | undefined;
  guestFeatures: number;
  vmmType: Vmm;
  snpOvmfHash?: string | undefined;
}

interface Cpu {
  vcpuType?: string | undefined;
  vcpuSig?: number | undefined;
  vcpuFamily?: number | undefined;
  vcpuModel?: number | undefined;
  vcpuStepping?: number | undefined;
}

/** The launch digest of an SEV-SNP guest, and what it is made of. */
export function snp(guest: SnpGuest): object {
  const { ovmf, vcpus, guestFeatures, vmmType: vmm, append, snpOvmfHash } = guest;
  for (const name of ["initrd", "append"] as const) {
    if (guest[name] && !guest.kernel) throw new Refusal("usage", `--${name} needs --kernel.`);
  }
  const signature = signatureFrom(guest, vmm);
  const bytes = readWhole(ovmf);
  const launch = {
    ...firmwareLaunch(bytes, readFirmware(bytes)),
    ...(snpOvmfHash ? { firmwareDigest: Buffer.from(snpOvmfHash, "hex") } : {}),
    guestFeatures,
    vmm,
  };
  const kernel = guest.kernel
    ? {
        kernel: {
          kernel: digestOf(guest.kernel, "sha256"),
          initrd: guest.initrd ? digestOf(guest.initrd, "sha256") : rawSha256(new Uint8Array()),
          commandLine: commandLineHash(append ?? ""),
        },
      }
    : {};
  return {
    measurement: toHex(launchDigest({ ...launch, ...kernel }, signature, vcpus)),
    vcpus,
    cpuSignature: hex(signature),
    guestFeatures: hex(guestFeatures),
    vmm,
    firmwareDigest: toHex(launch.firmwareDigest),
  };
}

/** Where several options name a CPU, the one that sev-snp-measure would take. */
function signatureFrom({ vcpuType, vcpuSig, vcpuFamily, vcpuModel, vcpuStepping }: Cpu, vmm: Vmm): number {
  if (vcpuFamily !== undefined) {
    if (vcpuModel !== undefined && vcpuStepping !== undefined) return cpuSignature(vcpuFamily, vcpuModel, vcpuStepping);
    throw new Refusal("usage", "--vcpu-family needs --vcpu-model and --vcpu-stepping.");
  }
  if (vcpuSig !== undefined) return vcpuSig;
  if (vcpuType !== undefined) return signatureOf(vcpuType);
  if (vmm !== "QEMU") return 0; // these VMMs set a constant instead
  throw new Refusal("usage", "The CPU is missing: give --vcpu-type, or --vcpu-sig.");
}
