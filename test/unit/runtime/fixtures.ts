import { readFileSync } from "node:fs";
import { join } from "node:path";
import { type Manifest, manifestSchema } from "../../../node-installer/runtime/manifest.ts";

/** A committed manifest of files that do not exist. */
export const fixtureManifest = (name: string): Manifest =>
  manifestSchema.parse(
    JSON.parse(readFileSync(join(import.meta.dirname, `../../fixtures/manifests/fixture-${name}.json`), "utf8")),
  );
