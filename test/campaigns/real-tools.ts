import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import type { Progress } from "../../tools/process/progress.ts";
import { check } from "../../tools/process/run.ts";
import { cached } from "../../tools/programs/cache.ts";
import { debianFiles } from "../../tools/programs/debian.ts";
import { goProgram } from "../../tools/programs/go.ts";
import { requireHostPrograms } from "../../tools/programs/host-packages.ts";

/** The independent tools that measurements are compared with, fetched into the cache: a command and its first arguments. */
export type Tool = [command: string, ...args: string[]];

const verityLibraries =
  "libcryptsetup12 libpopt0 libargon2-1 libjson-c5 libssl3t64 libuuid1 libblkid1 libdevmapper1.02.1 libudev1 libselinux1 libpcre2-8-0 libcap2 libgcc-s1 zlib1g libzstd1 libc6";

/** Debian's, run with its own libraries so that it works on any host. */
export async function veritysetup(progress: Progress): Promise<Tool> {
  const directory = await debianFiles(
    { name: "cryptsetup-bin", suite: "trixie", packages: ["cryptsetup-bin", ...verityLibraries.split(" ")] },
    progress,
  );
  const libraries = join(directory, "usr/lib/x86_64-linux-gnu");
  return [
    join(libraries, "ld-linux-x86-64.so.2"),
    "--library-path",
    libraries,
    join(directory, "usr/sbin/veritysetup"),
  ];
}

/** virtee/sev-snp-measure from PyPI. */
export async function sevSnpMeasure(progress: Progress): Promise<Tool> {
  const version = "0.0.13";
  const directory = await cached(
    {
      name: "sev-snp-measure",
      inputs: version,
      make: async (target) => {
        await requireHostPrograms([{ program: "pip3", package: "python3-pip" }], progress);
        progress(`Fetching sev-snp-measure ${version} from PyPI …`);
        await check("pip3", ["install", "--quiet", "--no-deps", "--target", target, `sev-snp-measure==${version}`]);
      },
    },
    progress,
  );
  return ["env", `PYTHONPATH=${directory}`, "python3", "-m", "sevsnpmeasure.cli"];
}

/** Debian's firmware builds: with SEV and TDX metadata, and without. */
export async function debianFirmware(progress: Progress): Promise<string[]> {
  const trixie = await debianFiles({ name: "ovmf", suite: "trixie", packages: ["ovmf"] }, progress);
  const bookworm = await debianFiles({ name: "ovmf-2022.11", suite: "bookworm", packages: ["ovmf"] }, progress);
  return [trixie, bookworm].flatMap((directory) =>
    ["ovmf/OVMF.fd", "OVMF/OVMF_CODE_4M.fd"].map((file) => join(directory, "usr/share", file)),
  );
}

/** A kernel that Debian signed. */
export async function debianKernel(progress: Progress): Promise<Buffer> {
  const directory = await debianFiles(
    {
      name: "linux-image-cloud",
      suite: "trixie",
      packages: ["?reverse-depends(?exact-name(linux-image-cloud-amd64))"],
    },
    progress,
  );
  const [name] = (await readdir(join(directory, "boot"))).filter((each) => each.startsWith("vmlinuz-"));
  return await readFile(join(directory, "boot", name ?? "vmlinuz"));
}

/** The Go module with which Contrast decodes its manifest's SNP policies; Contrast itself is not published as a module. */
export async function contrastDecoder(progress: Progress): Promise<Tool> {
  const module = join(import.meta.dirname, "contrast-values");
  const program = { name: "contrast-values", version: "go-sev-guest-0.14.0", module, packages: ["."] };
  return [join(await goProgram(program, progress), "contrast-values")];
}
