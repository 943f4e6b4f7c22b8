import { type FlavourName, isAtLeast } from "../../node-installer/runtime/flavours.ts";
import { Refusal } from "../../node-installer/runtime/refusal.ts";
import type { Progress } from "../programs/progress.ts";
import { download } from "./download.ts";

/**
 * SHA-256 of release assets, flat file hashes as kubespray publishes them for the installation of Kata
 * (roles/kubespray_defaults/vars/main/checksums.yml). Of other releases no digest is published outside the release itself:
 * there the user says what to expect.
 */
const knownDigests: Record<string, string> = {
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
  /** One per asset, in order, for releases that are not in the table above. */
  sha256?: string[] | undefined;
  ca?: string | undefined;
  directory?: string;
}

/** Names of the assets that together hold what a payload needs. From 4.1 on the Go runtime has an asset of its own. */
export function releaseAssets(version: string, flavour: FlavourName): string[] {
  const suffix = isAtLeast(version, "3.21.0") ? "tar.zst" : "tar.xz";
  const names =
    flavour === "kata-go" && isAtLeast(version, "4.1.0") ? ["kata-static", "kata-go-static"] : ["kata-static"];
  return names.map((name) => `${name}-${version}-amd64.${suffix}`);
}

/** Downloads the release's archives; returns them and what a manifest says of their source. */
export async function fetchKataRelease(
  release: KataRelease,
  progress: Progress,
): Promise<{ archives: string[]; reference: string }> {
  const { version, flavour, ca, directory } = release;
  if (!/^\d+\.\d+\.\d+(-[a-z0-9.]+)?$/.test(version))
    throw new Refusal("kata-version", `--kata-version "${version}" is no Kata release: expected such as 3.32.0.`);
  const mirror = (
    release.mirror ?? `https://github.com/kata-containers/kata-containers/releases/download/${version}`
  ).replace(/\/$/, "");
  if (!/^https?:\/\//.test(mirror) || !URL.canParse(mirror))
    throw new Refusal("mirror-malformed", `--mirror "${mirror}" is no URL: expected https://… or http://….`);
  const malformed = release.sha256?.find((digest) => !/^[0-9a-f]{64}$/.test(digest));
  if (malformed !== undefined)
    throw new Refusal("digest-malformed", `--sha256 "${malformed}" is no SHA-256: expected 64 lower-case hex digits.`);
  const assets = releaseAssets(version, flavour);
  const wanted = assets.map((asset, index) => {
    const sha256 = release.sha256?.[index] ?? knownDigests[asset];
    if (!sha256)
      throw new Refusal(
        "digest-unknown",
        `No digest of ${asset} is known here. Give it with --sha256 (${assets.length > 1 ? `one for each of ${assets.join(", ")}, in this order` : "64 hex digits"}), from a source that you trust, such as the release's attestation.`,
      );
    return { url: `${mirror}/${asset}`, sha256, ca, ...(directory ? { directory } : {}) };
  });
  const archives: string[] = [];
  for (const one of wanted) archives.push(await download(one, progress));
  return { archives, reference: wanted.map(({ url, sha256 }) => `${url}#sha256=${sha256}`).join(" ") };
}
