import { isAtLeast } from "./version.ts";

/** What differs between Kata's releases, as far as anything here depends on it. Upstream's values, where nothing else is said. */
export interface KataFacts {
  /** Whether the kernel command line is known for the files that are rendered here; see measure/kata-kernel-command-line.ts. */
  commandLineKnown: boolean;
  /** `nr_cpus=` on the command line of confidential guests of the Go runtime. Contrast's build never passes it. */
  goPassesVcpus: boolean;
  /** `tdx_quote_generation_service_socket_port` of the templates. 0: a Unix socket, else vsock. */
  quotePort: number;
  /** `disable_guest_empty_dir` of the Go runtime's templates, which genpolicy of the same release takes for granted. */
  guestEmptyDirDisabled: boolean;
  /** The file system of the GPU's guest image. */
  gpuRootfs: "ext4" | "erofs";
  /** The release's archive that holds the Go runtime, with all that its guests need. */
  goArchive: ArchiveName;
}

/** Before "-<version>-amd64.tar.zst". */
export type ArchiveName = "kata-static" | "kata-go-static";

interface KataRelease {
  version: string;
  /** Whether its sources were read here: what its keys and defaults do to guests, and what its loaders take. */
  read: boolean;
  /** What the row rests on. */
  source: string;
  /** What is different from the release before. */
  changes: Partial<KataFacts>;
  /** SHA-256 of archives, hex. */
  sha256: Partial<Record<ArchiveName, string>>;
}

const oldest: KataFacts = {
  commandLineKnown: true,
  goPassesVcpus: true,
  quotePort: 4050,
  guestEmptyDirDisabled: false,
  gpuRootfs: "ext4",
  goArchive: "kata-static",
};

const tag = "templates, loaders and runtimes at this tag";
const kubespray = "digest as kubespray publishes it (roles/kubespray_defaults/vars/main/checksums.yml)";
const installers = "digests as several independent installers pin them after GitHub's record of the release";

/**
 * The releases that are known, oldest first: a new release is a row. Which keys each knows is in kata-keys.ts, what archives
 * hold in tools/lock/layouts.ts, known holes are in advisories.ts. runtime-rs is used from 4.0.0 on, in which its guests
 * are composed of a base image and extensions, and sized by `overhead_memory` and `overhead_vcpus`.
 */
export const kataReleases: readonly KataRelease[] = [
  {
    version: "3.30.0",
    read: true,
    source: `${tag}; ${kubespray}`,
    changes: {},
    sha256: { "kata-static": "e65aa5e5bd9f4d59bcd12a8c44a00966406e7329511dd3f756026b6eedc8ad26" },
  },
  {
    version: "3.31.0",
    read: true,
    source: `${tag}; ${kubespray}`,
    changes: { gpuRootfs: "erofs" },
    sha256: { "kata-static": "68c2786a0b97023f62f3eca02dc868b78a794e5469d4ddd6cc9e0bd4a7212b0b" },
  },
  {
    version: "3.32.0",
    read: true,
    source: `${tag}; ${kubespray}`,
    changes: { goPassesVcpus: false, quotePort: 0 },
    sha256: { "kata-static": "1449ecea50bd91fa73a94648db195d18950fe869ba4b1f12d05f55f1fa7c1b01" },
  },
  { version: "4.0.0", read: true, source: tag, changes: { guestEmptyDirDisabled: true }, sha256: {} },
  {
    version: "4.1.0",
    read: true,
    source: `${tag}; tools/packaging/kata-deploy/local-build/kata-release-tarball-inputs.sh; ${installers}`,
    changes: { goArchive: "kata-go-static" },
    sha256: {
      "kata-static": "3dc6b69c4acb787b967b04b64599a20d02a8beb1a8eaab3084110df9d0b08c96",
      "kata-go-static": "8b32080424c884238ee8d52060fdfd060fbe2b5fdfa4eb9ff2772b382b432b55",
    },
  },
  {
    version: "4.2.0",
    read: false,
    source: `${installers}; else as 4.1.0: sources up to 2026-08-22 change nothing of this table`,
    changes: { commandLineKnown: false },
    sha256: {
      "kata-static": "b828904fa3f1e49ddd7dc799c72cb1503cd1e772d354c3987c8d4189b2a623a8",
      "kata-go-static": "7dda31ca54b397cbf8165f620d6041872d3c45b7a77383ce0e86f76a06e103d0",
    },
  },
  {
    version: "4.3.0",
    read: false,
    source: "that it exists, and what it fixes, by its release notes; else as 4.2.0",
    changes: {},
    sha256: {},
  },
];

/** The oldest Kata that is supported, by the program that reads its configuration. */
export const oldestKata = { go: "3.30.0", rs: "4.0.0" } as const;

/** A release that is in the table. */
export const kataRelease = (version: string): KataRelease | undefined =>
  kataReleases.find((release) => release.version === version);

/**
 * What is known of a version. One that is not in the table (between releases, newer, a pre-release) has the values of the
 * last release before it, but not its command line: a guess would become a reference value that no guest ever has.
 */
export function kataFacts(version: string): KataFacts {
  const facts = { ...oldest };
  for (const release of kataReleases) if (isAtLeast(version, release.version)) Object.assign(facts, release.changes);
  return { ...facts, commandLineKnown: facts.commandLineKnown && kataRelease(version) !== undefined };
}

/** The newest release whose sources were read. */
export const newestRead: string = kataReleases.findLast(({ read }) => read)?.version ?? "";

/** Whether nobody here has looked at what its keys and defaults do: it is later than every release that was read. */
export const isUnread = (version: string): boolean => isAtLeast(version, newestRead) && version !== newestRead;
