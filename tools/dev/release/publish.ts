import { writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { Refusal } from "../../../runtime/refusal.ts";
import { pushImage } from "../../image/push.ts";
import type { Progress } from "../../process/progress.ts";
import { check } from "../../process/run.ts";
import { filesOf, layoutOf, verifyFiles } from "./build.ts";
import { type Signing, signImage } from "./sign.ts";

export interface Publication {
  /** What `buildRelease` made. */
  release: string;
  image: { registry: string; repository: string };
  ca?: string | undefined;
  /** undefined: the public registry, as npm's configuration has it. */
  npmRegistry?: string | undefined;
  /** Who signs the image; undefined: nobody does, and npm makes no provenance either. */
  signing: (Signing & { builder: string }) | undefined;
}

/**
 * Signs and pushes the image, and publishes the npm package, in this order: a package that is published cannot be taken
 * back. What is there already is left as it is, so that a run that broke off can be repeated.
 *
 * @returns the image's reference, by digest
 */
export async function publishRelease(publication: Publication, progress: Progress): Promise<string> {
  const { release, image, ca, npmRegistry, signing } = publication;
  const names = await verifyFiles(release);
  const archive = names.find((name) => name.endsWith(".tgz"));
  if (archive === undefined) throw new Refusal("release-package", `${filesOf(release)} holds no npm package.`);
  if (signing !== undefined) {
    progress("Signing the image …");
    await signImage(layoutOf(release), signing.builder, signing);
  }
  const reference = await pushImage({ layoutDir: layoutOf(release), ca, ...image }, progress);
  await writeFile(join(release, "installer-image.txt"), `${reference}\n`);
  progress(`Pushed ${reference}.`);
  const registry = npmRegistry === undefined ? [] : ["--registry", npmRegistry];
  const provenance = signing === undefined ? [] : ["--provenance"];
  const file = resolve(filesOf(release), archive);
  if (await isPublished(archive, registry)) progress(`${archive} is published already.`);
  else {
    await check("npm", ["publish", file, "--access", "public", ...provenance, ...registry]);
    progress(`Published ${archive}.`);
  }
  return reference;
}

/** Whether the registry has this version; any failure to tell means that npm shall say what is wrong. */
async function isPublished(archive: string, registry: string[]): Promise<boolean> {
  const [, name = "", version = ""] = /^(.+?)-(\d+\.\d+\.\d+.*)\.tgz$/.exec(archive) ?? [];
  const found = await check("npm", ["view", `${name}@${version}`, "version", ...registry]).catch(() => "");
  return found.trim() === version;
}
