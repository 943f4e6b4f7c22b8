import { copyFile, mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { sha256 } from "../../../runtime/canonical.ts";
import { Refusal } from "../../../runtime/refusal.ts";
import { packageRoot } from "../../files/project.ts";
import { buildImage, localPayloads, payloadsDirectory } from "../../image/build.ts";
import { buildPrograms } from "../../image/bundle.ts";
import { bundledPackagesFile, sourceState } from "../../image/parts.ts";
import { manifestSchema } from "../../oci/documents.ts";
import { blobPath, readImage } from "../../oci/layout.ts";
import type { Progress } from "../../process/progress.ts";
import { packPackage } from "./package.ts";

/** Below a release's directory: what its page shows, and the image as an OCI layout. */
export const filesOf = (release: string): string => join(release, "files");
export const layoutOf = (release: string): string => join(release, "image");
const checksumsFile = "SHA256SUMS";

export interface ReleaseOrder {
  /** Where it goes; what lies there is replaced. */
  output: string;
  /** Address of the sources: "https://github.com/OWNER/NAME". */
  repository: string;
  /** "v" and the package's version. Without it, sources that are committed nowhere will do, for a rehearsal. */
  tag?: string | undefined;
  /** Where payloads are that the lock command left. */
  payloads?: string;
}

/**
 * Makes everything that a release consists of: the npm package, the installer's image with the payloads, its bill of
 * materials and provenance, the payloads' manifests, and the checksums of these files. The same commit gives the same bytes.
 *
 * @throws Refusal if the tag is not the version's, or the sources are not what the tag names
 */
export async function buildRelease(order: ReleaseOrder, progress: Progress): Promise<string> {
  const { output, repository, tag, payloads: from = payloadsDirectory } = order;
  await requireSources(tag);
  const [files, layout] = [filesOf(output), layoutOf(output)];
  await rm(output, { recursive: true, force: true });
  await mkdir(files, { recursive: true });
  progress("Compiling and packing the npm package …");
  await packPackage(files, repository);
  const payloads = await localPayloads(undefined, from);
  if (payloads.length === 0)
    throw new Refusal(
      "no-payload",
      `There is no payload at ${from}, and an image without one installs nothing. Fetch them first: npm run release -- payloads`,
    );
  const { nodeInstaller: program } = await buildPrograms();
  const bundled = JSON.parse(await readFile(bundledPackagesFile, "utf8"));
  const { digest } = await buildImage({ layoutDir: layout, program, bundled, payloads }, progress);
  for (const { manifest, directory } of payloads)
    await copyFile(join(directory, "manifest.json"), join(files, `${manifest.name}.json`));
  for (const [artifactType, name] of Object.entries(attached))
    await writeFile(join(files, name), await attachedTo(layout, artifactType));
  const names = (await readdir(files)).sort();
  const sums = await Promise.all(names.map(async (name) => `${sha256(await readFile(join(files, name)))}  ${name}\n`));
  await writeFile(join(files, checksumsFile), sums.join(""));
  progress(`${names.length} files in ${files}; the image is ${digest}.`);
  return digest;
}

/** What is attached to the image, as files of the release's page. */
const attached = {
  "application/spdx+json": "contrast-node-installer.spdx.json",
  "application/vnd.in-toto+json": "contrast-node-installer.provenance.json",
};

/** The document of this type that is attached to the layout's image. */
export async function attachedTo(layout: string, artifactType: string): Promise<Buffer> {
  for (const { content } of (await readImage(layout)).referrers) {
    const { layers } = manifestSchema.parse(JSON.parse(content.toString()));
    const document = layers.find(({ mediaType }) => mediaType === artifactType);
    if (document !== undefined) return readFile(blobPath(layout, document.digest));
  }
  throw new Error(`nothing of the type ${artifactType} is attached to the image in ${layout}`);
}

async function requireSources(tag: string | undefined): Promise<void> {
  if (tag === undefined) return;
  const { version } = JSON.parse(await readFile(join(packageRoot, "package.json"), "utf8")) as { version: string };
  if (tag !== `v${version}`)
    throw new Refusal(
      "release-tag",
      `The tag is ${tag}, and package.json's version is ${version}. Set the version, commit it, and tag that commit v${version}.`,
    );
  const source = await sourceState();
  if (source === undefined || source.changed)
    throw new Refusal(
      "release-sources",
      `${source === undefined ? "The commit cannot be told" : "There are files that are not committed"}, so nobody could build this release again from ${tag}. Build it from a clean checkout of the tag.`,
    );
}

/** @throws Refusal unless the files are exactly those that the checksums name */
export async function verifyFiles(release: string): Promise<string[]> {
  const files = filesOf(release);
  const text = await readFile(join(files, checksumsFile), "utf8");
  const sums = text.split("\n").flatMap((line) => {
    const [, sum = "", name = ""] = /^([0-9a-f]{64}) {2}(.+)$/.exec(line) ?? [];
    return name === "" ? [] : [{ sum, name: basename(name) }];
  });
  const found = (await readdir(files)).filter((name) => name !== checksumsFile);
  const wrong = [
    ...found.filter((name) => !sums.some((one) => one.name === name)).map((name) => `${name} is in no line`),
    ...(await Promise.all(
      sums.map(async ({ sum, name }) => {
        const bytes = await readFile(join(files, name)).catch(() => undefined);
        if (bytes === undefined) return `${name} is missing`;
        return sha256(bytes) === sum ? [] : `${name} has another digest`;
      }),
    )),
  ].flat();
  if (wrong.length > 0 || sums.length === 0)
    throw new Refusal(
      "release-checksums",
      `${join(files, checksumsFile)} does not fit what lies beside it: ${wrong.join(", ") || "it names no file"}. Build the release again.`,
    );
  return sums.map(({ name }) => name);
}
