import { constants, copyFile, mkdir, mkdtemp, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import type { Manifest } from "../../runtime/manifest.ts";
import { Refusal } from "../../runtime/refusal.ts";
import { download } from "../http/download.ts";
import { fetchImage } from "../oci/image.ts";
import type { Progress } from "../process/progress.ts";
import { type FileTree, openArchives } from "./archives.ts";
import { mirrorUrl } from "./kata-release.ts";
import { describeFiles, readPayload, replacePayload } from "./payload-directory.ts";

/**
 * Fetches the files of a manifest that somebody else locked, from where it says they came from; each is found by its
 * digest. Nothing is decided anew: what comes out is exactly the manifest's payload, or a Refusal.
 */
export async function refetch(
  manifest: Manifest,
  options: { directory: string; mirror?: string | undefined; ca?: string | undefined },
  progress: Progress,
): Promise<void> {
  const { directory } = options;
  const present = await readPayload(directory);
  if (present && JSON.stringify(present) === JSON.stringify(manifest)) return;
  const tree = await openArchives(await archivesOf(manifest, options, progress), manifest.source.reference, progress);
  progress(`Taking ${manifest.files.length} files …`);
  await replacePayload(
    directory,
    async (target) => {
      await copyByDigest(manifest, tree, target);
      const { files, schemaVersion: _, ...described } = manifest;
      return { manifest: described, files };
    },
    progress,
  );
}

async function archivesOf(
  { name, source }: Manifest,
  { mirror, ca }: { mirror?: string | undefined; ca?: string | undefined },
  progress: Progress,
): Promise<string[]> {
  if (mirror !== undefined && source.kind !== "kata-release")
    throw new Refusal(
      "usage",
      `--mirror is for releases of Kata, and the payload ${name} was locked from ${source.reference} (${source.kind}).`,
    );
  if (source.kind === "oci-image") return await fetchImage(source.reference, { ca }, progress);
  if (source.kind !== "kata-release")
    throw new Refusal(
      "not-fetchable",
      `The payload ${name} was locked from ${source.reference} (${source.kind}), which cannot be fetched from here. Copy .local/payloads/${name} from the machine where it was locked.`,
    );
  const archives: string[] = [];
  for (const asset of source.reference.split(" ")) {
    const [locked = "", sha256 = ""] = asset.split("#sha256=");
    const url = mirror === undefined ? locked : `${mirrorUrl(mirror)}/${locked.slice(locked.lastIndexOf("/") + 1)}`;
    archives.push(await download({ url, sha256, ca }, progress));
  }
  return archives;
}

/** Copies all files that have the size of a wanted one, and keeps those that have its digest. */
async function copyByDigest(manifest: Manifest, tree: FileTree, target: string): Promise<void> {
  const aside = await mkdtemp(join(target, "..", "candidates-"));
  try {
    const sizes = new Set(manifest.files.map(({ size }) => size));
    const candidates = tree.paths
      .filter((path) => tree.resolve(path) === path && sizes.has(tree.size(path) ?? -1))
      .map((path, index) => ({ path, target: join(aside, String(index)), role: "vmm-data" as const }));
    await tree.copy(candidates);
    const described = await describeFiles(
      "/",
      candidates.map(({ role, target: path }) => ({ role, path })),
    );
    for (const { path, sha256 } of manifest.files) {
      const found = described.find((candidate) => candidate.sha256 === sha256);
      if (!found)
        throw new Refusal(
          "file-missing",
          `${tree.name} holds no file with the digest of ${path} (${sha256}): it is not what ${manifest.name} was locked from.`,
        );
      await mkdir(dirname(join(target, path)), { recursive: true });
      await copyFile(found.path, join(target, path), constants.COPYFILE_FICLONE);
    }
  } finally {
    await rm(aside, { recursive: true });
  }
}
