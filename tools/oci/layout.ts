import { mkdir, readdir, readFile, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import * as z from "zod";
import { brokenImage, type Descriptor, indexSchema, readImageIndex } from "../../components/config/image-layout.ts";
import { sha256 } from "../../runtime/canonical.ts";
import { explainFullDisk } from "../files/full-disk.ts";
import { withLock } from "../files/mutex.ts";
import { replaceFile } from "../files/replace.ts";
import { type Progress, toStderr } from "../process/progress.ts";
import { manifestSchema, manifestType } from "./documents.ts";
import { buildLayer, type Compression, type Entry, type Layer, layerKey } from "./layer.ts";

// An image on disk as the OCI image layout specification has it: oci-layout, index.json and blobs/sha256/<hex>.

/** What an artifact has in the place of a configuration: "{}". */
const emptyType = "application/vnd.oci.empty.v1+json";
const configType = "application/vnd.oci.image.config.v1+json";

export const blobPath = (layoutDir: string, digest: string): string =>
  join(layoutDir, "blobs", "sha256", digest.slice("sha256:".length));

/** What a container of the image runs with. */
export interface ImageConfig {
  entrypoint?: string[];
  command?: string[];
  env?: string[];
  user?: string;
}

/** What is attached to an image: a document of its own, which names the image as its subject (OCI image spec 1.1). */
export interface Referrer {
  /** The document's media type; also what referrers are told apart by. */
  artifactType: string;
  content: string;
  annotations: Record<string, string>;
}

export interface LayerContent {
  name: string;
  entries: Entry[];
  compression: Compression;
  /** Puts the layer's blob into the directory of blobs, where that is more than building it from the entries. */
  make?: (blobs: string) => Promise<Layer>;
}

export interface ImageContent {
  layers: LayerContent[];
  config: ImageConfig;
  annotations?: Record<string, string>;
  /** What is attached to the image of this digest. It changes nothing of the image itself. */
  referrers?: (digest: string) => Referrer[];
}

/** A manifest on disk, and the blobs that it names. */
export interface StoredManifest {
  manifest: Descriptor;
  content: Buffer;
  /** Configuration first. */
  blobs: Descriptor[];
}

export interface BuiltImage {
  /** "sha256:…" of the image's manifest. */
  digest: string;
  layers: { name: string; digest: string; size: number; cached: boolean }[];
}

/**
 * Makes the layout hold this image and nothing else. Layers whose entries are as before are not built again. The same
 * content gives the same digest, on any machine with the same Node (whose zstd compresses).
 */
export async function writeImage(
  layoutDir: string,
  content: ImageContent,
  progress: Progress = toStderr,
): Promise<BuiltImage> {
  const waiting = (other: string) => progress(`Waiting for ${other}, which is writing ${layoutDir}.`);
  return await withLock(`image ${layoutDir}`, `process ${process.pid}`, waiting, () =>
    explainFullDisk(layoutDir, write(layoutDir, content, progress)),
  );
}

async function write(layoutDir: string, content: ImageContent, progress: Progress): Promise<BuiltImage> {
  const blobs = join(layoutDir, "blobs", "sha256");
  await mkdir(blobs, { recursive: true });
  const recordFile = `${layoutDir}.layers.json`;
  const known = await readRecord(recordFile);
  const record: Record<string, Layer> = {};
  const layers: (Layer & { name: string; cached: boolean })[] = [];
  for (const { name, entries, compression, make } of content.layers) {
    const key = await layerKey(entries, compression);
    const before = known[key];
    const cached = before !== undefined && (await hasSize(blobPath(layoutDir, before.digest), before.size));
    if (!cached) progress(`  building layer ${name} …`);
    const layer = cached ? before : await (make?.(blobs) ?? buildLayer(entries, blobs, compression));
    record[key] = layer;
    layers.push({ ...layer, name, cached });
  }

  const config = await writeJson(layoutDir, configType, imageConfiguration(content.config, layers));
  const manifest = await writeJson(layoutDir, manifestType, {
    schemaVersion: 2,
    mediaType: manifestType,
    config,
    layers: layers.map(({ mediaType, digest, size }) => ({ mediaType, digest, size })),
    ...(content.annotations ? { annotations: content.annotations } : {}),
  });
  const attached: { descriptors: Descriptor[]; manifest: unknown }[] = [];
  for (const referrer of content.referrers?.(manifest.digest) ?? [])
    attached.push(await writeReferrer(layoutDir, manifest, referrer));
  const index = {
    schemaVersion: 2,
    // Tools that expect one image in a layout find it by this name where there are referrers, too.
    manifests: [
      attached.length > 0
        ? { ...manifest, annotations: { "org.opencontainers.image.ref.name": "installer" } }
        : manifest,
      ...attached.map((one) => one.manifest),
    ],
  };
  await replaceFile(join(layoutDir, "oci-layout"), JSON.stringify({ imageLayoutVersion: "1.0.0" }));
  await replaceFile(join(layoutDir, "index.json"), JSON.stringify(index));
  await replaceFile(recordFile, JSON.stringify(record));
  const descriptors = [manifest, config, ...layers, ...attached.flatMap((one) => one.descriptors)];
  const used = new Set(descriptors.map(({ digest }) => digest.slice("sha256:".length)));
  for (const name of await readdir(blobs)) if (!used.has(name)) await rm(join(blobs, name));
  return {
    digest: manifest.digest,
    layers: layers.map(({ name, digest, size, cached }) => ({ name, digest, size, cached })),
  };
}

/** Attaches one more document to the layout's image, whose digest stays as it is; what is attached is kept. */
export async function attach(layoutDir: string, referrer: Referrer): Promise<void> {
  const file = join(layoutDir, "index.json");
  const index = z
    .looseObject({ manifests: z.array(z.looseObject({ digest: z.string() })) })
    .parse(JSON.parse(await readFile(file, "utf8")));
  const { manifest } = await writeReferrer(layoutDir, await readImageIndex(layoutDir), referrer);
  const manifests = [...index.manifests.filter(({ digest }) => digest !== manifest.digest), manifest];
  await replaceFile(file, JSON.stringify({ ...index, manifests }));
}

/** An artifact as the image specification has it: a manifest of an empty configuration and the document as its layer. */
async function writeReferrer(layoutDir: string, image: Descriptor, referrer: Referrer) {
  const { artifactType, content, annotations } = referrer;
  const config = await writeBlob(layoutDir, emptyType, "{}");
  const document = await writeBlob(layoutDir, artifactType, content);
  const { mediaType, digest, size } = image;
  const written = await writeJson(layoutDir, manifestType, {
    schemaVersion: 2,
    mediaType: manifestType,
    artifactType,
    config,
    layers: [document],
    subject: { mediaType, digest, size },
    annotations,
  });
  return { descriptors: [config, document, written], manifest: { ...written, artifactType, annotations } };
}

function imageConfiguration(config: ImageConfig, layers: Layer[]): unknown {
  return {
    created: "1970-01-01T00:00:00Z",
    architecture: "amd64",
    os: "linux",
    config: {
      ...(config.user === undefined ? {} : { User: config.user }),
      Env: config.env ?? ["PATH=/bin:/usr/bin"],
      ...(config.entrypoint ? { Entrypoint: config.entrypoint } : {}),
      ...(config.command ? { Cmd: config.command } : {}),
      WorkingDir: "/",
    },
    rootfs: { type: "layers", diff_ids: layers.map(({ diffId }) => diffId) },
  };
}

/** The image: its manifest's descriptor and bytes, and the blobs that it names; and what is attached to it. */
export async function readImage(layoutDir: string): Promise<StoredManifest & { referrers: StoredManifest[] }> {
  const image = await readImageIndex(layoutDir);
  const { manifests } = indexSchema.parse(JSON.parse(await readFile(join(layoutDir, "index.json"), "utf8")));
  const referrers: StoredManifest[] = [];
  for (const { artifactType, mediaType, digest, size } of manifests)
    if (artifactType !== undefined) referrers.push(await readStored(layoutDir, { mediaType, digest, size }));
  return { ...(await readStored(layoutDir, image)), referrers };
}

async function readStored(layoutDir: string, manifest: Descriptor): Promise<StoredManifest> {
  const content = await readFile(blobPath(layoutDir, manifest.digest)).catch((error: NodeJS.ErrnoException) => {
    throw brokenImage(layoutDir, `the manifest ${manifest.digest} cannot be read (${error.code})`);
  });
  if (`sha256:${sha256(content)}` !== manifest.digest)
    throw brokenImage(layoutDir, `the bytes of ${manifest.digest} have another digest`);
  const { config, layers } = manifestSchema.parse(JSON.parse(content.toString()));
  const blobs = [config, ...layers];
  for (const { digest, size } of blobs)
    if (!(await hasSize(blobPath(layoutDir, digest), size)))
      throw brokenImage(layoutDir, `the blob ${digest} is not whole`);
  return { manifest, content, blobs };
}

async function readRecord(file: string): Promise<Record<string, Layer>> {
  try {
    return JSON.parse(await readFile(file, "utf8"));
  } catch {
    return {}; // absent or damaged: everything is built again
  }
}

async function hasSize(file: string, size: number): Promise<boolean> {
  return (await stat(file).catch(() => undefined))?.size === size;
}

const writeJson = (layoutDir: string, mediaType: string, value: unknown): Promise<Descriptor> =>
  writeBlob(layoutDir, mediaType, JSON.stringify(value));

async function writeBlob(layoutDir: string, mediaType: string, text: string): Promise<Descriptor> {
  const content = Buffer.from(text);
  const digest = `sha256:${sha256(content)}`;
  await replaceFile(blobPath(layoutDir, digest), content);
  return { mediaType, digest, size: content.length };
}
