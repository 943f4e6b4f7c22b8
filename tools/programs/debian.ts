import { existsSync } from "node:fs";
import { cp, mkdir, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { sha256 } from "../../runtime/canonical.ts";
import { printable } from "../../runtime/printable.ts";
import { Refusal } from "../../runtime/refusal.ts";
import { download } from "../http/download.ts";
import { type Progress, seconds, whileWaiting } from "../process/progress.ts";
import { check, run } from "../process/run.ts";
import { cached } from "./cache.ts";
import { requireHostPrograms } from "./host-packages.ts";

/**
 * Debian packages from the mirror that this machine's apt uses, verified by the mirror's signed metadata: the suite's
 * current versions. Exact ones disappear from the mirrors; see `pinnedDebianFiles`.
 */
export interface DebianPackages {
  /** As a file name: names the cache's entry. */
  name: string;
  suite: "bookworm" | "trixie";
  packages: string[];
}

const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg";
const fetchers = [
  { program: "apt-get", package: "apt" },
  { program: "dpkg-deb", package: "dpkg" },
  { program: keyring, package: "debian-archive-keyring" },
];

/**
 * Only the files of the packages, without dependencies or documentation and without running package scripts; returns the
 * directory.
 */
export async function debianFiles(wanted: DebianPackages, progress: Progress): Promise<string> {
  return await cached(
    {
      name: wanted.name,
      inputs: ["files", wanted],
      space: 1e9,
      make: async (directory) => {
        await requireHostPrograms(fetchers, progress);
        const begin = Date.now();
        progress(`Fetching from Debian ${wanted.suite}: ${wanted.packages.join(", ")} …`);
        const apt = join(directory, ".apt");
        const options = await separateApt(apt, [await sourceLine(wanted.suite)]);
        await whileWaiting(
          15,
          () => progress(`  ${wanted.name}: still fetching, ${seconds(begin)}`),
          async () => {
            await check("apt-get", ["-q", "update"], options).catch(explainKeyring(wanted.suite));
            await check("apt-get", ["-q", "download", ...wanted.packages], options);
          },
        );
        await unpack(apt, directory);
        progress(`  Fetched ${wanted.name} (${seconds(begin)}).`);
      },
    },
    progress,
  );
}

/** One binary package for amd64, in exactly these bytes. */
export interface PinnedPackage {
  name: string;
  /** With its epoch, if it has one. */
  version: string;
  archive: "debian" | "debian-security";
  /** Below the archive: `pool/main/…_amd64.deb`. */
  path: string;
  /** Hex, as the suite's signed metadata had it when the package was pinned. */
  sha256: string;
}

/** Where packages are looked for, one place after the other; addresses of directories that hold the archives' paths. */
export type PackagePlaces = (archive: PinnedPackage["archive"]) => Promise<string[]>;

/**
 * The mirror that this machine's apt uses, which has a version until the next one comes, then Debian's archive of all that
 * was ever published.
 *
 * @param snapshot a time at which the packages were in the archive, as `20260131T120000Z`
 */
export const packagePlaces =
  (snapshot: string): PackagePlaces =>
  async (archive) => [
    (await mirror(archive)).replace(/\/$/, ""),
    `https://snapshot.debian.org/archive/${archive}/${snapshot}`,
  ];

/**
 * Only the files of these packages, without documentation; returns the directory. Whatever a server sends, only the pinned
 * bytes are used: whoever has the same pins has the same files.
 *
 * @throws Refusal that says of each place why the package is not from there
 */
export async function pinnedDebianFiles(
  wanted: { name: string; packages: PinnedPackage[]; places: PackagePlaces },
  progress: Progress,
): Promise<string> {
  const { name, packages, places } = wanted;
  return await cached(
    {
      name,
      inputs: ["pinned", packages.map(({ name, sha256 }) => [name, sha256])],
      space: 1e8,
      make: async (directory) => {
        progress(`Fetching from Debian: ${packages.map(({ name, version }) => `${name} ${version}`).join(", ")} …`);
        const files = join(directory, ".apt");
        await mkdir(files);
        for (const one of packages) await fetchPinned(one, await places(one.archive), files, progress);
        await unpack(files, directory);
      },
    },
    progress,
  );
}

/** Downloads as apt does: through its proxies, with its certificates. It knows SHA-256, and keeps nothing with another. */
const aptHelper = "/usr/lib/apt/apt-helper";

async function fetchPinned(wanted: PinnedPackage, places: string[], directory: string, progress: Progress) {
  const problems: string[] = [];
  const target = join(directory, `${wanted.name}.deb`);
  const fetch = process.platform === "linux" && existsSync(aptHelper) ? fetchWithApt : fetchWithoutApt;
  for (const place of places) {
    const url = `${place}/${wanted.path}`;
    const problem = await fetch(url, target, wanted.sha256);
    if (problem === undefined) return;
    const reason = printable(problem, 200);
    progress(`  ${wanted.name} ${wanted.version} is not at ${place}: ${reason}`);
    problems.push(`${url}: ${reason}`);
  }
  throw new Refusal(
    "package-missing",
    `The Debian package ${wanted.name} ${wanted.version} with the SHA-256 ${wanted.sha256} cannot be had:\n  ${problems.join("\n  ")}\nCheck the network, and apt's proxy settings.`,
  );
}

/** Returns what is in the way. */
async function fetchWithApt(url: string, target: string, digest: string): Promise<string | undefined> {
  const { code, stdout, stderr } = await run(aptHelper, ["download-file", url, target, `SHA256:${digest}`]);
  if (code === 0 && sha256(await readFile(target)) === digest) return undefined;
  return /^E: Failed to fetch \S+ (.*)$/m.exec(stderr)?.[1] ?? stderr ?? stdout;
}

/** On any other system. */
async function fetchWithoutApt(url: string, target: string, digest: string): Promise<string | undefined> {
  try {
    await rename(await download({ url, sha256: digest, dispensable: true }, () => {}), target);
    return undefined;
  } catch (error) {
    if (error instanceof Refusal) return error.message;
    throw error;
  }
}

/**
 * The newest versions of packages in a suite and its security updates, by the archives' signed metadata. Sorted by name.
 * @param directory an empty one, for apt's lists
 */
export async function newestPackages(suite: string, names: string[], directory: string): Promise<PinnedPackage[]> {
  const [main, security] = [await mirror("debian"), await mirror("debian-security")];
  const line = (address: string, name: string) => `deb [signed-by=${keyring}] ${address} ${name} main\n`;
  const options = await separateApt(directory, [line(main, suite), line(security, `${suite}-security`)]);
  await check("apt-get", ["-q", "update"], options).catch(explainKeyring(suite));
  const uris = await check("apt-get", ["-q", "download", "--print-uris", ...names], options);
  return readUris(uris).sort((a, b) => (a.name < b.name ? -1 : 1));
}

/** @param uris lines of `apt-get download --print-uris`: 'URL' NAME_VERSION_amd64.deb SIZE SHA256:HEX */
export const readUris = (uris: string): PinnedPackage[] =>
  uris
    .trim()
    .split("\n")
    .map((line) => {
      const [, url = "", file = "", sha256 = ""] =
        /^'(\S+)' (\S+_amd64\.deb) \d+ SHA256:([0-9a-f]{64})$/.exec(line) ?? [];
      const [, archive, path] = /\/(debian|debian-security)\/+(pool\/.*)$/.exec(decodeURIComponent(url)) ?? [];
      const [name, version] = decodeURIComponent(file).split("_");
      if (!path || !name || !version) throw new Refusal("apt-answer", `apt-get said what is not understood: ${line}`);
      return { name, version, archive: archive === "debian" ? "debian" : "debian-security", path, sha256 };
    });

/**
 * A complete, bootable tree: the packages, their dependencies and a minimal Debian, installed; returns the directory, which
 * is owned by root and must never be written to.
 *
 * @param finish sh commands that are run on the finished tree, with its path as $1
 */
export async function debianTree(wanted: DebianPackages & { finish: string }, progress: Progress): Promise<string> {
  const directory = await cached(
    {
      name: wanted.name,
      inputs: ["tree", wanted],
      space: 2e9,
      make: async (fresh) => {
        await requireHostPrograms([...fetchers, { program: "mmdebstrap", package: "mmdebstrap" }], progress);
        const begin = Date.now();
        progress(`Making a Debian ${wanted.suite} tree for the nodes (about 200 MB; one or two minutes) …`);
        const leaveOut = ["doc", "man", "locale", "info"].map((part) => `--dpkgopt=path-exclude=/usr/share/${part}/*`);
        await whileWaiting(
          15,
          () => progress(`  still installing its packages, ${seconds(begin)}`),
          async () =>
            check("unshare", [
              // mmdebstrap's mounts disappear with it, however it ends, so nothing is ever deleted through them.
              ...["--mount", "--propagation=private", "--", "mmdebstrap"],
              "--mode=root",
              "--variant=minbase",
              `--include=${wanted.packages.join(",")}`,
              '--aptopt=APT::Install-Recommends "0"',
              ...leaveOut,
              ...connectionSettings((await run("apt-config", ["dump"])).stdout).map((line) => `--aptopt=${line}`),
              `--customize-hook=${wanted.finish}`,
              // mmdebstrap leaves apt's options in the tree, where a proxy's password would be exposed.
              '--customize-hook=rm -f "$1/etc/apt/apt.conf.d/99mmdebstrap"',
              wanted.suite,
              join(fresh, "root"),
              await sourceLine(wanted.suite),
            ]).catch(explainKeyring(wanted.suite)),
        );
        progress(`  The tree is ready (${seconds(begin)}).`);
      },
    },
    progress,
  );
  return join(directory, "root");
}

/** Older Ubuntu releases ship the Debian keys of their time. */
export const explainKeyring =
  (suite: string) =>
  (error: unknown): never => {
    if (!(error instanceof Refusal) || !/\b(NO_PUBKEY|EXPKEYSIG)\b/.test(error.message)) throw error;
    throw new Refusal(
      "keyring-too-old",
      `This machine's package debian-archive-keyring is too old to check Debian ${suite}. Install the current one from https://packages.debian.org/debian-archive-keyring, then run the command again.\n${error.message}`,
    );
  };

async function sourceLine(suite: string): Promise<string> {
  return `deb [signed-by=${keyring}] ${await mirror("debian")} ${suite} main\n`;
}

/**
 * Where this machine's apt gets one of Debian's archives from. Ubuntu's mirrors do not have them: there, the address that
 * Debian itself gives to everybody.
 */
async function mirror(archive: PinnedPackage["archive"]): Promise<string> {
  const { stdout } = await run("apt-get", [
    "indextargets",
    "--format",
    "$(ORIGIN) $(REPO_URI)",
    "Created-By: Packages",
  ]).catch(() => ({ stdout: "" }));
  const own = stdout.split("\n").find((line) => /^Debian \S+\/(debian(?:-security)?)\/?$/.exec(line)?.[1] === archive);
  return own?.split(" ")[1] ?? `http://deb.debian.org/${archive}`;
}

/**
 * The proxies and certificates with which this machine's apt reaches its mirrors; mmdebstrap does not look them up.
 * @param dump output of `apt-config dump`
 */
export const connectionSettings = (dump: string): string[] =>
  dump.split("\n").filter((line) => /^Acquire::https?::\S+ ".+";$/.test(line));

/** An apt of its own with these sources, in the directory; returns what its commands are run with. */
async function separateApt(directory: string, sources: string[]): Promise<{ cwd: string; env: NodeJS.ProcessEnv }> {
  await mkdir(join(directory, "lists", "partial"), { recursive: true });
  await mkdir(join(directory, "cache", "archives", "partial"), { recursive: true });
  await writeFile(join(directory, "status"), "");
  await writeFile(join(directory, "sources.list"), sources.join(""));
  await writeFile(join(directory, "apt.conf"), aptConfiguration(directory));
  return { cwd: directory, env: { ...process.env, APT_CONFIG: join(directory, "apt.conf") } };
}

/** Unpacks the packages of one directory into another, without documentation, and removes the former. */
async function unpack(packages: string, directory: string): Promise<void> {
  const hasDpkg = process.platform === "linux" && (await isInstalled("dpkg-deb"));
  const unpackOne = hasDpkg ? unpackWithDpkg : unpackWithTar;
  for (const file of await readdir(packages))
    if (file.endsWith(".deb")) await unpackOne(join(packages, file), directory);
  await rm(packages, { recursive: true });
  await rm(join(directory, "usr/share/doc"), { recursive: true, force: true });
  await rm(join(directory, "usr/share/man"), { recursive: true, force: true });
  await mergeUsr(directory);
}

const isInstalled = (program: string): Promise<boolean> =>
  run(program, ["--version"]).then(
    () => true,
    () => false,
  );

const unpackWithDpkg = (deb: string, directory: string) => check("dpkg-deb", ["-x", deb, directory]);

/** A package's files are a tar archive in it, which the tar of any system reads if it knows the compression. */
async function unpackWithTar(deb: string, directory: string): Promise<void> {
  const [name, content] = dataOf(await readFile(deb), deb);
  const archive = join(dirname(deb), name);
  await writeFile(archive, content);
  await check("tar", ["-xof", archive, "-C", directory]);
  await rm(archive);
}

/** @returns the member of the ar archive (deb(5)) that is called data.tar.SOMETHING, with its name */
function dataOf(deb: Buffer, file: string): [name: string, content: Buffer] {
  const headerSize = 60;
  let at = deb.toString("latin1", 0, 8) === "!<arch>\n" ? 8 : deb.length;
  while (at + headerSize <= deb.length) {
    const header = deb.toString("latin1", at, at + headerSize);
    const size = Number(header.slice(48, 58));
    const name = header.slice(0, 16).replace(/\/? *$/, "");
    const start = at + headerSize;
    if (!Number.isInteger(size)) break;
    if (/^data\.tar(\.\w+)?$/.test(name)) return [name, deb.subarray(start, start + size)];
    at = start + size + (size % 2);
  }
  throw new Refusal(
    "bad-package",
    `${file} is no Debian package: it has no data.tar. Delete it and run the command again.`,
  );
}

/** With this machine's proxy settings, which apt reads after this file. */
function aptConfiguration(directory: string): string {
  return `Dir::State::lists "${directory}/lists";
Dir::State::status "${directory}/status";
Dir::Cache "${directory}/cache";
Dir::Etc::sourcelist "${directory}/sources.list";
Dir::Etc::sourceparts "/dev/null";
Acquire::Languages "none";
APT::Architecture "amd64";
APT::Sandbox::User "root";
`;
}

/** In the tree that these files are overlaid on, /lib, /bin and /sbin are links, which real directories would hide. */
async function mergeUsr(directory: string): Promise<void> {
  for (const name of await readdir(directory)) {
    if (!["lib", "bin", "sbin"].includes(name)) continue;
    await cp(join(directory, name), join(directory, "usr", name), { recursive: true, verbatimSymlinks: true });
    await rm(join(directory, name), { recursive: true });
  }
}
