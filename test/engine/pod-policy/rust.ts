import { cp, mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { sha256 } from "../../../runtime/canonical.ts";
import { download } from "../../../tools/http/download.ts";
import type { Progress } from "../../../tools/process/progress.ts";
import { check, run } from "../../../tools/process/run.ts";
import { cached } from "../../../tools/programs/cache.ts";
import { debianTree } from "../../../tools/programs/debian.ts";

/** A Rust program of one file, with the versions of its lock file. */
export interface RustProgram {
  /** As in its Cargo.toml. */
  name: string;
  /** The directory that holds Cargo.toml, Cargo.lock and main.rs. */
  source: string;
  /** Changes of crates' files without which Debian's compiler, which is older, does not take them. */
  forOlderCompiler?: { file: string; from: string; to: string }[];
}

/**
 * Builds the program unless the cache has it; returns its path. With the machine's cargo; without one, with Debian's in a
 * tree of its own, which takes root.
 */
export async function rustProgram(program: RustProgram, progress: Progress): Promise<string> {
  const { name, source, forOlderCompiler = [] } = program;
  const files = ["Cargo.toml", "Cargo.lock", "main.rs"];
  const texts = await Promise.all(files.map((file) => readFile(join(source, file), "utf8")));
  const directory = await cached(
    {
      name,
      inputs: texts.map(sha256),
      space: 1e9,
      make: async (fresh) => {
        progress(`Building ${name} from its crates (some minutes) …`);
        for (const file of files) await cp(join(source, file), join(fresh, file));
        const { code } = await run("cargo", ["--version"]).catch(() => ({ code: 127 }));
        if (code === 0) await check("cargo", [...build, "--manifest-path", join(fresh, "Cargo.toml")]);
        else await buildWithDebian(fresh, texts[1] ?? "", forOlderCompiler, progress);
      },
    },
    progress,
  );
  return join(directory, "target", "release", name);
}

const build = ["build", "--quiet", "--release", "--locked"];

async function buildWithDebian(
  fresh: string,
  lock: string,
  changes: NonNullable<RustProgram["forOlderCompiler"]>,
  progress: Progress,
): Promise<void> {
  const packages = ["cargo", "rustc", "gcc", "libc6-dev"];
  const tree = await debianTree({ name: "rust-trixie", suite: "trixie", packages, finish: "true" }, progress);
  // The tree has no network, so cargo finds the crates in a directory.
  const vendor = join(fresh, "vendor");
  await mkdir(vendor);
  for (const { crate, version, checksum } of cratesOf(lock)) {
    const archive = join(fresh, "crate.tar.gz");
    await download(
      { url: `https://static.crates.io/crates/${crate}/${crate}-${version}.crate`, sha256: checksum },
      progress,
    ).then((file) => cp(file, archive));
    await check("tar", ["-xzf", archive, "-C", vendor]);
    const sum = JSON.stringify({ files: {}, package: checksum });
    await writeFile(join(vendor, `${crate}-${version}`, ".cargo-checksum.json"), sum);
  }
  for (const { file, from, to } of changes) {
    const text = await readFile(join(vendor, file), "utf8");
    if (!text.includes(from)) throw new Error(`${file} does not contain: ${from}`);
    await writeFile(join(vendor, file), text.replace(from, to));
  }
  const script = [
    'mount --bind "$2" "$1/mnt" && mount --rbind /dev "$1/dev" && mount -t proc proc "$1/proc"',
    'exec chroot "$1" env CARGO_HOME=/mnt/home PATH=/usr/bin:/bin sh -c "cd /mnt && exec cargo $3"',
  ].join(" && ");
  const vendored = `--offline --config 'source.crates-io.replace-with="vendored"' --config 'source.vendored.directory="/mnt/vendor"'`;
  const command = `${build.join(" ")} ${vendored}`;
  await check("unshare", ["--mount", "--propagation=private", "sh", "-c", script, "sh", tree, fresh, command]);
}

/** The crates of a Cargo.lock, without the program itself. */
const cratesOf = (lock: string): { crate: string; version: string; checksum: string }[] =>
  [...lock.matchAll(/^name = "([\w-]+)"\nversion = "([^"]+)"\nsource = .*\nchecksum = "([0-9a-f]{64})"$/gm)].map(
    ([, crate = "", version = "", checksum = ""]) => ({ crate, version, checksum }),
  );
