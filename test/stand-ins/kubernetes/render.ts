import { mkdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { stringify } from "yaml";
import type { Properties } from "../values.ts";
import { apiVersionOf, kindOf, nameOf, namespaceOf } from "./objects.ts";

const directories = ["0-crd", "1-manifest"] as const;

/** The path of the object's manifest; definitions sort first, so that the files can be applied in order. */
function manifestPath(directory: string, object: Properties): string {
  const group = kindOf(object) === "CustomResourceDefinition" ? directories[0] : directories[1];
  const version = apiVersionOf(object).replaceAll(/[/:]/g, "_");
  const file = [version, kindOf(object).toLowerCase(), namespaceOf(object) || "default", nameOf(object)].join("-");
  return join(directory, group, `${file}.yaml`);
}

/** Writes secrets in plain text. */
export async function writeManifest(directory: string, object: Properties): Promise<string> {
  for (const name of directories) await mkdir(join(directory, name), { recursive: true, mode: 0o700 });
  const path = manifestPath(directory, object);
  await writeFile(path, stringify(object, { sortMapEntries: true, lineWidth: 0 }), { mode: 0o600 });
  return path;
}

export const removeManifest = (directory: string, object: Properties): Promise<void> =>
  rm(manifestPath(directory, object), { force: true });
