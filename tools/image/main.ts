// npm run image [-- --payload NAME … --push TARGET --ca FILE]: builds the installer's image; pushes it on request.
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { Refusal } from "../../runtime/refusal.ts";
import { isPackage, packageRoot } from "../files/project.ts";
import type { BuiltImage } from "../oci/layout.ts";
import { type Progress, seconds, toStderr } from "../programs/progress.ts";
import { buildImage, installerLayout, localPayloads } from "./build.ts";
import { bundledPackagesFile } from "./parts.ts";
import { pushImage, reportFailure } from "./push.ts";

const usage = `Usage: npm run image [-- OPTIONS]
  --payload NAME   put this payload into the image (repeatable; default: all that are on this machine)
  --push TARGET    then push the image, such as ghcr.io/team/contrast-node-installer or http://10.0.0.1:5000/installer
  --ca FILE        certificate of the registry's authority (PEM)`;

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
  const { buildPrograms } = await import("../dev/bundle.ts");
  return (await buildPrograms()).nodeInstaller;
}

/** The command: prints the image's digest, or its reference where it was pushed. Returns the exit code. */
export async function main(argv: string[]): Promise<number> {
  if (argv.includes("--help")) {
    console.log(usage);
    return 0;
  }
  try {
    const { values } = parseArgs({
      args: argv,
      options: { payload: { type: "string", multiple: true }, push: { type: "string" }, ca: { type: "string" } },
    });
    const target = values.push === undefined ? undefined : parseTarget(values.push);
    const ca = values.ca === undefined ? undefined : await readFile(values.ca, "utf8");
    const image = await buildInstallerImage(values.payload ? { payloads: values.payload } : {});
    console.log(target ? await pushImage({ layoutDir: installerLayout, ca, ...target }) : image.digest);
    return 0;
  } catch (error) {
    return reportFailure(error, usage);
  }
}

/** "https://host:port/repository", the scheme optional. */
function parseTarget(text: string): { registry: string; repository: string } {
  const [, registry, repository] = /^((?:https?:\/\/)?[^/]+)\/([^@:]+)$/.exec(text) ?? [];
  if (registry && repository) return { registry, repository };
  throw new Refusal(
    "push-target",
    `--push "${text}" must be registry/repository without tag or digest, such as ghcr.io/team/installer.`,
  );
}

if (import.meta.main) process.exitCode = await main(process.argv.slice(2));
