import type { FlavourName } from "../../runtime/flavours.ts";
import { type ArchiveName, kataFacts, kataRelease, kataReleases } from "../../runtime/kata-versions.ts";
import { Refusal } from "../../runtime/refusal.ts";
import { download } from "../http/download.ts";
import type { Progress } from "../process/progress.ts";
import { recordedDigest } from "./release-record.ts";

export interface KataRelease {
  version: string;
  flavour: FlavourName;
  /** Instead of GitHub: the directory that holds the release's assets. */
  mirror?: string | undefined;
  /** Of the asset, for releases that are not in the table (runtime/kata-versions.ts). */
  sha256?: string | undefined;
  ca?: string | undefined;
  directory?: string;
  /** GitHub's API, if it is another than the public one. */
  api?: string;
}

/** The archive that holds what a payload needs: the Go runtime has one of its own from 4.1 on. */
const archiveOf = (version: string, flavour: FlavourName): ArchiveName =>
  flavour === "kata-go" ? kataFacts(version).goArchive : "kata-static";

/** Its file name among the release's assets. */
export const releaseAsset = (version: string, flavour: FlavourName): string =>
  `${archiveOf(version, flavour)}-${version}-amd64.tar.zst`;

/** The newest release of which the digest of a flavour's archive is known here. */
export function newestRelease(flavour: FlavourName): string {
  const newest = kataReleases.findLast(({ version, sha256 }) => sha256[archiveOf(version, flavour)] !== undefined);
  if (newest === undefined) throw new Error(`no digest of an archive of ${flavour} is known`);
  return newest.version;
}

/** A directory with a release's assets, without the slash behind it. @throws Refusal for what is no URL */
export function mirrorUrl(given: string): string {
  const mirror = given.replace(/\/$/, "");
  if (/^https?:\/\//.test(mirror) && URL.canParse(mirror)) return mirror;
  throw new Refusal("usage", `--mirror "${mirror}" is no URL: expected https://… or http://….`);
}

/** Downloads the release's archive; returns it and what a manifest says of its source. */
export async function fetchKataRelease(
  release: KataRelease,
  progress: Progress,
): Promise<{ archives: string[]; reference: string; sha256: string }> {
  const { version, flavour, ca, directory } = release;
  const mirror = mirrorUrl(
    release.mirror ?? `https://github.com/kata-containers/kata-containers/releases/download/${version}`,
  );
  const asset = releaseAsset(version, flavour);
  const sha256 = await digestOf(release, asset, progress);
  const url = `${mirror}/${asset}`;
  const archive = await download({ url, sha256, ca, ...(directory ? { directory } : {}) }, progress);
  return { archives: [archive], reference: `${url}#sha256=${sha256}`, sha256 };
}

/** What the archive must have: what its user says, else what is known here, else what GitHub recorded. */
async function digestOf(release: KataRelease, asset: string, progress: Progress): Promise<string> {
  const { version, flavour, mirror, ca, api } = release;
  const known = kataRelease(version)?.sha256[archiveOf(version, flavour)];
  const given = release.sha256;
  if (given !== undefined && known !== undefined && given !== known)
    progress(
      `The digest of ${asset} is ${known} in its release; it is taken with yours, ${given}: it is another file.`,
    );
  if (given !== undefined) return given;
  if (known !== undefined) return known;
  const recorded = await recordedDigest({ version, asset, mirror, ca, api });
  if ("problem" in recorded)
    throw new Refusal(
      "digest-unknown",
      `No digest of ${asset} is known here, and ${recorded.problem}. Give the SHA-256 that GitHub shows beside it at https://github.com/kata-containers/kata-containers/releases/tag/${version}, best compared with somebody else's record of it, with --sha256.`,
    );
  progress(
    `The digest of ${asset} is not known here; ${recorded.from} says ${recorded.sha256}. Nobody signed that: compare it with somebody else's record before you commit the manifest.`,
  );
  return recorded.sha256;
}
