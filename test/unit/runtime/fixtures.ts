import { readFileSync } from "node:fs";
import { join } from "node:path";
import { deriveRuntime } from "../../../measure/runtime.ts";
import { type Manifest, manifestSchema } from "../../../runtime/manifest.ts";
import type { PlatformName } from "../../../runtime/spec.ts";

/** A committed manifest of files that do not exist. */
export const fixtureManifest = (name: string): Manifest =>
  manifestSchema.parse(
    JSON.parse(readFileSync(join(import.meta.dirname, `../../fixtures/manifests/fixture-${name}.json`), "utf8")),
  );

/** Its handler; which one that is, the golden of handlers says. */
export const fixtureHandler = (name: string, platform: PlatformName = "metal-qemu-snp"): string =>
  deriveRuntime({ platform, manifest: fixtureManifest(name) }).handler;

/** The known holes of its Kata that a stack must acknowledge, by fixture. */
export const fixtureAdvisories: Record<string, string[]> = {
  "contrast-go": ["GHSA-fmg6-v47x-52wr"],
  "contrast-go-next": ["GHSA-fmg6-v47x-52wr"],
  "contrast-aks": ["GHSA-fmg6-v47x-52wr", "GHSA-5fc8-gg7w-3g5c"],
};
