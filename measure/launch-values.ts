import type { Manifest } from "../runtime/manifest.ts";
import { platforms } from "../runtime/platforms.ts";
import type { PlatformName } from "../runtime/spec.ts";
import { cpuModelsOf, type ReferenceValues, referenceValues, usualVcpus } from "./reference-values.ts";
import { measuredRuntime } from "./runtime.ts";
import { type ReferenceTable, referenceTable } from "./verifier-formats.ts";

/** Undefined if the manifest says nothing about measurements. Throws `Refusal` if the payload cannot be such a guest. */
export function valuesOf(
  platform: PlatformName,
  manifest: Manifest,
  vcpus: readonly number[],
): ReferenceValues | undefined {
  const { tee } = platforms[platform];
  const inputs = tee === "none" ? undefined : measuredRuntime({ platform, manifest }).inputs;
  return inputs && referenceValues(inputs, { tee, models: cpuModelsOf(manifest.flavour), vcpus });
}

/**
 * What a verifier will see of a guest with one vCPU, for the review card: a change here means that attestation must be
 * updated. Empty if the manifest says nothing about measurements.
 */
export function launchValues(platform: PlatformName, manifest: Manifest): Record<string, string> {
  const values = valuesOf(platform, manifest, [1]);
  if (values === undefined) return {};
  const snp = values.snp.map(({ model = "IGVM", measurement }) => [`${model} launch digest`, measurement]);
  const tdx = values.tdx.flatMap(({ mrtd, rtmrs }) => [
    ["MRTD", mrtd],
    ...rtmrs.flatMap((value, i) => (value === null ? [] : [[`RTMR${i}`, value]])),
  ]);
  const unknown = values.notPredictable.map(({ name, reason }) => [name, `not predictable: ${reason}`]);
  return Object.fromEntries([...snp, ...tdx, ...unknown]);
}

/** The same for guests with up to eight vCPUs. */
export function launchTable(platform: PlatformName, manifest: Manifest): ReferenceTable | undefined {
  const values = valuesOf(platform, manifest, usualVcpus);
  return values && referenceTable(values);
}
