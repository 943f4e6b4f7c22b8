import { platforms } from "../runtime/platforms.ts";
import { cpuModelsOf, exampleVcpus, type ReferenceValues, referenceValues, usualVcpus } from "./reference-values.ts";
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
 * What a verifier will see of a guest with two vCPUs, for the review card: a change here means that attestation must be
 * updated. The count is in the names of the values that depend on it. Empty if the manifest says nothing about measurements.
 */
export function launchValues(runtime: MeasuredRuntime): Record<string, string> {
  const values = valuesOf(runtime, [exampleVcpus]);
  if (values === undefined) return {};
  const snp = values.snp.map(({ model, vcpus, measurement }) => [
    model === undefined ? "IGVM launch digest" : named(`${model} launch digest`, vcpus),
    measurement,
  ]);
  const tdx = values.tdx.flatMap(({ vcpus, mrtd, rtmrs }) => [
    ["MRTD", mrtd],
    ...rtmrs.flatMap((value, i) =>
      value === null ? [] : [[i === 0 || i === 2 ? named(`RTMR${i}`, vcpus) : `RTMR${i}`, value]],
    ),
  ]);
  const unknown = values.notPredictable.map(({ name, reason }) => [name, `not predictable: ${reason}`]);
  return Object.fromEntries([...snp, ...tdx, ...unknown]);
}

const named = (name: string, vcpus: number | undefined) => (vcpus === undefined ? name : `${name}, ${vcpus} vCPUs`);

/** The same for guests with up to eight vCPUs. */
export function launchTable(runtime: MeasuredRuntime): ReferenceTable | undefined {
  const values = valuesOf(runtime, usualVcpus);
  return values && referenceTable(values);
}
