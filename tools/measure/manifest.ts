/** `measure manifest`: reference values of a payload from its manifest alone, in the shapes that verifiers take. */
import { defaultGuestPolicy } from "../../measure/id-block.ts";
import { valuesOf } from "../../measure/launch-values.ts";
import { usualVcpus } from "../../measure/reference-values.ts";
import { measuredRuntime } from "../../measure/runtime.ts";
import {
  contrastReferenceValues,
  referenceTable,
  trusteeMessage,
  trusteeReferenceValues,
} from "../../measure/verifier-formats.ts";
import { platforms } from "../../runtime/platforms.ts";
import { Refusal } from "../../runtime/refusal.ts";
import type { PlatformName } from "../../runtime/spec.ts";
import { readManifest } from "../files/manifest.ts";

/** In which form the values are printed. */
type Shape = "table" | "contrast" | "trustee" | "rvps";

interface Wanted {
  platform: PlatformName;
  vcpus?: readonly number[] | undefined;
  for: Shape;
}

export async function manifestValues(
  path: string,
  { platform, vcpus = usualVcpus, for: shape }: Wanted,
): Promise<object> {
  const manifest = await readManifest(path, "The lock command writes manifests.");
  // The values of a payload that cannot serve the platform are those of no guest: it is refused here.
  const table = valuesOf(measuredRuntime({ platform, manifest }), vcpus);
  if (table === undefined) {
    throw new Refusal(
      "not-measured",
      platforms[platform].tee === "none"
        ? `Platform ${platform} has no TEE: nothing is measured.`
        : `${path} has no measurement inputs. Write it again with the lock command of this version.`,
    );
  }
  if (shape === "table") return referenceTable(table);
  const { policy } = manifest.measurement?.igvm ?? {};
  const guestPolicy = policy === undefined ? defaultGuestPolicy : BigInt(policy);
  if (shape === "contrast") return contrastReferenceValues(table, { guestPolicy });
  const trustee = trusteeReferenceValues(table, guestPolicy);
  return shape === "trustee" ? trustee : trusteeMessage(trustee);
}
