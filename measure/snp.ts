import { hash } from "node:crypto";
import { sevSectionType } from "../runtime/measurement-inputs.ts";
import { Refusal } from "../runtime/refusal.ts";
import { guidBytes, hex, rawSha256, sha384 } from "./bytes.ts";
import type { Firmware, SevSection } from "./ovmf.ts";
import { bootEip, type Vmm, vmsaPage } from "./vmsa.ts";

/** PAGE_TYPE of SNP_LAUNCH_UPDATE (AMD SEV-SNP firmware ABI, publication 56860, table 67). */
export const pageType = { normal: 1, vmsa: 2, zero: 3, unmeasured: 4, secrets: 5, cpuid: 6 } as const;
export type PageType = (typeof pageType)[keyof typeof pageType];

/** Where QEMU and KVM put every VMSA in guest-physical space. */
const vmsaGpa = 0xffff_ffff_f000n;
const noContents = Buffer.alloc(48);

/**
 * The launch digest: 48 bytes that start at zero and absorb one PAGE_INFO structure per 4 KiB page (firmware ABI, 8.17.2).
 * PAGE_INFO is 0x70 bytes: digest so far[48], SHA-384 of the page[48] (zero for pages without measured contents),
 * u16 length, u8 page type, u8 IMI flag, 3 × u8 permissions of VMPL 3 to 1, u8 0, u64 guest-physical address.
 */
export class LaunchDigest {
  readonly #info = Buffer.alloc(0x70);

  constructor(start: Uint8Array = noContents) {
    this.#info.set(start);
    this.#info.writeUInt16LE(0x70, 96);
  }

  page(type: PageType, gpa: bigint, contentsDigest: Uint8Array = noContents): void {
    this.#info.set(contentsDigest, 48);
    this.#info[98] = type;
    this.#info.writeBigUInt64LE(gpa, 104);
    this.#info.write(hash("sha384", this.#info, "binary"), 0, "binary");
  }

  /** Pages with contents; `bytes` is whole pages. */
  data(gpa: number, bytes: Uint8Array): void {
    let contents: Uint8Array = Buffer.of();
    let digest: Uint8Array = noContents;
    for (let offset = 0; offset < bytes.length; offset += 4096) {
      const before = contents;
      contents = bytes.subarray(offset, offset + 4096);
      // More than half of a firmware image is padding, one page like the other.
      if (Buffer.compare(before, contents) !== 0) digest = sha384(contents);
      this.page(pageType.normal, BigInt(gpa + offset), digest);
    }
  }

  /** Pages of which only type and address are measured. `size` in bytes. */
  range(type: PageType, gpa: number, size: number): void {
    for (let offset = 0; offset < size; offset += 4096) this.page(type, BigInt(gpa + offset));
  }

