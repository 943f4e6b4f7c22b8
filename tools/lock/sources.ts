/** Where a payload's files come from when it is locked anew. */
import { basename, resolve } from "node:path";
import type { Manifest } from "../../runtime/manifest.ts";
import { Refusal } from "../../runtime/refusal.ts";
import { namedCa, namedText } from "../files/named-file.ts";
import { fingerprint, publisherKey } from "../oci/cosign.ts";
import { fetchImage } from "../oci/image.ts";
import type { Progress } from "../process/progress.ts";
import { openArchives, openFiles } from "./archives.ts";
import { checkAttestation } from "./attestation.ts";
import { fetchKataRelease } from "./kata-release.ts";
import { type LockRequest, lockPayload } from "./lock.ts";
import { withNodeFiles } from "./node.ts";

interface KataRelease {
  source: "kata-release";
  mirror?: string | undefined;
  sha256?: string | undefined;
  attestation?: string | undefined;
  trustedRoot?: string | undefined;
  ca?: string | undefined;
}
interface OciImage {
  source: "oci-image";
  image: string;
  root?: string | undefined;
  cosignKey?: string | undefined;
  ca?: string | undefined;
}
interface Files {
  source: "files";
  from?: string | undefined;
}
interface FromNode {
  source: "from-node";
  via: string;
  root?: string | undefined;
}
export type Source = KataRelease | OciImage | Files | FromNode;

type Common = Omit<LockRequest, "layout" | "source">;

export async function lockFrom(from: Source, common: Common, progress: Progress): Promise<Manifest> {
  switch (from.source) {
    case "kata-release":
      return await lockRelease(from, common, progress);
    case "oci-image":
      return await lockImage(from, common, progress);
    case "files":
      return await lockFiles(from, common, progress);
    case "from-node":
      return await lockNodeFiles(from, common, progress);
  }
}

async function lockRelease(from: KataRelease, common: Common, progress: Progress): Promise<Manifest> {
  const { mirror, attestation: file, trustedRoot } = from;
  const { kataVersion: version, flavour } = common;
  const ca = await readCa(from);
  // Nothing is downloaded for a check that cannot be made.
  if (file !== undefined) await namedText("attestation", file);
  if (trustedRoot !== undefined) await namedText("trusted root", trustedRoot);
  const { archives, reference, sha256 } = await fetchKataRelease(
    { version, flavour, mirror, sha256: from.sha256, ca },
    progress,
  );
  const workflow = await checkAttestation({ sha256, version, mirror, file, trustedRoot, ca }, progress);
  const signature = workflow === undefined ? {} : { signature: `attested by ${workflow}` };
  const tree = await openArchives(archives, `Kata ${version}`, progress);
  return await lockPayload(
    { ...common, layout: "kata-release", source: { kind: "kata-release", reference, ...signature } },
    tree,
    progress,
  );
}

async function lockImage(from: OciImage, common: Common, progress: Progress): Promise<Manifest> {
  const { image: reference, cosignKey: keyFile } = from;
  const ca = await readCa(from);
  const signer = keyFile === undefined ? undefined : publisherKey(await namedText("publisher's key", keyFile), keyFile);
  const tree = await openArchives(await fetchImage(reference, { ca, signer }, progress), reference, progress);
  const signature = signer ? { signature: `cosign key ${fingerprint(signer)}` } : {};
  const root = from.root ?? onlyRoot(tree.paths, reference);
  return await lockPayload(
    { ...common, layout: { root: withoutSlashes(root) }, source: { kind: "oci-image", reference, ...signature } },
    tree,
    progress,
  );
}

async function lockFiles({ from }: Files, common: Common, progress: Progress): Promise<Manifest> {
  const named = common.named.map(({ role, path }) => ({ role, path: resolve(path) }));
  const kataConfiguration = common.kataConfiguration === undefined ? undefined : resolve(common.kataConfiguration);
  const places = [from, ...named.map(({ path }) => path), kataConfiguration].filter((place) => place !== undefined);
  if (places.length === 0)
    throw new Refusal("usage", "files needs --from DIRECTORY, or --file ROLE=PATH for each file.");
  const layout = from === undefined ? "named files only" : { root: withoutSlashes(resolve(from)) };
  // No path of this machine goes into the manifest: it is to be the same on another one.
  const reference = from === undefined ? "single files" : basename(resolve(from));
  return await lockPayload(
    { ...common, named, kataConfiguration, layout, source: { kind: "files", reference } },
    await openFiles(places),
    progress,
  );
}

async function lockNodeFiles({ via, root }: FromNode, common: Common, progress: Progress): Promise<Manifest> {
  const outside = [...common.named.map(({ path }) => path), common.kataConfiguration].filter(
    (path) => path !== undefined && (root === undefined || !path.startsWith(`${root}/`)),
  );
  const paths = [root, ...outside].filter((path) => path !== undefined);
  if (paths.length === 0) throw new Refusal("usage", "from-node needs --root PATH, or --file ROLE=PATH for each file.");
  const layout = root === undefined ? "named files only" : { root: withoutSlashes(root) };
  const reference = `${via.trim()}:${paths.join(",")}`;
  return await withNodeFiles(
    via,
    paths,
    (tree) => lockPayload({ ...common, layout, source: { kind: "node", reference } }, tree, progress),
    progress,
  );
}

const readCa = async ({ ca }: KataRelease | OciImage): Promise<string | undefined> =>
  ca === undefined ? undefined : await namedCa(ca);

const withoutSlashes = (path: string) => path.replace(/^\/+|\/+$/g, "");

/** The directory in an image that has a shim where a runtime's directory has it. */
function onlyRoot(paths: string[], image: string): string {
  const roots = [
    ...new Set(
      paths
        .map((path) => /^(.*)\/bin\/containerd-shim-(?:contrast-cc|kata)-v2$/.exec(path)?.[1])
        .filter((root) => root !== undefined),
    ),
  ];
  const [root] = roots;
  if (root !== undefined && roots.length === 1) return root;
  throw new Refusal(
    "image-layout",
    roots.length === 0
      ? `${image} has no directory with a shim at bin/. Say where its files are: --root PATH, or --file ROLE=PATH.`
      : `${image} has several runtimes: ${roots.join(", ")}. Choose one with --root PATH.`,
  );
}
