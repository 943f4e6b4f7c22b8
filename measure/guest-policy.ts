/** SMT allowed and the reserved bit that must be one: the policy that Kata's templates have. */
export const defaultGuestPolicy = 0x30000n;

/** The fields of an SNP guest policy (firmware ABI, table 9), under the names of go-sev-guest's abi.SnpPolicy. */
export function guestPolicyFields(policy: bigint): Record<string, number | boolean> {
  const bit = (index: bigint) => ((policy >> index) & 1n) === 1n;
  return {
    ABIMinor: Number(policy & 0xffn),
    ABIMajor: Number((policy >> 8n) & 0xffn),
    SMT: bit(16n),
    MigrateMA: bit(18n),
    Debug: bit(19n),
    SingleSocket: bit(20n),
    CXLAllowed: bit(21n),
    MemAES256XTS: bit(22n),
    RAPLDis: bit(23n),
    CipherTextHidingDRAM: bit(24n),
    PageSwapDisabled: bit(25n),
  };
}
