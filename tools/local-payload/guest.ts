import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { createWriteStream, readFileSync } from "node:fs";
import { readdir, readFile, rm, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { promisify } from "node:util";
import { constants, zstdCompressSync } from "node:zlib";
import { completeEntries } from "../oci/layer.ts";
import { type Entry, tar } from "../oci/tar.ts";
import { check } from "../process/run.ts";
import { cpio } from "./cpio.ts";
import { writeVerityDisk } from "./disk-image.ts";

/** Directories of unpacked Debian packages, and one static program. */
export interface GuestSources {
  kernel: string;
  dmsetup: string;
  erofs: string;
  busybox: string;
}

/** The kernel modules that the guest needs to mount its root; their own dependencies are added. */
const modules = ["virtio_blk", "dm-verity", "erofs"];
const libraryDirectory = "usr/lib/x86_64-linux-gnu";

/** Names that must not change between builds: they are part of the image's bytes. */
const filesystemUuid = "b4ba9d5f-0b6c-4e0e-9a43-6a39f6e0a001";
const diskUuid = "b4ba9d5f-0b6c-4e0e-9a43-6a39f6e0a002";
const salt = createHash("sha256").update("contrast-runtime local rootfs").digest();

/** Opens the verity device that Kata's `dm-mod.create=` describes and boots from it, but only with an intact root. */
const initrdInit = readFileSync(new URL("initrd-init.sh", import.meta.url), "utf8");

/** There is no agent: on `local` nothing starts this guest, except for those who want to see it boot. */
const rootInit = readFileSync(new URL("root-init.sh", import.meta.url), "utf8");

/** Every command that the scripts use, as links to the one program. */
const commands = ["sh", "cat", "echo", "insmod", "mount", "poweroff", "sed", "switch_root"];
const busyboxEntries = (busybox: string): Entry[] => [
  { path: "bin/busybox", type: "file", source: busybox, mode: 0o755 },
  ...commands.map((name): Entry => ({ path: `bin/${name}`, type: "symlink", target: "busybox", mode: 0o777 })),
];
const mountPoints = (...names: string[]) => names.map((path): Entry => ({ path, type: "directory", mode: 0o755 }));

/** The kernel image of the package. */
export async function kernelFile({ kernel }: Pick<GuestSources, "kernel">): Promise<string> {
  const names = (await readdir(join(kernel, "boot"))).filter((name) => name.startsWith("vmlinuz-"));
  const [name] = names;
  if (!name || names.length > 1) throw new Error(`one kernel was expected in ${kernel}/boot: ${names.join(", ")}`);
  return join(kernel, "boot", name);
}

/** The initrd: busybox, dmsetup and the modules, zstd-compressed. */
export async function writeInitrd(sources: GuestSources, target: string): Promise<void> {
  const loaded = await kernelModules(sources.kernel);
  const entries: Entry[] = [
    ...busyboxEntries(sources.busybox),
    ...(await programWithLibraries(sources.dmsetup, "usr/sbin/dmsetup", "bin/dmsetup")),
    ...mountPoints("dev", "proc", "sys", "root"),
    ...loaded.map(({ name, content }): Entry => ({ path: `modules/${name}.ko`, type: "file", content, mode: 0o644 })),
    { path: "modules/order", type: "file", content: loaded.map(({ name }) => `${name}.ko\n`).join(""), mode: 0o644 },
    { path: "init", type: "file", content: initrdInit, mode: 0o755 },
  ];
  const params = { [constants.ZSTD_c_compressionLevel]: 9, [constants.ZSTD_c_checksumFlag]: 1 };
  await writeFile(target, zstdCompressSync(await cpio(entries), { params }));
}

/** The read-only root file system with its verity partition. Returns Kata's `kernel_verity_params`. */
export async function writeRootfs(sources: GuestSources, target: string): Promise<string> {
  const entries: Entry[] = [
    ...busyboxEntries(sources.busybox),
    ...mountPoints("dev", "proc", "sys"),
    { path: "sbin/init", type: "file", content: rootInit, mode: 0o755 },
  ];
  const [archive, filesystem] = [`${target}.tar`, `${target}.erofs`];
  try {
    await pipeline(Readable.from(tar(completeEntries(entries)), { objectMode: false }), createWriteStream(archive));
    // Debian's program with Debian's own loader and libraries: this machine's may be older.
    await check(join(sources.erofs, libraryDirectory, "ld-linux-x86-64.so.2"), [
      ...["--library-path", join(sources.erofs, libraryDirectory), join(sources.erofs, "usr/bin/mkfs.erofs")],
      ...["--quiet", "-T0", "-b4096", `-U${filesystemUuid}`, "--tar=f", filesystem, archive],
    ]);
    return writeVerityDisk(filesystem, target, { salt, diskUuid });
  } finally {
    await rm(archive, { force: true });
    await rm(filesystem, { force: true });
  }
}

/** The modules and their dependencies, uncompressed (busybox loads no others), in the order to load them. */
async function kernelModules(kernel: string): Promise<{ name: string; content: Buffer }[]> {
  const tree = join(kernel, "usr/lib/modules");
  const files = new Map<string, string>();
  for (const path of await readdir(tree, { recursive: true })) {
    const [name] = basename(path).split(".ko");
    if (name && /\.ko(\.xz)?$/.test(path)) files.set(name.replaceAll("-", "_"), join(tree, path));
  }
  const loaded = new Map<string, Buffer>();
  const load = async (name: string): Promise<void> => {
    const file = files.get(name);
    if (!file) throw new Error(`the kernel package in ${kernel} has no module ${name}`);
    if (loaded.has(name)) return;
    const content = file.endsWith(".xz") ? await unxz(file) : await readFile(file);
    const [, depends = ""] = /\0depends=([^\0]*)\0/.exec(content.toString("latin1")) ?? [];
    for (const other of depends.split(",").filter(Boolean)) await load(other.replaceAll("-", "_"));
    loaded.set(name, content);
  };
  for (const name of modules) await load(name.replaceAll("-", "_"));
  return [...loaded].map(([name, content]) => ({ name, content }));
}

async function unxz(file: string): Promise<Buffer> {
  const { stdout } = await promisify(execFile)("xz", ["-dc", file], { encoding: "buffer", maxBuffer: 64 << 20 });
  return stdout;
}

/** A program of a package, with the loader and the libraries that it needs, where it looks for them. */
async function programWithLibraries(tree: string, program: string, path: string): Promise<Entry[]> {
  const libraries = join(tree, libraryDirectory);
  const loader = join(libraries, "ld-linux-x86-64.so.2");
  const listed = await check(loader, ["--library-path", libraries, "--list", join(tree, program)]);
  const names = [...listed.matchAll(/=> (\/\S+)/g)].map(([, file = ""]) => basename(file));
  const entry = (at: string, source: string): Entry => ({ path: at, type: "file", source, mode: 0o755 });
  return [
    entry(path, join(tree, program)),
    entry("lib64/ld-linux-x86-64.so.2", loader),
    ...names
      .filter((name) => !name.startsWith("ld-linux"))
      .map((name) => entry(`lib/x86_64-linux-gnu/${name}`, join(libraries, name))),
  ];
}
