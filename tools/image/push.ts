// push.ts: pushes an image layout.
import { createReadStream } from "node:fs";
import * as z from "zod";
import type { Descriptor } from "../../components/config/image-layout.ts";
import { Refusal } from "../../runtime/refusal.ts";
import { discard, nextUrl, readText } from "../http/client.ts";
import { indexType } from "../oci/documents.ts";
import { blobPath, readImage, type StoredManifest } from "../oci/layout.ts";
import { attempts, pause, type RegistryOptions, Repository } from "../oci/registry.ts";
import { type Progress, toStderr } from "../process/progress.ts";

/** How many blobs are on their way at a time. */
const parallel = 3;

/**
 * Pushes what the registry does not have yet of the image and of what is attached to it; returns "host/repository@sha256:…".
 * @throws Refusal that names the registry, its answer and what to do
 */
export async function pushImage(
  options: RegistryOptions & { layoutDir: string },
  progress: Progress = toStderr,
): Promise<string> {
  const repository = new Repository(options);
  const { referrers, ...image } = await readImage(options.layoutDir);
  await pushManifest(repository, options.layoutDir, image, progress);
  for (const referrer of referrers) await pushManifest(repository, options.layoutDir, referrer, progress);
  if (referrers.length > 0) await listReferrers(repository, image.manifest.digest, referrers);
  return `${repository.reference}@${image.manifest.digest}`;
}

/** Pushes what the registry does not have yet of a manifest and its blobs. */
async function pushManifest(
  repository: Repository,
  layoutDir: string,
  { manifest, content, blobs }: StoredManifest,
  progress: Progress,
): Promise<void> {
  if (await has(repository, `manifests/${manifest.digest}`, { accept: manifest.mediaType })) return;
  const queue = [...blobs];
  const worker = async () => {
    for (let blob = queue.shift(); blob; blob = queue.shift()) await pushBlob(repository, layoutDir, blob, progress);
  };
  await Promise.all(Array.from({ length: parallel }, worker));
  await putManifest(repository, manifest.digest, manifest.mediaType, content);
}

async function putManifest(repository: Repository, name: string, mediaType: string, content: Buffer): Promise<void> {
  const headers = { "content-type": mediaType, "content-length": String(content.length) };
  discard(await repository.send({ method: "PUT", path: `manifests/${name}`, headers, body: () => content }, [201]));
}

/** Others' entries are kept as they are. */
const referrersSchema = z.object({ manifests: z.array(z.looseObject({ digest: z.string() })) });

/**
 * Registries of the distribution specification 1.1 list a subject's referrers by themselves. For all others there is an
 * index with the tag `sha256-<hex>`, where clients then look ("Referrers Tag Schema"): what is missing there is added.
 */
async function listReferrers(repository: Repository, subject: string, referrers: StoredManifest[]): Promise<void> {
  const own = await repository.send({ method: "GET", path: `referrers/${subject}` }, [200, 400, 404, 405]);
  discard(own);
  if (own.statusCode === 200) return;
  const tag = subject.replace(":", "-");
  const get = { method: "GET", path: `manifests/${tag}`, headers: { accept: indexType } } as const;
  const answer = await repository.send(get, [200, 404]);
  const text = await readText(answer);
  const listed = answer.statusCode === 200 ? listedReferrers(text, repository, tag) : [];
  const missing = referrers.filter(({ manifest }) => !listed.some(({ digest }) => digest === manifest.digest));
  if (missing.length === 0) return;
  const described = missing.map(({ manifest, content }) => {
    const { artifactType, annotations } = JSON.parse(content.toString()) as Record<string, unknown>;
    return { ...manifest, artifactType, annotations };
  });
  const index = { schemaVersion: 2, mediaType: indexType, manifests: [...listed, ...described] };
  await putManifest(repository, tag, indexType, Buffer.from(JSON.stringify(index)));
}

function listedReferrers(text: string, repository: Repository, tag: string) {
  try {
    return referrersSchema.parse(JSON.parse(text)).manifests;
  } catch {
    throw new Refusal(
      "referrers-tag",
      `${repository.reference}:${tag}, where what is attached to the image is listed, is no index. Delete that tag and push again.`,
    );
  }
}

async function pushBlob(
  repository: Repository,
  layoutDir: string,
  blob: Descriptor,
  progress: Progress,
): Promise<void> {
  if (await has(repository, `blobs/${blob.digest}`)) return;
  if (blob.size > 8e6) progress(`  pushing ${blob.digest.slice(0, 19)}, ${(blob.size / 1e6).toFixed(0)} MB …`);
  for (let attempt = 1; ; attempt++) {
    try {
      return await upload(repository, layoutDir, blob);
    } catch (error) {
      const again = error instanceof Refusal && ["registry-unreachable", "registry-busy"].includes(error.code);
      if (!again || attempt === attempts) throw error;
      await pause(attempt);
    }
  }
}

async function upload(repository: Repository, layoutDir: string, blob: Descriptor): Promise<void> {
  // A registry that has the blob in another repository, and lets us see it, mounts it; all others begin an upload.
  const begin = await repository.send(
    { method: "POST", path: `blobs/uploads/?mount=${blob.digest}`, headers: { "content-length": "0" } },
    [201, 202],
  );
  discard(begin);
  if (begin.statusCode === 201) return;
  const location = begin.headers.location;
  if (!location)
    throw new Refusal(
      "registry-refused",
      `The registry ${repository.origin.origin} began an upload without saying where to.`,
    );
  const target = nextUrl(location, repository.origin);
  target.searchParams.set("digest", blob.digest);
  const done = await repository.send(
    {
      method: "PUT",
      path: target,
      headers: { "content-type": "application/octet-stream", "content-length": String(blob.size) },
      body: () => createReadStream(blobPath(layoutDir, blob.digest), { highWaterMark: 1 << 20 }),
      once: true,
    },
    [201],
  );
  discard(done);
}

async function has(repository: Repository, path: string, headers: Record<string, string> = {}): Promise<boolean> {
  const answer = await repository.send({ method: "HEAD", path, headers }, [200, 404]);
  discard(answer);
  return answer.statusCode === 200;
}
