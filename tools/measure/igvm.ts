import { hex } from "../../measure/bytes.ts";
import { readIgvm } from "../../measure/igvm.ts";
import { measureIgvm } from "../../measure/igvm-digest.ts";
import { readWhole } from "./files.ts";

/** The SEV-SNP launch digest of an IGVM file, and whether its ID block agrees. */
export function igvm(file: string): object {
  const { policy, idBlock, ...rest } = measureIgvm(readIgvm(readWhole(file)));
  return {
    measurement: rest.launchDigest,
    vcpus: rest.vcpus,
    ...(policy === undefined ? {} : { policy: hex(policy) }),
    ...(idBlock === undefined
      ? {}
      : { idBlock: { launchDigest: idBlock.launchDigest, matches: idBlock.matches, guestSvn: idBlock.guestSvn } }),
  };
}
