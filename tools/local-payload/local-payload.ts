import { createHash } from "node:crypto";
import { appendFile, copyFile, mkdir, readdir, readFile, stat, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { sha256 } from "../../runtime/canonical.ts";
import type { FileRole, Manifest } from "../../runtime/manifest.ts";
import { packageRoot } from "../files/project.ts";
import { measurementOf } from "../lock/measurement.ts";
import { readPayload, replacePayload } from "../lock/payload-directory.ts";
import { type Progress, seconds, toStderr } from "../process/progress.ts";
import { debianFiles } from "../programs/debian.ts";
import { requireHostPrograms } from "../programs/host-packages.ts";
import { busyboxProgram, containerdPrograms } from "../programs/pinned.ts";
import { kernelFile, writeInitrd, writeRootfs } from "./guest.ts";

/**
 * The payload of the platform `local`: every kind of file that a confidential runtime needs, made on this machine from
 * Debian's stable packages. Its shim is the runc shim of containerd 1.7, which both containerd 1.7 and 2.x accept (1.7
 * refuses the shim of 2.x). The same packages give the same bytes.
 */
export interface LocalPayloadOptions {
  /** Where to write it; by default .local/payloads/<name> in this clone. */
  directory?: string;
  name?: string;
  /** Bytes to append to one file, by its path: a second runtime, for tests. */
  change?: { path: string; append: string };
}

const paths = {
  shim: "bin/containerd-shim-contrast-cc-v2",
  vmm: "bin/qemu-system-x86_64",
  firmware: "share/OVMF.fd",
  kernel: "share/kata-kernel",
  initrd: "share/kata-initrd.zst",
  rootfs: "share/kata-containers.img",
} satisfies Partial<Record<FileRole, string>>;

async function fetchSources(progress: Progress) {
  await requireHostPrograms([{ program: "xz", package: "xz-utils" }], progress);
  const debian = (name: string, ...packages: string[]) =>
    debianFiles({ name, suite: "trixie", packages: packages.length > 0 ? packages : [name] }, progress);
  return {
    containerd: await containerdPrograms("1.7", progress),
    qemu: await debian("qemu-system-x86"),
    ovmf: await debian("ovmf"),
    // The package that linux-image-cloud-amd64 depends on; its name contains the kernel's version.
    kernel: await debian("linux-image-cloud", "?reverse-depends(?exact-name(linux-image-cloud-amd64))"),
    dmsetup: await debian(
      "dmsetup",
      ..."dmsetup libdevmapper1.02.1 libselinux1 libudev1 libcap2 libpcre2-8-0 libc6".split(" "),
    ),
    erofs: await debian(
      "erofs-utils",
      ..."erofs-utils libc6 libdeflate0 liblz4-1 liblzma5 libpcre2-8-0 libselinux1 libuuid1 libxxhash0 libzstd1 zlib1g".split(
        " ",
      ),
    ),
    busybox: await busyboxProgram(progress),
  };
}
type Sources = Awaited<ReturnType<typeof fetchSources>>;

/** Makes the payload unless it already exists, made from the same files by the same code. */
export async function ensureLocalPayload(
  options: LocalPayloadOptions = {},
  progress: Progress = toStderr,
): Promise<{ manifest: Manifest; directory: string; cached: boolean }> {
  const { name = "local", change } = options;
  const directory = options.directory ?? join(packageRoot, ".local", "payloads", name);
  const sources = await fetchSources(progress);
  const inputs = await inputsOf(sources, { name, change });
  const present = await readPayload(directory);
  // The record also has the manifest's digest, because somebody may have edited the manifest since.
  const record = join(directory, "made");
  if (present && (await readFile(record, "utf8").catch(() => "")) === `${inputs}\n${digestOf(present)}\n`)
    return { manifest: present, directory, cached: true };

  const begin = Date.now();
  progress(`Making the payload ${name} from Debian's packages …`);
  const manifest = await replacePayload(
    directory,
    async (files) => {
      const kernelVerityParams = await writeFiles(files, sources);
      if (change) await appendFile(join(files, change.path), change.append);
      const guest = { rootfsType: "erofs" as const, kernelParams: "", kernelVerityParams };
      const described = Object.entries(paths).map(([role, path]) => ({ role: role as FileRole, path }));
      return {
        manifest: {
          name,
          flavour: "none",
          kataVersion: "none",
          source: {
            kind: "files",
            reference: "Debian trixie: containerd, qemu-system-x86, ovmf, linux-image-cloud-amd64, busybox-static",
          },
          guest,
          measurement: measurementOf(files, described, { guest }),
        },
        files: described,
      };
    },
    progress,
  );
  await writeFile(record, `${inputs}\n${digestOf(manifest)}\n`);
  progress(`  Made ${name}: ${manifest.files.length} files, ${seconds(begin)}.`);
  return { manifest, directory, cached: false };
}

const digestOf = (manifest: Manifest): string => sha256(JSON.stringify(manifest));

async function writeFiles(files: string, sources: Sources): Promise<string> {
  const place = async (path: string, source: string) => {
    await mkdir(dirname(join(files, path)), { recursive: true });
    await copyFile(source, join(files, path));
  };
  await place(paths.shim, join(sources.containerd, "containerd-shim-runc-v2"));
  await place(paths.vmm, join(sources.qemu, "usr/bin/qemu-system-x86_64"));
  await place(paths.firmware, join(sources.ovmf, "usr/share/ovmf/OVMF.fd"));
  await place(paths.kernel, await kernelFile(sources));
  await writeInitrd(sources, join(files, paths.initrd));
  return await writeRootfs(sources, join(files, paths.rootfs));
}

/** A digest of what the payload depends on: the fetched files, by path and time, and the code in this folder. */
async function inputsOf(sources: Sources, options: unknown): Promise<string> {
  const hash = createHash("sha256").update(JSON.stringify([sources, options, process.versions.zstd]));
  for (const source of Object.values(sources)) hash.update(String((await stat(source)).ctimeMs));
  for (const name of (await readdir(import.meta.dirname)).sort())
    hash.update(await readFile(join(import.meta.dirname, name)));
  return hash.digest("hex");
}
