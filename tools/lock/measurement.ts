import { join } from "node:path";
import type { ByteSource } from "../../node-installer/measure/bytes.ts";
import { type CollectOptions, collectInputs } from "../../node-installer/measure/collect.ts";
import type { MeasurementInputs } from "../../node-installer/measure/inputs.ts";
import type { FileRole } from "../../node-installer/runtime/manifest.ts";
import { withFile } from "../file-source.ts";

/** The inputs of launch measurements, from a payload's files below a directory. @throws Refusal for a file that is damaged */
export function measurementOf(
  directory: string,
  files: { role: FileRole; path: string }[],
  options: CollectOptions,
): MeasurementInputs {
  const measured: FileRole[] = ["firmware", "kernel", "initrd", "igvm", "rootfs"];
  const open = (
    [next, ...others]: { role: FileRole; path: string }[],
    sources: Partial<Record<FileRole, ByteSource>>,
  ): MeasurementInputs =>
    next
      ? withFile(join(directory, next.path), (source) => open(others, { ...sources, [next.role]: source }))
      : collectInputs(sources, options);
  return open(
    files.filter(({ role }) => measured.includes(role)),
    {},
  );
}
