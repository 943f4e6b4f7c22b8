import type { Manifest } from "../../runtime/manifest.ts";
import type { Locked } from "./order.ts";

/** What is said at the end. */
export function summaryLines({ manifest, before, output, directory, holes }: Locked): string[] {
  const size = manifest.files.reduce((sum, file) => sum + file.size, 0);
  return [
    `Locked ${manifest.name}: ${manifest.files.length} files, ${(size / 1e6).toFixed(0)} MB.`,
    ...changes(before, manifest),
    ...holes,
    ...vouched(manifest),
    `Manifest: ${output} (commit it)`,
    `Files:    ${directory}`,
  ];
}

/** The same for programs. */
export function summaryJson({ manifest, output, directory, holes }: Locked) {
  const { name, files, source } = manifest;
  const bytes = files.reduce((sum, file) => sum + file.size, 0);
  return {
    ...{ name, manifest: output, directory, files: files.length, bytes },
    signature: source.signature ?? null,
    holes,
  };
}

/** Whose word for the files was taken, and how somebody checks the publisher's signature where that was not done here. */
export function vouched({ source }: Manifest): string[] {
  const { kind, reference, signature } = source;
  if (signature !== undefined) return [`Signature: checked when it was locked (${signature})`];
  if (kind === "oci-image")
    return ["Signature: not checked. If the publisher signs with a cosign key, give it: --cosign-key FILE"];
  if (kind !== "kata-release") return [];
  // Only what no shell reads otherwise is put into a command: a manifest may be somebody else's.
  const archives = reference
    .split(" ")
    .map((asset) => asset.replace(/#sha256=.*/, ""))
    .filter((url) => /^https?:\/\/[A-Za-z0-9._~:/@%+-]+$/.test(url));
  return [
    "Signature: not checked; each archive has the SHA-256 that is known here or that you gave. Kata 3.28 to 4.1 attest what goes into their archives, not the archives; where a release does, this checks it:",
    ...archives.map((url) => {
      const file = url.slice(url.lastIndexOf("/") + 1);
      return `  curl -fLO '${url}' && gh attestation verify '${file}' --repo kata-containers/kata-containers`;
    }),
  ];
}

/** What the new manifest changes in the committed one, a line per file. */
function changes(before: Manifest | undefined, after: Manifest): string[] {
  if (!before) return [];
  const old = new Map(before.files.map((file) => [file.path, file.sha256]));
  const lines = after.files
    .filter(({ path, sha256 }) => old.get(path) !== sha256)
    .map(({ path }) => `  ${old.has(path) ? "changed" : "added  "} ${path}`);
  const removed = before.files.filter(({ path }) => !after.files.some((file) => file.path === path));
  return [...lines, ...removed.map(({ path }) => `  removed ${path}`)];
}
