import type { FlavourName } from "../../runtime/flavours.ts";
import { Refusal } from "../../runtime/refusal.ts";
import { isAtLeast } from "../../runtime/version.ts";
import { download } from "../http/download.ts";
import type { Progress } from "../process/progress.ts";

/**
 * SHA-256 of release assets. Up to 3.32 as kubespray publishes them for the installation of Kata
 * (roles/kubespray_defaults/vars/main/checksums.yml); of 4.1 and 4.2 as several independent installers pin them after
 * GitHub's own record of the release, each digest in at least two of them. Of any other release the user says what to
 * expect, such as what the release's page on GitHub shows beside the asset.
 */
const knownDigests: Record<string, string> = {
  "kata-static-4.2.0-amd64.tar.zst": "b828904fa3f1e49ddd7dc799c72cb1503cd1e772d354c3987c8d4189b2a623a8",
  "kata-go-static-4.2.0-amd64.tar.zst": "7dda31ca54b397cbf8165f620d6041872d3c45b7a77383ce0e86f76a06e103d0",
  "kata-static-4.1.0-amd64.tar.zst": "3dc6b69c4acb787b967b04b64599a20d02a8beb1a8eaab3084110df9d0b08c96",
  "kata-go-static-4.1.0-amd64.tar.zst": "8b32080424c884238ee8d52060fdfd060fbe2b5fdfa4eb9ff2772b382b432b55",
  "kata-static-3.32.0-amd64.tar.zst": "1449ecea50bd91fa73a94648db195d18950fe869ba4b1f12d05f55f1fa7c1b01",
  "kata-static-3.31.0-amd64.tar.zst": "68c2786a0b97023f62f3eca02dc868b78a794e5469d4ddd6cc9e0bd4a7212b0b",
  "kata-static-3.30.0-amd64.tar.zst": "e65aa5e5bd9f4d59bcd12a8c44a00966406e7329511dd3f756026b6eedc8ad26",
  "kata-static-3.29.0-amd64.tar.zst": "19d0241405bc2b8fdc74240f381ab021880d1d8c7adf1fd7859f8f6370e735f3",
  "kata-static-3.28.0-amd64.tar.zst": "99cefb46d70bc27b7bcffd7595be9010c6bed43e1cdfcf8078554c19e7c9b19d",
};

export interface KataRelease {
  version: string;
  flavour: FlavourName;
  /** Instead of GitHub: the directory that holds the release's assets. */
  mirror?: string | undefined;
  /** Of the asset, for releases that are not in the table above. */
  sha256?: string | undefined;
  ca?: string | undefined;
  directory?: string;
}

/**
 * The asset that holds what a payload needs. From 4.1 on the Go runtime has one of its own, with everything beside it that
 * its guests need (Kata's tools/packaging/kata-deploy/local-build/kata-release-tarball-inputs.sh).
 */
export function releaseAsset(version: string, flavour: FlavourName): string {
  const suffix = isAtLeast(version, "3.21.0") ? "tar.zst" : "tar.xz";
  const name = flavour === "kata-go" && isAtLeast(version, "4.1.0") ? "kata-go-static" : "kata-static";
  return `${name}-${version}-amd64.${suffix}`;
}

/** Downloads the release's archive; returns it and what a manifest says of its source. */
export async function fetchKataRelease(
  release: KataRelease,
  progress: Progress,
): Promise<{ archives: string[]; reference: string; sha256: string }> {
  const { version, flavour, ca, directory } = release;
  if (!/^\d+\.\d+\.\d+(-[a-z0-9.]+)?$/.test(version))
    throw new Refusal("usage", `--kata-version "${version}" is no Kata release: expected such as 3.32.0.`);
  const mirror = (
    release.mirror ?? `https://github.com/kata-containers/kata-containers/releases/download/${version}`
  ).replace(/\/$/, "");
  if (!/^https?:\/\//.test(mirror) || !URL.canParse(mirror))
    throw new Refusal("usage", `--mirror "${mirror}" is no URL: expected https://… or http://….`);
  const asset = releaseAsset(version, flavour);
  const sha256 = release.sha256 ?? knownDigests[asset];
  if (!sha256)
    throw new Refusal(
      "digest-unknown",
      `No digest of ${asset} is known here. Give the SHA-256 that GitHub shows beside it at https://github.com/kata-containers/kata-containers/releases/tag/${version}, best compared with somebody else's record of it, with --sha256.`,
    );
  const url = `${mirror}/${asset}`;
  const archive = await download({ url, sha256, ca, ...(directory ? { directory } : {}) }, progress);
  return { archives: [archive], reference: `${url}#sha256=${sha256}`, sha256 };
}

/** The newest release of which the digest of a flavour's archive is known here. */
export function newestRelease(flavour: FlavourName): string {
  const known = Object.keys(knownDigests).flatMap((asset) => /-(\d+\.\d+\.\d+)-amd64/.exec(asset)?.[1] ?? []);
  const ofFlavour = known.filter((version) => releaseAsset(version, flavour) in knownDigests);
  return ofFlavour.reduce((newest, version) => (isAtLeast(version, newest) ? version : newest));
}
