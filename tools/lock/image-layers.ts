import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { mkdtemp, readFile, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as z from "zod";
import { TardevLayer } from "../../measure/tardev.ts";
import { sha256 } from "../../runtime/canonical.ts";
import { Refusal } from "../../runtime/refusal.ts";
import type { LayerRoot } from "../../workload/template.ts";
import { fetchImage, imageJson, imageManifest } from "../oci/image.ts";
import { blobPath } from "../oci/layout.ts";
import type { Progress } from "../process/progress.ts";
import { decompressed, openArchives } from "./archives.ts";

/** An image's layers as containerd knows them, lowest first, with the roots that tardev-snapshotter computes of them. */
export interface ImageLayers {
  /** As it was given. */
  image: string;
  layers: LayerRoot[];
}

/**
 * Reads every layer of an image once.
 *
 * @param image "registry/repository@sha256:…", or a directory or archive with an OCI image layout, or an archive of `docker save`
 * @throws Refusal for what is none of these, is damaged, or has a layer whose root is not known
 */
export async function imageLayers(
  image: string,
  options: { ca?: string | undefined; directory?: string },
  progress: Progress,
): Promise<ImageLayers> {
  if (!existsSync(image) && !image.includes("@"))
    throw new Refusal(
      "no-image",
      `There is no file or directory ${image}; an image of a registry is named registry/repository@sha256:<64 hex digits>.`,
    );
  if (!existsSync(image))
    return { image, layers: await layerRoots(await fetchImage(image, options, progress), progress) };
  if ((await stat(image)).isDirectory()) return { image, layers: await layersOfDirectory(image, image, progress) };
  const directory = await mkdtemp(join(tmpdir(), "contrast-image-"));
  try {
    const archive = await openArchives([image], image, progress);
    const files = archive.paths.flatMap((path) => {
      const source = archive.resolve(path);
      return source === undefined ? [] : [{ path: source, target: join(directory, path) }];
    });
    await archive.copy(files);
    return { image, layers: await layersOfDirectory(directory, image, progress) };
  } finally {
    await rm(directory, { recursive: true });
  }
}

const dockerManifests = z.tuple([z.object({ Config: z.string(), Layers: z.array(z.string()).min(1) })]);
const configuration = z.object({ rootfs: z.object({ diff_ids: z.array(z.string()) }) });

async function layersOfDirectory(directory: string, image: string, progress: Progress): Promise<LayerRoot[]> {
  const read = async (path: string) => await readFile(path, "utf8");
  if (existsSync(join(directory, "index.json"))) {
    const blob = async (digest: string) => {
      const text = await read(blobPath(directory, digest));
      if (`sha256:${sha256(text)}` === digest) return text;
      throw new Refusal("digest-mismatch", `${image} is damaged: the bytes of ${digest} have another digest.`);
    };
    const { config, layers } = await imageManifest(await read(join(directory, "index.json")), blob, image);
    const files = layers.map(({ digest }) => blobPath(directory, digest));
    return await checkedRoots(files, await blob(config.digest), image, progress);
  }
  if (!existsSync(join(directory, "manifest.json")))
    throw new Refusal(
      "no-image",
      `${image} is no image: it has neither index.json (OCI) nor manifest.json (docker save).`,
    );
  const manifests = dockerManifests.safeParse(imageJson(await read(join(directory, "manifest.json")), image));
  if (!manifests.success)
    throw new Refusal(
      "image-manifest",
      `${image} is not the archive of one image: ${z.prettifyError(manifests.error)}`,
    );
  const [{ Config, Layers }] = manifests.data;
  const files = Layers.map((path) => join(directory, path));
  return await checkedRoots(files, await read(join(directory, Config)), image, progress);
}

/** Against the image's configuration, by which a node finds the layers. */
async function checkedRoots(files: string[], config: string, image: string, progress: Progress): Promise<LayerRoot[]> {
  const parsed = configuration.safeParse(imageJson(config, image));
  if (!parsed.success)
    throw new Refusal("image-manifest", `${image} has no configuration: ${z.prettifyError(parsed.error)}`);
  const expected = parsed.data.rootfs.diff_ids;
  const layers = await layerRoots(files, progress);
  const wrong = layers.findIndex(({ diffId }, at) => diffId !== expected[at]);
  if (wrong >= 0 || layers.length !== expected.length)
    throw new Refusal(
      "digest-mismatch",
      `${image} is damaged: layer ${wrong + 1} of ${layers.length} has the diff ID ${layers[wrong]?.diffId}, but the configuration says ${expected[wrong]}.`,
    );
  return layers;
}

async function layerRoots(files: string[], progress: Progress): Promise<LayerRoot[]> {
  const roots: LayerRoot[] = [];
  for (const file of files) {
    const hash = createHash("sha256");
    const layer = new TardevLayer();
    const { source, finished } = await decompressed(file, progress);
    const consume = async () => {
      for await (const chunk of source as AsyncIterable<Buffer>) {
        hash.update(chunk);
        layer.update(chunk);
      }
    };
    await Promise.all([consume(), finished]).catch((error: Error) => {
      throw error instanceof Refusal
        ? error
        : new Refusal("layer-broken", `${file} is no whole layer: ${error.message}.`);
    });
    roots.push({ diffId: `sha256:${hash.digest("hex")}`, rootHash: layer.finish().toString("hex") });
  }
  return roots;
}
