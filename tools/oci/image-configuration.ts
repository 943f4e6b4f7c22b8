import { existsSync } from "node:fs";
import { mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import * as z from "zod";
import { sha256 } from "../../runtime/canonical.ts";
import { fromJson } from "../../runtime/from-json.ts";
import { Refusal } from "../../runtime/refusal.ts";
import { isLoopback } from "../../runtime/web-address.ts";
import { replaceFile } from "../files/replace.ts";
import type { Progress } from "../process/progress.ts";
import { cacheDirectory } from "../programs/cache.ts";
import { fetchBlob, imageJson, imageManifest, manifestOf } from "./image.ts";
import { type ImageUsers, imageUsers, userFiles } from "./image-users.ts";
import { Repository } from "./registry.ts";

/** An image's reference as pods have it, with what they leave out. */
export interface ImageReference {
  /** With http:// where it is this machine: as containerd, nobody else is spoken to without TLS. */
  registry: string;
  repository: string;
  /** A tag or a digest ("sha256:…"). */
  version: string;
}

/** How registries are reached, and where what they send is kept. */
export interface ImageSource {
  /** Certificate authorities in PEM. */
  ca?: string | undefined;
  /** Registries without TLS, as references name them. */
  plainHttp?: readonly string[];
  /** By default in the cache. */
  directory?: string;
}

/**
 * "nginx:1.29" is docker.io/library/nginx:1.29; of a tag and a digest the digest counts.
 *
 * @throws Refusal for what is no reference
 */
export function imageReference(reference: string, plainHttp: readonly string[] = []): ImageReference {
  const [, name = "", tag = "latest", digest] =
    /^((?:[^@\s:/]+(?::\d+)?\/)?[^@\s:]+)(?::([\w][\w.-]{0,127}))?(?:@(sha256:[0-9a-f]{64}))?$/.exec(reference) ?? [];
  if (name === "" || reference.includes("{{"))
    throw new Refusal(
      "image-reference",
      reference.includes("{{")
        ? `has Helm's template syntax: render the chart first (helm template)`
        : `is no image's reference: expected registry/repository:tag, maybe with @sha256:<64 hex digits>`,
    );
  const [first = "", ...rest] = name.split("/");
  const isHost = rest.length > 0 && (/[.:]/.test(first) || first === "localhost");
  const registry = isHost ? first : "docker.io";
  const repository = isHost ? rest.join("/") : rest.length > 0 ? name : `library/${name}`;
  const url = `http://${registry}`;
  const isPlain = plainHttp.includes(registry) || (URL.canParse(url) && isLoopback(new URL(url)));
  return { registry: isPlain ? url : registry, repository, version: digest ?? tag };
}

const texts = z.array(z.string()).nullable().default(null);
const text = z.string().nullable().default(null);
const configurationSchema = z.object({
  config: z
    .object({
      ...{ Env: texts, Entrypoint: texts, Cmd: texts, WorkingDir: text, User: text, StopSignal: text },
      Volumes: z.record(z.string(), z.unknown()).nullable().default(null),
    })
    .prefault({}),
});

export interface ConfiguredImage {
  /** The reference, with the digest of what its registry has under it. */
  pinned: string;
  /** "sha256:…" of that: a manifest, or the index that has one for linux/amd64. */
  digest: string;
  config: z.output<typeof configurationSchema>["config"];
  /** Bytes of the layers as the registry has them. */
  size: number;
  /** /etc/passwd and /etc/group, where they were asked for and are there. */
  passwd?: string;
  group?: string;
}

/**
 * What an image runs with, from its registry. What is asked for by digest is asked for once: it stays in the cache.
 *
 * @param options.users its users and groups are wanted, too, for which layers are downloaded
 * @throws Refusal naming the registry, what it said and what to do
 */
export async function configuredImage(
  reference: string,
  options: ImageSource & { users?: boolean },
  progress: Progress,
): Promise<ConfiguredImage> {
  const { registry, repository, version } = imageReference(reference, options.plainHttp);
  const source = new Repository({ registry, repository, ca: options.ca });
  const directory = options.directory ?? join(cacheDirectory(), "downloads");
  const byTag = version.startsWith("sha256:") ? undefined : await manifestOf(source, version);
  const digest = byTag === undefined ? version : `sha256:${sha256(byTag)}`;
  const read = (wanted: string) =>
    kept(directory, wanted, () => (wanted === digest && byTag !== undefined ? byTag : manifestOf(source, wanted)));
  const { config, layers } = await imageManifest(await read(digest), read, reference);
  const where = { ca: options.ca, directory };
  const blob = async (wanted: { digest: string; size: number }): Promise<string> => {
    const file = fileOf(directory, wanted.digest);
    return existsSync(file) ? file : await fetchBlob(source, wanted, where, progress);
  };
  const file = await blob(config);
  const parsed = configurationSchema.safeParse(imageJson(await readFile(file, "utf8"), reference));
  if (!parsed.success)
    throw new Refusal("image-manifest", `${reference} has no configuration: ${z.prettifyError(parsed.error)}`);
  return {
    pinned: reference.includes("@") ? reference : `${reference}@${digest}`,
    digest,
    config: parsed.data.config,
    size: layers.reduce((sum, layer) => sum + layer.size, 0),
    ...(options.users &&
      (await usersOf(
        directory,
        config.digest,
        layers.map((layer) => () => blob(layer)),
        progress,
      ))),
  };
}

const usersSchema = z.partialRecord(z.enum(userFiles), z.string());

/** What is found once in an image's layers is kept under the digest of its configuration, which names them. */
async function usersOf(
  directory: string,
  configuration: string,
  layers: (() => Promise<string>)[],
  progress: Progress,
): Promise<ImageUsers> {
  const file = `${fileOf(directory, configuration)}.users.json`;
  const before = fromJson.pipe(usersSchema).safeParse(await readFile(file, "utf8").catch(() => "")).data;
  if (before !== undefined) return before;
  const users = await imageUsers(layers, progress);
  await replaceFile(file, JSON.stringify(users));
  return users;
}

const fileOf = (directory: string, digest: string): string => join(directory, digest.replace(":", "-"));

/** A text that is what its digest says, from the cache if it is there. */
async function kept(directory: string, digest: string, fetch: () => string | Promise<string>): Promise<string> {
  const file = fileOf(directory, digest);
  const before = await readFile(file, "utf8").catch(() => undefined);
  if (before !== undefined && `sha256:${sha256(before)}` === digest) return before;
  const text = await fetch();
  await mkdir(directory, { recursive: true });
  await replaceFile(file, text);
  return text;
}
