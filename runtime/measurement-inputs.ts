import * as z from "zod";

/** Types of SEV metadata sections (edk2 OvmfPkg/ResetVector/X64/OvmfSevMetadata.asm). */
export const sevSectionType = { secMem: 1, secrets: 2, cpuid: 3, svsmCaa: 4, kernelHashes: 0x10 } as const;

/** Sections are hashed page by page, so bogus sizes could take forever; real firmware describes a few MiB in total. */
export const largestLaunchMemory = 64 << 20;

/** Those of the kernel's dm-verity algorithms that are strong enough for a measurement. */
export const verityAlgorithms = ["sha256", "sha384", "sha512"] as const;
export type VerityAlgorithm = (typeof verityAlgorithms)[number];

const hexOf = (bytes: number) =>
  z.string().regex(new RegExp(`^[0-9a-f]{${bytes * 2}}$`), { error: `must be ${bytes} bytes in lower-case hex` });
const address = z.int().min(0);
/** Of the file that the inputs were collected from. Absent in manifests of earlier versions, which are refused for it. */
const collectedFrom = hexOf(32).optional();

/** Same limits as in the reader of firmware: hashing takes time per page, and an unknown type has no digest. */
const sections = z
  .array(
    z.strictObject({
      gpa: address,
      size: z.int().min(0).multipleOf(4096),
      type: z.int().refine((type) => Object.values<number>(sevSectionType).includes(type), {
        error: "is not a type of SEV metadata",
      }),
    }),
  )
  .refine((all) => all.reduce((sum, { size }) => sum + size, 0) <= largestLaunchMemory, {
    error: `must describe at most ${largestLaunchMemory} bytes`,
  });

/** What firmware decides of an SEV-SNP launch; see snp.ts. */
const snpInputs = z.strictObject({
  /** Launch digest after the firmware image. */
  firmwareDigest: hexOf(48),
  /** SEV metadata in the order of measurement. Addresses and sizes in bytes. */
  sections,
  /** Guest-physical address of the table of kernel hashes; absent: this firmware boots any kernel. */
  hashTableGpa: address.optional(),
  /** Where application processors start. */
  resetEip: address,
  /** SEV_FEATURES: 0x1 for host kernels from 6.8 on. */
  guestFeatures: z.int().min(1),
});

const tdxInputs = z.strictObject({
  /** For either order in which VMMs add pages; see tdx.ts. */
  mrtd: z.strictObject({ singlePass: hexOf(48), twoPass: hexOf(48) }),
  /** The firmware takes the kernel as it is, where the VMM offers it; see boot-files.ts. Absent: not known. */
  bootFiles: z.boolean().optional(),
  /**
   * RTMR0 by number of vCPUs, as somebody who can know it said: it holds what QEMU and the firmware make of the guest's
   * memory and devices, which the files do not define.
   */
  rtmr0: z.partialRecord(z.string().regex(/^[1-9]\d{0,3}$/), hexOf(48)).optional(),
});

const igvmInputs = z.strictObject({
  sha256: collectedFrom,
  launchDigest: hexOf(48),
  /** vCPUs whose initial state is in the file. */
  vcpus: z.int().min(0),
  /** The guest's kernel command line, where it was found in the file. */
  commandLine: z.string().optional(),
  /** Guest policy, hexadecimal. */
  policy: z
    .string()
    .regex(/^0x[0-9a-f]{1,16}$/)
    .optional(),
  idBlock: z
    .strictObject({
      launchDigest: hexOf(48),
      familyId: hexOf(16),
      imageId: hexOf(16),
      guestSvn: z.int().min(0),
      /** SHA-384 of the public key; the report's ID_KEY_DIGEST. */
      idKeyDigest: hexOf(48),
    })
    .optional(),
});

const rootfsInputs = z.strictObject({
  sha256: collectedFrom,
  filesystem: z.strictObject({ type: z.enum(["ext4", "erofs", "squashfs"]), size: z.int().min(0) }).optional(),
  verity: z
    .strictObject({
      algorithm: z.enum(verityAlgorithms),
      dataBlockSize: z.int().min(512),
      hashBlockSize: z.int().min(512),
      dataBlocks: z.int().min(1),
      salt: z.string().regex(/^([0-9a-f]{2})*$/),
      /** Computed from the data; the stored tree agrees with it. */
      rootHash: z.string().regex(/^[0-9a-f]{64,128}$/),
      /** The hash partition starts with a superblock; the tree follows one hash block later. */
      superblock: z.boolean(),
    })
    .optional(),
});

/**
 * Everything that a payload's launch measurements are computed from, collected from its files by the lock command
 * (measure/collect-inputs.ts) and kept in its manifest, so that a preview computes every value without the files. Little of
 * it can be read by eye; reference-values.ts says what it means.
 */
export const measurementInputs = z.strictObject({
  /**
   * The guest's whole kernel command line as the VMM passes it, `{vcpus}` for its vCPUs, where the payload's builder
   * published it. Absent: what Kata makes of the configuration that is rendered, where that is known.
   */
  commandLine: z.string().optional(),
  kernel: z
    .strictObject({
      sha256: hexOf(32),
      version: z.string().optional(),
      /** Bytes. */
      commandLineLimit: z.int().min(0).optional(),
      efiStub: z.boolean(),
      /** SHA-384 of the file as a PE executable, by which firmware measures it. Absent in manifests of earlier versions. */
      authenticode: hexOf(48).optional(),
    })
    .optional(),
  initrd: z.strictObject({ sha256: hexOf(32), sha384: hexOf(48), format: z.string() }).optional(),
  /** What it means for a launch is in snp and tdx. */
  firmware: z.strictObject({ sha256: hexOf(32) }).optional(),
  snp: snpInputs.optional(),
  tdx: tdxInputs.optional(),
  /** `bootFiles`: it offers the guest's kernel as it is; see boot-files.ts. Absent in manifests of earlier versions. */
  vmm: z.strictObject({ sha256: hexOf(32), bootFiles: z.boolean() }).optional(),
  igvm: igvmInputs.optional(),
  rootfs: rootfsInputs.optional(),
  /** In the order of the guest's extensions. */
  extensions: z.array(rootfsInputs.extend({ name: z.string() })).optional(),
});
export type MeasurementInputs = z.infer<typeof measurementInputs>;
export type RootfsInputs = z.infer<typeof rootfsInputs>;
