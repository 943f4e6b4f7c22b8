import type { KeyObject } from "node:crypto";
import * as z from "zod";
import { sha256 } from "../../runtime/canonical.ts";
import { Refusal } from "../../runtime/refusal.ts";
import { discard, readText } from "../http/client.ts";
import { download } from "../http/download.ts";
import type { Progress } from "../process/progress.ts";
import { requireSignature } from "./cosign.ts";
import { indexType, manifestSchema, manifestType, platformIndexSchema } from "./documents.ts";
import { Repository } from "./registry.ts";

const imageSchema = manifestSchema.extend({ layers: manifestSchema.shape.layers.min(1) });
const accepted = [
  manifestType,
  indexType,
  "application/vnd.docker.distribution.manifest.v2+json",
  "application/vnd.docker.distribution.manifest.list.v2+json",
].join(", ");

/**
 * Downloads an image's layers, by digest only: a tag may be another image tomorrow. Layers that are in the cache are not
 * fetched again, and one that broke off is continued.
 *
 * @param options.signer the publisher's key: nothing is downloaded unless it signed the digest (see cosign.ts)
 * @param reference "registry/repository@sha256:<64 hex digits>", the registry with http:// where it has no TLS
 */
export async function fetchImage(
  reference: string,
  options: { ca?: string | undefined; directory?: string; signer?: KeyObject | undefined },
  progress: Progress,
): Promise<string[]> {
  const [, registry = "", repository = "", digest = ""] =
    /^((?:https?:\/\/)?[^/]+)\/([^@:]+)(?::[^@/]+)?@(sha256:[0-9a-f]{64})$/.exec(reference) ?? [];
  if (!digest)
    throw new Refusal(
      "image-reference",
      `The image "${reference}" must be registry/repository@sha256:<64 hex digits>.`,
    );
  const source = new Repository({ registry, repository, ca: options.ca });
  const { signer, ...where } = options;
  if (signer) await requireSignature(source, digest, signer);
  const files: string[] = [];
  const read = async (wanted: string) => await manifestOf(source, wanted);
  const { layers } = await imageManifest(await read(digest), read, reference);
  for (const layer of layers) files.push(await fetchBlob(source, layer, where, progress));
  return files;
}

/** The file of a blob in the cache, downloaded if it is not there. */
export async function fetchBlob(
  source: Repository,
  { digest, size }: { digest: string; size: number },
  where: { ca?: string | undefined; directory?: string },
  progress: Progress,
): Promise<string> {
  // Asked for by itself first: this is what a registry answers with its demand for a login.
  discard(await source.send({ method: "HEAD", path: `blobs/${digest}` }, [200]));
  const url = new URL(`/v2/${source.name}/blobs/${digest}`, source.origin).href;
  const headers = source.authorization ? { authorization: source.authorization } : {};
  return await download({ url, sha256: digest.slice("sha256:".length), size, headers, ...where }, progress);
}

/** A manifest or index of the registry by its tag or digest; in that case with the digest that was asked for. */
export async function manifestOf(source: Repository, version: string): Promise<string> {
  const text = await readText(
    await source.send({ method: "GET", path: `manifests/${version}`, headers: { accept: accepted } }, [200]),
  );
  if (version.startsWith("sha256:") && `sha256:${sha256(text)}` !== version)
    throw new Refusal(
      "digest-mismatch",
      `${source.reference}@${version}: the registry sent a manifest with another digest (sha256:${sha256(text)}).`,
    );
  return text;
}

/** The manifest itself, or that of the index's image for Linux on x86-64 (of its only one, where it says no platform). */
export async function imageManifest(
  text: string,
  read: (digest: string) => Promise<string>,
  name: string,
): Promise<z.infer<typeof imageSchema>> {
  const document = imageJson(text, name);
  const index = platformIndexSchema.safeParse(document);
  if (index.success) {
    // An image layout lists what is attached to its image, too.
    const manifests = index.data.manifests.filter(({ artifactType }) => artifactType === undefined);
    const mine =
      manifests.find(({ platform }) => platform?.os === "linux" && platform.architecture === "amd64") ??
      manifests.find(({ platform }) => platform === undefined && manifests.length === 1);
    if (mine) return await imageManifest(await read(mine.digest), read, name);
    throw new Refusal("image-platform", `${name} has no image for linux/amd64.`);
  }
  const manifest = imageSchema.safeParse(document);
  if (manifest.success) return manifest.data;
  throw new Refusal("image-manifest", `${name} is no image: ${z.prettifyError(manifest.error)}`);
}

/** A JSON document of an image. */
export function imageJson(text: string, name: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new Refusal("image-manifest", `${name} is no image: ${(error as Error).message}.`);
  }
}
