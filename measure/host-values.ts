/**
 * What verifiers compare of the hosts beside the guest: nothing of it can be computed from a payload, all of it is read on
 * the hosts that guests shall run on (docs/attestation.md says where). Absent: not known.
 */
export interface HostValues {
  /** Security versions of SEV-SNP hosts: those that are accepted (Trustee), or the least ones by product (Contrast). */
  snpTcb?: SnpTcb[];
  /** SEV-SNP hosts have simultaneous multithreading on; transparent encryption of all memory on. */
  smt?: boolean;
  tsme?: boolean;
  /** The only SEV-SNP chips that are accepted. Hex, 64 bytes. */
  chipIds?: string[];
  /** Mitigations that an SEV-SNP host must have: bits of the report's launch mitigation vector. */
  mitigationVector?: number;
  /** SHA-384 of TDX modules that are accepted. Hex. */
  mrSeam?: string[];
  /** TEE_TCB_SVN of TDX hosts, 16 bytes in hex, for policies that compare it. */
  tdxTcbSvn?: string[];
}

export const snpProducts = ["Milan", "Genoa"] as const;
export type SnpProduct = (typeof snpProducts)[number];
export const snpTcbParts = ["bootloader", "tee", "snp", "microcode"] as const;

/** REPORTED_TCB of an attestation report: each part from 0 to 255. */
export type SnpTcb = { /** Absent: of any product. */ product?: SnpProduct } & Record<
  (typeof snpTcbParts)[number],
  number
>;
