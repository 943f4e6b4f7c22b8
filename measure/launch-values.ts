import { platforms } from "../runtime/platforms.ts";
import { cpuModelsOf, type ReferenceValues, referenceValues, usualVcpus } from "./reference-values.ts";
import type { MeasuredRuntime } from "./runtime.ts";
import { type ReferenceTable, referenceTable } from "./verifier-formats.ts";

/** Undefined if the manifest says nothing about measurements, or the platform has no TEE. */
export function valuesOf(
  { platform, manifest, inputs }: MeasuredRuntime,
  vcpus: readonly number[],
): ReferenceValues | undefined {
  const { tee } = platforms[platform];
  if (tee === "none" || inputs === undefined) return undefined;
  return referenceValues(inputs, { tee, models: cpuModelsOf(manifest.flavour), vcpus });
}

/**
 * What a verifier will see of a guest with one vCPU, for the review card: a change here means that attestation must be
 * updated. Empty if the manifest says nothing about measurements.
 */
export function launchValues(runtime: MeasuredRuntime): Record<string, string> {
  const values = valuesOf(runtime, [1]);
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
export function launchTable(runtime: MeasuredRuntime): ReferenceTable | undefined {
  const values = valuesOf(runtime, usualVcpus);
  return values && referenceTable(values);
}
