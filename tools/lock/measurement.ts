import { join } from "node:path";
import type { ByteSource } from "../../measure/bytes.ts";
import { type CollectOptions, collectExtension, collectInputs } from "../../measure/collect-inputs.ts";
import { measuredRoles } from "../../measure/payload-consistency.ts";
import type { FileRole, Manifest } from "../../runtime/manifest.ts";
import type { MeasurementInputs } from "../../runtime/measurement-inputs.ts";
import { Refusal } from "../../runtime/refusal.ts";
import { withFile } from "../files/byte-source.ts";

/** The inputs of launch measurements, from a payload's files below a directory. @throws Refusal for a file that is damaged */
export function measurementOf(
  directory: string,
  files: { role: FileRole; path: string }[],
  options: CollectOptions,
): MeasurementInputs {
  const measured: FileRole[] = measuredRoles;
  const open = (
    [next, ...others]: { role: FileRole; path: string }[],
    sources: Partial<Record<FileRole, ByteSource>>,
  ): MeasurementInputs =>
    next
      ? withFile(join(directory, next.path), (source) => open(others, { ...sources, [next.role]: source }))
      : collectInputs(sources, options);
  const inputs = open(
    files.filter(({ role }) => measured.includes(role)),
    {},
  );
  const extensions = options.guest?.extensions?.map(({ name, path, verityParams }) => ({
    name,
    ...withFile(join(directory, path), (source) => collectExtension(source, verityParams)),
  }));
  return extensions === undefined ? inputs : { ...inputs, extensions };
}

/**
 * Collects the inputs of a payload's measurement from its files again. Throws a `Refusal` that names what differs from the
 * manifest's: the values that previews publish would be those of other files.
 */
export function checkCollected(directory: string, manifest: Manifest): void {
  const { name, measurement, files, guest } = manifest;
  if (measurement === undefined) return;
  const { commandLine, snp, tdx } = measurement;
  const given = { guest, commandLine, guestFeatures: snp?.guestFeatures, rtmr0: tdx?.rtmr0 };
  const found = leaves(measurementOf(directory, files, given));
  const locked = leaves(measurement);
  const differences = [...new Set([...locked.keys(), ...found.keys()])]
    .filter((path) => locked.get(path) !== found.get(path))
    .map(
      (path) =>
        `${path} is ${found.get(path) ?? "absent"} in the files, but ${locked.get(path) ?? "absent"} in the manifest`,
    );
  if (differences.length > 0)
    throw new Refusal(
      "measurement-differs",
      `The files of payload ${name} (${directory}) do not give the measurement in its manifest: ${differences.join("; ")}. Lock it again.`,
    );
}

/** Every value of a document by its path, such as `snp.sections.0.gpa`. */
function leaves(value: unknown, path = ""): Map<string, string> {
  if (value === undefined) return new Map();
  if (typeof value !== "object" || value === null) return new Map([[path, JSON.stringify(value)]]);
  return new Map(
    Object.entries(value).flatMap(([key, child]) => [...leaves(child, path === "" ? key : `${path}.${key}`)]),
  );
}
