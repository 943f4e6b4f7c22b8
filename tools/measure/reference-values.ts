/** `measure manifest`: reference values of a payload from its manifest alone, in the shapes that verifiers take. */
import { parseArgs } from "node:util";
import { defaultGuestPolicy } from "../../measure/id-block.ts";
import { valuesOf } from "../../measure/launch-values.ts";
import { usualVcpus } from "../../measure/reference-values.ts";
import { deriveRuntime } from "../../measure/runtime.ts";
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

const shapes = ["table", "contrast", "trustee", "rvps"] as const;
/** As many as a Kata guest of a usual host gets; larger tables are slow to nobody's use. */
const mostVcpus = 512;

export async function manifestValues(args: string[]): Promise<object> {
  const { values, positionals } = parseArgs({
    args,
    allowPositionals: true,
    options: {
      platform: { type: "string" },
      vcpus: { type: "string" },
      for: { type: "string", default: "table" },
    },
  });
  const [path, extra] = positionals;
  if (extra !== undefined) throw new Refusal("usage", `"${extra}" was not expected.`);
  if (path === undefined) throw new Refusal("usage", "The manifest's path is missing. See measure --help.");
  const shape = oneOf(shapes, values.for, "--for");
  const platform = oneOf(Object.keys(platforms) as PlatformName[], values.platform, "--platform");
  const manifest = await readManifest(path, "The lock command writes manifests.");
  const vcpus = vcpuCounts(values.vcpus);
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

function oneOf<const Name extends string>(names: readonly Name[], name: string | undefined, option: string): Name {
  const found = names.find((each) => each === name);
  if (found !== undefined) return found;
  const given = name === undefined ? "is missing" : `is "${name}"`;
  throw new Refusal("usage", `${option} ${given}, expected one of ${names.join(", ")}.`);
}

/** "4", "1-8" or a list of both. */
function vcpuCounts(text: string | undefined): readonly number[] {
  if (text === undefined) return usualVcpus;
  const counts = text.split(",").flatMap((part) => {
    const [, first = "", last = first] = /^(\d{1,3})(?:-(\d{1,3}))?$/.exec(part) ?? [];
    const length = Number(last) - Number(first) + 1;
    if (first === "" || Number(first) < 1 || Number(last) > mostVcpus || length < 1) {
      throw new Refusal(
        "usage",
        `--vcpus is "${text}", expected counts from 1 to ${mostVcpus} such as 2, 1-8 or 1,4-6.`,
      );
    }
    return Array.from({ length }, (_, index) => Number(first) + index);
  });
  return [...new Set(counts)].toSorted((a, b) => a - b);
}
