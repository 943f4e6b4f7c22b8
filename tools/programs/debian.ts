import { cp, mkdir, readdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { Refusal } from "../../node-installer/runtime/refusal.ts";
import { cached } from "./cache.ts";
import { requireHostPrograms } from "./host-packages.ts";
import { type Progress, seconds, whileWaiting } from "./progress.ts";
import { check, run } from "./run.ts";

/**
 * Debian packages from the mirror that this machine's apt uses, verified by the mirror's signed metadata. Exact versions
 * disappear from the mirrors, so only the suite can be pinned.
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
        await mkdir(join(apt, "lists", "partial"), { recursive: true });
        await mkdir(join(apt, "cache", "archives", "partial"), { recursive: true });
        await writeFile(join(apt, "status"), "");
        await writeFile(join(apt, "sources.list"), await sourceLine(wanted.suite));
        await writeFile(join(apt, "apt.conf"), aptConfiguration(apt));
        const options = { cwd: apt, env: { ...process.env, APT_CONFIG: join(apt, "apt.conf") } };
        await whileWaiting(
          15,
          () => progress(`  ${wanted.name}: still fetching, ${seconds(begin)}`),
          async () => {
            await check("apt-get", ["-q", "update"], options).catch(explainKeyring(wanted.suite));
            await check("apt-get", ["-q", "download", ...wanted.packages], options);
          },
        );
        for (const file of await readdir(apt))
          if (file.endsWith(".deb")) await check("dpkg-deb", ["-x", join(apt, file), directory]);
        await rm(apt, { recursive: true });
        await rm(join(directory, "usr/share/doc"), { recursive: true, force: true });
        await rm(join(directory, "usr/share/man"), { recursive: true, force: true });
        await mergeUsr(directory);
        progress(`  Fetched ${wanted.name} (${seconds(begin)}).`);
      },
    },
    progress,
  );
}

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
  return `deb [signed-by=${keyring}] ${await mirror()} ${suite} main\n`;
}

/**
 * Where this machine's apt gets Debian's main archive from. Ubuntu's mirrors do not have it: there, the address that Debian
 * itself gives to everybody.
 */
async function mirror(): Promise<string> {
  const { stdout } = await run("apt-get", [
    "indextargets",
    "--format",
    "$(ORIGIN) $(REPO_URI)",
    "Created-By: Packages",
  ]);
  const own = stdout.split("\n").find((line) => /^Debian \S+\/debian\/?$/.test(line));
  return own?.split(" ")[1] ?? "http://deb.debian.org/debian";
}

/**
 * The proxies and certificates with which this machine's apt reaches its mirrors; mmdebstrap does not look them up.
 * @param dump output of `apt-config dump`
 */
export const connectionSettings = (dump: string): string[] =>
  dump.split("\n").filter((line) => /^Acquire::https?::\S+ ".+";$/.test(line));

/** A separate apt, with this machine's proxy settings, which apt reads after this file. */
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