  value(): Buffer {
    return Buffer.from(this.#info.subarray(0, 48));
  }
}

/** The digest after the firmware image, before anything else: what `sev-snp-measure --mode snp:ovmf-hash` prints. */
function firmwareDigest(bytes: Uint8Array): Buffer {
  if (bytes.length % 4096 !== 0) {
    throw new Refusal(
      "malformed-file",
      `firmware: ${bytes.length} bytes is not whole pages of 4096, so it cannot be loaded as SNP guest memory.`,
    );
  }
  const digest = new LaunchDigest();
  digest.data(0x1_0000_0000 - bytes.length, bytes);
  return digest.value();
}

/** SHA-256 of what QEMU's `kernel-hashes=on` measures: the files as on disk, the command line with its final NUL. */
export interface KernelHashes {
  kernel: Uint8Array;
  /** SHA-256 of nothing where there is no initrd. */
  initrd: Uint8Array;
  commandLine: Uint8Array;
}

/** SHA-256 of the command line as QEMU hands it over: UTF-8 with a NUL; of only the NUL if there is none. */
export const commandLineHash = (commandLine: string): Buffer => rawSha256(Buffer.from(`${commandLine}\0`, "utf8"));

/**
 * The hash table that QEMU places in guest memory (QEMU target/i386/sev.c, struct SevHashTable): GUID, u16 168, then per
 * entry GUID, u16 50, SHA-256, in the order command line, initrd, kernel; padded to 176 bytes.
 */
function kernelHashTable(hashes: KernelHashes): Buffer {
  const entry = (guid: string, digest: Uint8Array) => Buffer.concat([guidBytes(guid), Buffer.of(50, 0), digest]);
  return Buffer.concat([
    guidBytes("9438d606-4f22-4cc9-b479-a793d411fd21"),
    Buffer.of(168, 0),
    entry("97d02dd8-bd20-4c94-aa78-e7714d36ab2a", hashes.commandLine),
    entry("44baf731-3a2f-4bd7-9af1-41e29169781d", hashes.initrd),
    entry("4de79437-abd2-427f-b835-d5b172d2045b", hashes.kernel),
    Buffer.alloc(8),
  ]);
}

/** What the launch digest of a QEMU (or EC2, GCE) guest is computed from; the files are no longer needed. */
export interface SnpLaunch {
  /** Digest after the firmware image. */
  firmwareDigest: Uint8Array;
  sections: readonly SevSection[];
  /** Guest-physical address of the hash table; needed with `kernel`. */
  hashTableGpa?: number;
  /** Absent: the guest boots without a measured kernel. */
  kernel?: KernelHashes;
  resetEip: number;
  /** SEV_FEATURES of the guest: 0x1 SNP (host kernels from 6.8 on), 0x21 with DebugSwap (6.6 and 6.7). */
  guestFeatures: number;
  vmm?: Vmm;
}

/** Everything that comes before the vCPUs; the same for every CPU model and count. */
export function digestBeforeVcpus(launch: SnpLaunch): Buffer {
  const digest = new LaunchDigest(launch.firmwareDigest);
  let hashesPlaced = false;
  for (const section of launch.sections) {
    switch (section.type) {
      case sevSectionType.secMem:
        digest.range(launch.vmm === "gce" ? pageType.unmeasured : pageType.zero, section.gpa, section.size);
        break;
      case sevSectionType.secrets:
        digest.page(pageType.secrets, BigInt(section.gpa));
        break;
      case sevSectionType.cpuid:
        if (launch.vmm !== "ec2") digest.page(pageType.cpuid, BigInt(section.gpa));
        break;
      case sevSectionType.svsmCaa:
        digest.range(pageType.zero, section.gpa, section.size);
        break;
      case sevSectionType.kernelHashes:
        if (launch.kernel === undefined) digest.range(pageType.zero, section.gpa, section.size);
        else digest.data(section.gpa, hashPage(launch.kernel, launch.hashTableGpa, section));
        hashesPlaced = true;
        break;
    }
  }
  if (launch.vmm === "ec2") {
    // EC2 measures the CPUID page after all others.
    for (const section of launch.sections) {
      if (section.type === sevSectionType.cpuid) digest.page(pageType.cpuid, BigInt(section.gpa));
    }
  }
  if (launch.kernel !== undefined && !hashesPlaced) {
    throw new Refusal(
      "firmware-without-kernel-hashes",
      "The firmware's SEV metadata has no section for kernel hashes (type 0x10), so it would boot any kernel. " +
        "Use a firmware built from OvmfPkg/AmdSev.",
    );
  }
  return digest.value();
}

function hashPage(kernel: KernelHashes, tableGpa: number | undefined, section: SevSection): Uint8Array {
  const offset = (tableGpa ?? 0) & 0xfff;
  const table = kernelHashTable(kernel);
  if (tableGpa === undefined || section.size !== 4096 || offset + table.length > 4096) {
    const where = tableGpa === undefined ? "nowhere" : `at ${hex(tableGpa)}`;
    throw new Refusal(
      "firmware-without-kernel-hashes",
      `The firmware puts the kernel hash table ${where}, which is not inside its page of ${section.size} bytes at ${hex(section.gpa)}.`,
    );
  }
  const page = Buffer.alloc(4096);
  page.set(table, offset);
  return page;
}

/** SHA-384 of the save areas of a guest's first vCPU and of all others. */
export interface VcpuAreas {
  boot: Uint8Array;
  application: Uint8Array;
}

export function vcpuAreas(
  launch: Pick<SnpLaunch, "resetEip" | "guestFeatures" | "vmm">,
  cpuSignature: number,
): VcpuAreas {
  const area = (eip: number) => sha384(vmsaPage({ ...launch, eip, cpuSignature }));
  return { boot: area(bootEip), application: area(launch.resetEip) };
}

/** That a guest can be measured with. */
export const mostVcpus = 4096;

/**
 * Measures the vCPUs' save areas in order. `each` gets the digest of a guest with the vCPUs so far, so that a whole row of
 * a table costs no more than its last value.
 */
function measureVcpus(
  beforeVcpus: Uint8Array,
  areas: VcpuAreas,
  vcpus: number,
  each?: (digest: LaunchDigest) => void,
): LaunchDigest {
  if (!Number.isInteger(vcpus) || vcpus < 1 || vcpus > mostVcpus) {
    throw new Refusal("vcpu-count", `A guest with ${vcpus} vCPUs cannot be measured: expected 1 to ${mostVcpus}.`);
  }
  const digest = new LaunchDigest(beforeVcpus);
  for (let index = 0; index < vcpus; index += 1) {
    digest.page(pageType.vmsa, vmsaGpa, index === 0 ? areas.boot : areas.application);
    each?.(digest);
  }
  return digest;
}

/** Element `n - 1` is the launch digest for `n` vCPUs. */
export function digestsByVcpus(beforeVcpus: Uint8Array, areas: VcpuAreas, vcpus: number): Buffer[] {
  const row: Buffer[] = [];
  measureVcpus(beforeVcpus, areas, vcpus, (digest) => row.push(digest.value()));
  return row;
}

export const digestWithVcpus = (beforeVcpus: Uint8Array, areas: VcpuAreas, vcpus: number): Buffer =>
  measureVcpus(beforeVcpus, areas, vcpus).value();

/** The launch digest (48 bytes) that the guest's attestation report will show as MEASUREMENT. */
export const launchDigest = (launch: SnpLaunch, cpuSignature: number, vcpus: number): Buffer =>
  digestWithVcpus(digestBeforeVcpus(launch), vcpuAreas(launch, cpuSignature), vcpus);

/** The parts of a launch that the firmware file decides. */
export function firmwareLaunch(
  bytes: Uint8Array,
  firmware: Firmware,
): Pick<SnpLaunch, "firmwareDigest" | "sections" | "hashTableGpa" | "resetEip"> {
  if (firmware.resetEip === undefined) {
    throw new Refusal(
      "firmware-without-reset-block",
      "The firmware's table has no SEV-ES reset block, so it cannot start an SEV-SNP guest. Use an OVMF with SEV support.",
    );
  }
  return {
    firmwareDigest: firmwareDigest(bytes),
    sections: firmware.sev ?? [],
    ...(firmware.hashTable !== undefined && firmware.hashTable.gpa !== 0
      ? { hashTableGpa: firmware.hashTable.gpa }
      : {}),
    resetEip: firmware.resetEip,
  };
}
