import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import type { Manifest } from "../../runtime/manifest.ts";
import { ownKey } from "../../runtime/names.ts";
import { Refusal } from "../../runtime/refusal.ts";
import { packageRoot, projectDirectory } from "../files/project.ts";
import { checkCollected } from "../lock/measurement.ts";
import { manifestOfPayload } from "../lock/payload-directory.ts";
import type { Entry } from "../oci/layer.ts";
import { type BuiltImage, type ImageContent, writeImage } from "../oci/layout.ts";
import { type Progress, toStderr } from "../process/progress.ts";
import { baseInputs, baseLayer, readPins } from "./base.ts";
import { nodeOfImage } from "./node.ts";
import { type ImageParts, type NpmPackage, sourceState } from "./parts.ts";
import { referrersOf } from "./sbom.ts";

export const installerLayout = join(projectDirectory, ".local", "image");
export const payloadsDirectory = join(projectDirectory, ".local", "payloads");

/** V8 keeps tens of megabytes of young objects otherwise; the installer waits for disks and daemons, not for V8. */
export const nodeFlags = ["--max-semi-space-size=1"];

/** The annotation that names each part of the lowest layer: npm package and version, Debian package, version and SHA-256. */
export const baseAnnotation = ownKey("base");

/** A payload on this machine: the directory holds manifest.json and files/. */
export interface LocalPayload {
  manifest: Manifest;
  directory: string;
}

/** The payloads that the lock command left on this machine, by name; with `names`, exactly those. */
export async function localPayloads(names?: string[], parent = payloadsDirectory): Promise<LocalPayload[]> {
  const present = (await readdir(parent, { withFileTypes: true }).catch(() => []))
    .filter((entry) => entry.isDirectory() && !entry.name.startsWith("."))
    .map(({ name }) => name);
  const missing = names?.find((name) => !present.includes(name));
  if (missing)
    throw new Refusal(
      "payload-missing",
      `There is no payload ${missing} at ${parent} (there: ${present.sort().join(", ") || "none"}). Fetch it: npx contrast-runtime lock, or lock fetch --manifest FILE for one that is committed.`,
    );
  const wanted = (names ?? present).toSorted();
  return await Promise.all(
    wanted.map(async (name) => {
      const directory = join(parent, name);
      return { manifest: await manifestOfPayload(directory), directory };
    }),
  );
}

/** Where the image holds a payload; the installer finds its files there. */
const payloadEntries = ({ manifest, directory }: LocalPayload): Entry[] =>
  manifest.files.map(({ path, mode, sha256 }) => ({
    path: `payloads/${manifest.name}/${path}`,
    mode: Number.parseInt(mode, 8),
    type: "file",
    source: join(directory, "files", path),
    sha256,
  }));

/**
 * The installer's image as an OCI layout: a layer for Node, one per payload, one for the program. The program comes last
 * because it changes most often, and nodes unpack again whatever lies above a changed layer.
 */
export async function buildImage(
  options: { layoutDir?: string; program: string; bundled?: NpmPackage[]; payloads: LocalPayload[] },
  progress: Progress = toStderr,
): Promise<BuiltImage> {
  const { layoutDir = installerLayout, program, bundled = [], payloads } = options;
  for (const { directory, manifest } of payloads) checkCollected(join(directory, "files"), manifest);
  const pins = await readPins();
  const { version } = JSON.parse(await readFile(join(packageRoot, "package.json"), "utf8")) as { version: string };
  const parts: ImageParts = {
    version,
    source: await sourceState(),
    node: nodeOfImage,
    bundled,
    debian: pins,
    payloads: payloads.map(({ manifest }) => manifest),
    sourceDateEpoch: process.env.SOURCE_DATE_EPOCH ? Number(process.env.SOURCE_DATE_EPOCH) : undefined,
  };
  const content: ImageContent = {
    layers: [
      await baseLayer(pins, progress),
      ...payloads.map((payload) => ({
        name: `payload ${payload.manifest.name}`,
        entries: payloadEntries(payload),
        compression: "zstd" as const,
      })),
      {
        name: "program",
        entries: [{ path: "app/node-installer.mjs", type: "file", source: program, mode: 0o644 }],
        compression: "zstd",
      },
    ],
    config: { entrypoint: ["/bin/node", ...nodeFlags, "/app/node-installer.mjs"], env: ["PATH=/bin"] },
    annotations: {
      "org.opencontainers.image.title": "contrast-node-installer",
      "org.opencontainers.image.licenses": "Apache-2.0",
      [baseAnnotation]: baseInputs(pins),
    },
    referrers: (digest) => referrersOf(digest, parts),
  };
  return await writeImage(layoutDir, content, progress);
}
