/** `measure manifest`: reference values of a payload from its manifest alone, in the shapes that verifiers take. */
import { readFileSync } from "node:fs";
import { defaultGuestPolicy } from "../../measure/id-block.ts";
import { valuesOf } from "../../measure/launch-values.ts";
import { usualVcpus } from "../../measure/reference-values.ts";
import { deriveRuntime } from "../../measure/runtime.ts";
import {
  contrastReferenceValues,
  referenceTable,
  trusteeMessage,
  trusteeReferenceValues,
} from "../../measure/verifiers.ts";
import { type Manifest, manifestSchema } from "../../runtime/manifest.ts";
import { platforms } from "../../runtime/platforms.ts";
import { Refusal } from "../../runtime/refusal.ts";
import type { PlatformName } from "../../runtime/spec.ts";

/** In which form the values are printed. */
type Shape = "table" | "contrast" | "trustee" | "rvps";

interface Wanted {
  platform: PlatformName;
  vcpus?: readonly number[] | undefined;
  for: Shape;
}

export function manifestValues(path: string, { platform, vcpus = usualVcpus, for: shape }: Wanted): object {
  const manifest = readManifest(path);
  // The values of a payload that cannot serve the platform are those of no guest.
  deriveRuntime({ platform, manifest });
  const table = valuesOf(platform, manifest, vcpus);
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

function readManifest(path: string): Manifest {
  let content: unknown;
  try {
    content = JSON.parse(readFileSync(path, "utf8"));
  } catch (error) {
    throw new Refusal(
      "manifest",
      `${path} cannot be read: ${(error as Error).message}. The lock command writes manifests.`,
    );
  }
  const { data, error } = manifestSchema.safeParse(content);
  if (data !== undefined) return data;
  const [issue] = error.issues;
  throw new Refusal(
    "manifest",
    `${path} is no manifest: ${issue?.path.join(".") || "the document"}: ${issue?.message}. The lock command writes manifests.`,
  );
}
