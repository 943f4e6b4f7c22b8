import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { isPackage, packageRoot } from "../files/project.ts";
import type { BuiltImage } from "../oci/layout.ts";
import { type Progress, seconds, toStderr } from "../process/progress.ts";
import { buildImage, installerLayout, localPayloads } from "./build.ts";
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

/** Builds, and pushes on request; returns the image's digest, or its reference where it was pushed. */
export async function makeImage(order: ImageOrder): Promise<string> {
  const ca = order.ca === undefined ? undefined : await readFile(order.ca, "utf8");
  const image = await buildInstallerImage(order.payload.length > 0 ? { payloads: order.payload } : {});
  return order.push ? await pushImage({ layoutDir: installerLayout, ca, ...order.push }) : image.digest;
}
