import { chmod, mkdir, rename, rm, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { Refusal } from "../../runtime/refusal.ts";
import { connectionProblem } from "../http/client.ts";
import { download } from "../http/download.ts";
import { type Progress, seconds } from "../process/progress.ts";
import { check } from "../process/run.ts";
import { cached, isCached } from "./cache.ts";

/** One file of a project's release. */
export interface ReleasedFile {
  /** Where the project itself has it. */
  url: string;
  /** Hex, as the project published it for this file. Whatever a server sends, nothing else is used. */
  sha256: string;
  /** The path that it gets in the entry; of an archive (.tar.gz, .tgz): where its members go, without their first folder. */
  to: string;
  /** Of an archive, what is taken out of it; everything by default. */
  members?: string[];
}

/** Programs as their project released them. */
export interface Release {
  /** As a file name; with the version it names the cache's entry. */
  name: string;
  version: string;
  files: ReleasedFile[];
  /** Paths in the entry that must be programs when it is complete. */
  programs: string[];
}

/** Another way to the same programs. */
export interface Alternative {
  isThere: () => Promise<boolean>;
  /** Returns the directory. */
  make: () => Promise<string>;
}

/** The directory that has the hosts' names as folders, and below them the projects' own paths. */
const mirrorVariable = "CONTRAST_RUNTIME_MIRROR";

/**
 * The directory of the programs: whichever the cache has, otherwise the release, and where that cannot be had, the
 * alternative, after a sentence that says why. What the cache has is named by the digests of its files, so that no program
 * that was built is ever taken for one that was released.
 *
 * @throws Refusal what the alternative throws, or of a full disk
 */
export async function releasedOr(
  release: Release | undefined,
  alternative: Alternative,
  progress: Progress,
): Promise<string> {
  if (release === undefined) return await alternative.make();
  if (!isCached(entryOf(release)) && (await alternative.isThere())) return await alternative.make();
  try {
    return await released(release, progress);
  } catch (error) {
    if (!(error instanceof Refusal) || !hasAlternative.has(error.code)) throw error;
    progress(`${release.name} ${release.version} is not taken as its project released it: ${reason(error)}.`);
    return await alternative.make();
  }
}

/** What the network, a server or a wrong file is to blame for. A full disk would be as full for a build. */
const hasAlternative = new Set([
  ...["download-failed", "download-refused", "digest-mismatch", "redirects"],
  ...["program-failed", "program-missing", "not-in-release"],
]);

/** The cause alone: what to do about a download that failed is no advice where something else is done. */
function reason({ cause, message }: Refusal): string {
  const own = message.replace(/\.$/, "").split(/\.\s/)[0] ?? message;
  return cause === undefined ? own : `${own.split(": ")[0]}: ${connectionProblem(cause)}`;
}

/** Downloads the release unless the cache has it; returns the entry's directory. */
async function released(release: Release, progress: Progress): Promise<string> {
  const { name, version, files, programs } = release;
  const make = async (directory: string) => {
    const begin = Date.now();
    progress(`Fetching ${name} ${version} as its project released it …`);
    const all = files.map((file) => place(file, directory, progress));
    // The first that fails decides, but the others still write into the directory.
    await Promise.allSettled(all);
    await Promise.all(all);
    for (const program of programs) {
      const status = await stat(join(directory, program)).catch(() => undefined);
      if (status?.isFile() && status.size > 0) continue;
      throw new Refusal("not-in-release", `${name} ${version} was released without ${program}.`);
    }
    progress(`  Fetched ${name} ${version} (${seconds(begin)}).`);
  };
  return await cached({ ...entryOf(release), space: 2e9, make }, progress);
}

const entryOf = ({ name, version, files, programs }: Release) => ({
  name: `${name}-${version}`,
  inputs: { released: files.map(({ sha256, to, members }) => ({ sha256, to, members })), programs },
});

async function place({ url, sha256, to, members = [] }: ReleasedFile, directory: string, progress: Progress) {
  const file = await download({ url: mirrored(url), sha256, dispensable: true }, progress);
  const target = join(directory, to);
  if (!/\.(tar\.gz|tgz)$/.test(url)) {
    await mkdir(dirname(target), { recursive: true });
    await rename(file, target);
    await chmod(target, 0o755);
    return;
  }
  await mkdir(target, { recursive: true });
  // These letters mean the same to GNU's tar and to the one of macOS; o: the files belong to whoever unpacks them.
  await check("tar", ["-xozf", file, "-C", target, "--strip-components", "1", ...members]);
  await rm(file);
}

/** Where to ask for a file: a mirror, if one is set, has it below the name of its host. */
export function mirrored(url: string, env = process.env): string {
  const mirror = env[mirrorVariable];
  if (!mirror) return url;
  if (!URL.canParse(mirror) || !/^https?:$/.test(new URL(mirror).protocol))
    throw new Refusal(
      "mirror",
      `${mirrorVariable} is "${mirror}", which is no web address. Set it to the directory that has dl.k8s.io and github.com as folders, such as https://mirror.example/releases, or unset it.`,
    );
  return `${mirror.replace(/\/+$/, "")}/${url.replace(/^https?:\/\//, "")}`;
}
