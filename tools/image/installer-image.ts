import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { Refusal } from "../../runtime/refusal.ts";
import { namedCa } from "../files/named-file.ts";
import { isPackage, packageRoot } from "../files/project.ts";
import type { BuiltImage } from "../oci/layout.ts";
import { type Progress, seconds, toStderr } from "../process/progress.ts";
import { buildImage, installerLayout, localPayloads, payloadsDirectory } from "./build.ts";
import { bundledPackagesFile } from "./parts.ts";
import { pushImage } from "./push.ts";

/** Bundles the program and builds the image, with the payloads that are on this machine or those named. */
export async function buildInstallerImage(
  options: { payloads?: string[] } = {},
  progress: Progress = toStderr,
): Promise<BuiltImage> {
  const begin = Date.now();
  const program = await installerProgram();
  const payloads = await localPayloads(options.payloads);
  const bundled = JSON.parse(await readFile(bundledPackagesFile, "utf8"));
  const image = await buildImage({ program, bundled, payloads }, progress);
  const megabytes = image.layers.reduce((sum, layer) => sum + layer.size, 0) / 1e6;
  const fresh = image.layers.filter(({ cached }) => !cached).length;
  progress(
    `Installer image ${image.digest}, ${megabytes.toFixed(0)} MB: ${fresh} of ${image.layers.length} layers built in ${seconds(begin)}.`,
  );
  return image;
}

/** A package brings the bundle; a clone makes it from its sources. */
async function installerProgram(): Promise<string> {
  if (isPackage) return join(packageRoot, "dist", "node-installer.mjs");
  const { buildPrograms } = await import("./bundle.ts");
  return (await buildPrograms()).nodeInstaller;
}

/** What `contrast-runtime image` was asked for. */
export interface ImageOrder {
  /** Default: all that are on this machine. */
  payload: string[];
  push?: { registry: string; repository: string } | undefined;
  ca?: string | undefined;
}

export interface MadeImage {
  digest: string;
  /** Where it was pushed. */
  reference?: string;
  /** Their names, sorted. */
  payloads: string[];
}

/**
 * Builds, and pushes on request.
 *
 * @param from where the payloads are
 * @throws Refusal without a payload: such an image would install nothing
 */
export async function makeImage(order: ImageOrder, from = payloadsDirectory): Promise<MadeImage> {
  const ca = order.ca === undefined ? undefined : await namedCa(order.ca);
  const found = await localPayloads(order.payload.length > 0 ? order.payload : undefined, from);
  const payloads = found.map(({ manifest }) => manifest.name);
  if (payloads.length === 0)
    throw new Refusal(
      "no-payload",
      "There is no payload on this machine, and an image without one installs nothing. Fetch one: contrast-runtime lock, or lock fetch --manifest FILE for one that is committed.",
    );
  const { digest } = await buildInstallerImage({ payloads });
  const reference = order.push ? await pushImage({ layoutDir: installerLayout, ca, ...order.push }) : undefined;
  return { digest, ...(reference !== undefined && { reference }), payloads };
}
