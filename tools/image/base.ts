import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import * as z from "zod";
import { packageRoot } from "../files/project.ts";
import { replaceFile } from "../files/replace.ts";
import { digestOf } from "../measure/files.ts";
import { buildLayer, type Entry, type Layer } from "../oci/layer.ts";
import type { LayerContent } from "../oci/layout.ts";
import type { Progress } from "../process/progress.ts";
import { cached } from "../programs/cache.ts";
import { packagePlaces, pinnedDebianFiles } from "../programs/debian.ts";
import { nodeOfImage, strippedNode } from "./node.ts";

/**
 * The layer below the installer: the pinned Node and what its binary is linked with. The libraries come from Debian's
 * stable packages and not from the build machine, each by its digest, so that the image is the same whatever machine
 * builds it, and whenever. Name resolution needs no further files: glibc has had its files and dns modules built in
 * since 2.34.
 */
const libraries = ["libc.so.6", "libdl.so.2", "libgcc_s.so.1", "libm.so.6", "libpthread.so.0", "libstdc++.so.6"];
const libraryDirectory = "lib/x86_64-linux-gnu";

/** What is taken from Debian, and the licence of each package's main part; its file `copyright` has the details. */
export const debianSuite = "trixie";
export const debianLicences: Record<string, string> = {
  "busybox-static": "GPL-2.0-only",
  libc6: "LGPL-2.1-or-later",
  "libgcc-s1": "GPL-3.0-or-later WITH GCC-exception-3.1",
  "libstdc++6": "GPL-3.0-or-later WITH GCC-exception-3.1",
};

const pinsSchema = z.strictObject({
  suite: z.literal(debianSuite),
  /** When the packages were pinned: they were in Debian's archive then. */
  snapshot: z.string().regex(/^\d{8}T\d{6}Z$/),
  packages: z.array(
    z.strictObject({
      name: z.string(),
      version: z.string(),
      archive: z.enum(["debian", "debian-security"]),
      path: z.string(),
      sha256: z.string().regex(/^[0-9a-f]{64}$/),
    }),
  ),
});
export type BasePins = z.infer<typeof pinsSchema>;

/** Written by renew.ts. */
export const pinsFile = join(packageRoot, "tools", "image", "base-packages.json");

export const readPins = async (): Promise<BasePins> => pinsSchema.parse(JSON.parse(await readFile(pinsFile, "utf8")));

/**
 * The layer. Every node of every cluster pulls it, and it changes only with its pins: it is compressed as far as it goes,
 * which takes more than a minute, once for a machine.
 */
export async function baseLayer(pins: BasePins, progress: Progress): Promise<LayerContent> {
  const compression = "zstd-best";
  const entries = await baseEntries(pins, progress);
  const make = async (blobs: string): Promise<Layer> => {
    const inputs = [compression, process.versions.zstd, entries.map(contentOf)];
    const entry = {
      name: "image-base-layer",
      inputs,
      make: async (target: string) => {
        progress("  compressing Node for the image (a minute or two, once) …");
        const layer = await buildLayer(entries, target, compression);
        await writeFile(join(target, "layer.json"), JSON.stringify(layer));
      },
    };
    const made = await cached(entry, progress);
    const layer = layerSchema.parse(JSON.parse(await readFile(join(made, "layer.json"), "utf8")));
    const blob = layer.digest.slice("sha256:".length);
    await replaceFile(join(blobs, blob), await readFile(join(made, blob)));
    return layer;
  };
  return { name: "node", entries, compression, make };
}

const layerSchema = z.strictObject({
  mediaType: z.string(),
  digest: z.string(),
  size: z.number(),
  diffId: z.string(),
});

const contentOf = (entry: Entry) =>
  "source" in entry ? { ...entry, source: digestOf(entry.source, "sha256").toString("hex") } : entry;

/** The layer's entries. */
async function baseEntries(pins: BasePins, progress: Progress): Promise<Entry[]> {
  const files = await pinnedDebianFiles(
    { name: "image-base", packages: pins.packages, places: packagePlaces(pins.snapshot) },
    progress,
  );
  const library = (name: string, path: string): Entry => ({
    path,
    type: "file",
    source: join(files, "usr", libraryDirectory, name),
    mode: 0o755,
  });
  return [
    { path: "bin/node", type: "file", source: await strippedNode(progress), mode: 0o755 },
    library("ld-linux-x86-64.so.2", "lib64/ld-linux-x86-64.so.2"),
    // What the installer runs the host's programs through: `chroot /host …`.
    { path: "bin/busybox", type: "file", source: join(files, "usr", "bin", "busybox"), mode: 0o755 },
    { path: "bin/chroot", type: "symlink", target: "busybox", mode: 0o777 },
    ...libraries.map((name) => library(name, `${libraryDirectory}/${name}`)),
    { path: "etc/passwd", type: "file", content: "root:x:0:0:root:/:/bin/node\n", mode: 0o644 },
    { path: "etc/group", type: "file", content: "root:x:0:\n", mode: 0o644 },
    { path: "tmp", type: "directory", mode: 0o1777 },
  ];
}

/** What the base was made from, for the image's annotations. */
export function baseInputs({ packages }: BasePins): string {
  const debian = packages.map((one) => `${one.name}=${one.version}@sha256:${one.sha256}`);
  return [`${nodeOfImage.name}@${nodeOfImage.version}`, ...debian].join(" ");
}
