import { cpuModelsOf, referenceValues } from "../node-installer/measure/reference-values.ts";
import type { Manifest } from "../node-installer/runtime/manifest.ts";
import { platforms } from "../node-installer/runtime/platforms.ts";
import type { PlatformName } from "../node-installer/runtime/spec.ts";

/**
 * What a verifier will see of a guest with one vCPU, for the review card: a change here means that attestation has to be
 * told. Empty where the manifest says nothing of measurements. Throws `Refusal` where the payload cannot be such a guest.
 */
export function launchValues(platform: PlatformName, manifest: Manifest): Record<string, string> {
  const { tee } = platforms[platform];
  if (tee === "none" || manifest.measurement === undefined) return {};
  const values = referenceValues(manifest.measurement, { tee, models: cpuModelsOf(manifest.flavour), vcpus: [1] });
  const snp = values.snp.map(({ model = "IGVM", measurement }) => [`${model} launch digest`, measurement]);
  const tdx = values.tdx.flatMap(({ mrtd, rtmrs }) => [
    ["MRTD", mrtd],
    ...rtmrs.flatMap((value, i) => (value === null ? [] : [[`RTMR${i}`, value]])),
  ]);
  const unknown = values.notPredictable.map(({ name, reason }) => [name, `not predictable: ${reason}`]);
  return Object.fromEntries([...snp, ...tdx, ...unknown]);
}
