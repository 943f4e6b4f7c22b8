import type { FlavourName } from "./flavours.ts";
import { nearest } from "./nearest.ts";
import { type Platform, platforms } from "./platforms.ts";
import type { PlatformName } from "./spec.ts";
import { isAtLeast } from "./version.ts";

/** A published hole of Kata that a payload can have. */
export interface Advisory {
  /** What a stack acknowledges; an alias does as well. */
  id: string;
  aliases: string[];
  /** First affected version of Kata; absent: all of them, as far as this product can install them. */
  from?: string;
  /** First version that is not affected. */
  fixedIn: string;
  /** Builds that have the faulty part; their version numbers are Kata's. */
  flavours: readonly FlavourName[];
  /** Where the fault matters; absent: everywhere. */
  platforms?: (platform: Platform) => boolean;
  /** Who can do what, in one sentence. */
  allows: string;
  /** Why it cannot be used in what is rendered here, if that is so; else it must be acknowledged. */
  closed?: (platform: Platform, kernelParams: string) => string | undefined;
  source: string;
}

const all: readonly FlavourName[] = ["contrast-go", "kata-go", "kata-rs"];
const go: readonly FlavourName[] = ["contrast-go", "kata-go"];
const ghsa = (id: string) => `https://github.com/kata-containers/kata-containers/security/advisories/${id}`;

/**
 * Kata's own advisories as of November 2026, newest first: those of its Go runtime, runtime-rs, agent and policies from 3.2
 * on. Left out are the ones of parts that nothing here uses (Dragonball: GHSA-fgm4-mv68-h344; virtiofs and bind mounts of
 * runtime-rs before 4.0: GHSA-2gv2-cffp-j227, GHSA-7fhf-v3p3-rp56). QEMU, Cloud Hypervisor, firmware and guest kernel have
 * advisories of their own, which this table does not know. Ranges are those of the CVE records.
 */
export const advisories: readonly Advisory[] = [
  {
    // The release names it without an identifier.
    id: "kata-4.3.0-annotation-allowlist",
    aliases: [],
    fixedIn: "4.3.0",
    flavours: all,
    allows:
      "A pod's author changes host and guest by annotations that Kata's own containerd entry and configuration let through.",
    closed: () =>
      "containerd's entry and Kata's configuration are not Kata's here, and name each annotation that passes",
    source: "https://github.com/kata-containers/kata-containers/releases/tag/4.3.0",
  },
  {
    id: "GHSA-fmg6-v47x-52wr",
    aliases: ["CVE-2026-77176"],
    fixedIn: "4.1.0",
    flavours: all,
    allows:
      "The host mounts guest paths of its choice over certain files of a container, although a policy made with this release's genpolicy protects it. Policies made with the rules of 4.1.0 or later forbid it.",
    source: ghsa("GHSA-fmg6-v47x-52wr"),
  },
  {
    id: "GHSA-mp2j-xm59-qfgw",
    aliases: ["CVE-2026-50540"],
    fixedIn: "4.0.0",
    flavours: all,
    allows:
      "A pod's author names a file of the host as Kata's configuration (io.katacontainers.config_path) and becomes root on the node.",
    closed: () => "containerd hands that annotation to no runtime of this product",
    source: ghsa("GHSA-mp2j-xm59-qfgw"),
  },
  {
    id: "GHSA-h8jv-63p2-496x",
    aliases: ["CVE-2026-64676"],
    from: "3.13.0",
    fixedIn: "4.0.0",
    flavours: all,
    allows:
      "Whatever the policy says, the host makes a guest with an enabled mem-agent swap, evict or compact its memory.",
    closed: (_, kernelParams) =>
      /(^|\s)agent\.(mem_agent_enable|config_file)\b/.test(kernelParams)
        ? undefined
        : "mem-agent is off unless the guest's measured command line turns it on, which this one does not",
    source: ghsa("GHSA-h8jv-63p2-496x"),
  },
  {
    id: "GHSA-rr59-xxvx-96qr",
    aliases: ["CVE-2026-44210"],
    fixedIn: "3.31.0",
    flavours: go,
    allows: "A pod's author serves the host's files to the VM by arguments for virtiofsd in an annotation.",
    closed: () => "no virtiofsd runs here (shared_fs is none), and containerd does not hand that annotation over",
    source: ghsa("GHSA-rr59-xxvx-96qr"),
  },
  {
    id: "GHSA-q49m-57vm-c8cc",
    aliases: ["CVE-2026-41326"],
    from: "3.4.0",
    fixedIn: "3.29.0",
    flavours: all,
    allows:
      "The host writes files anywhere in the guest by symbolic links in CopyFile requests, although a policy made with this release's genpolicy protects it.",
    source: ghsa("GHSA-q49m-57vm-c8cc"),
  },
  {
    id: "GHSA-wwj6-vghv-5p64",
    aliases: ["CVE-2026-24834"],
    fixedIn: "3.27.0",
    flavours: go,
    platforms: ({ vmm }) => vmm === "cloud-hypervisor",
    allows: "A container overwrites the guest's image in memory and becomes root in its VM.",
    closed: ({ tee }) =>
      tee === "none"
        ? undefined
        : "confidential guests boot from a read-only disk, not from the persistent memory that is at fault",
    source: ghsa("GHSA-wwj6-vghv-5p64"),
  },
  {
    id: "GHSA-5fc8-gg7w-3g5c",
    aliases: ["CVE-2026-24054"],
    fixedIn: "3.26.0",
    flavours: go,
    allows:
      "An image without layers gets the host's own disk plugged into its VM, which can damage the host's file system.",
    closed: ({ vmm }) => (vmm === "qemu" ? "disable_block_device_use is true here, which is the fix" : undefined),
    source: ghsa("GHSA-5fc8-gg7w-3g5c"),
  },
];

/** Which payload on which platform. */
export interface Subject {
  platform: PlatformName;
  manifest: { flavour: string; kataVersion: string; guest?: { kernelParams: string } | undefined };
}

export interface Assessment {
  /** Neither closed nor acknowledged: the payload is not used. */
  open: Advisory[];
  acknowledged: Advisory[];
  /** They apply to the version, but not to what is rendered here. */
  closed: { advisory: Advisory; why: string }[];
  /** Acknowledgements that say nothing: their place in the list, and a sentence that begins with the value. */
  mistakes: { index: number; message: string }[];
}

/** What is known of a payload's Kata, given what its user acknowledges (ids or aliases). */
export function assess({ platform: name, manifest }: Subject, acknowledgements: readonly string[] = []): Assessment {
  const platform = platforms[name];
  const { flavour, kataVersion, guest } = manifest;
  const affecting = advisories.filter(
    (advisory) =>
      advisory.flavours.some((one) => one === flavour) &&
      (advisory.platforms?.(platform) ?? true) &&
      isAffected(kataVersion, advisory),
  );
  const names = acknowledgements.map((word) => byName(word)?.id);
  const why = (advisory: Advisory) => advisory.closed?.(platform, guest?.kernelParams ?? "");
  const reachable = affecting.filter((advisory) => why(advisory) === undefined);
  return {
    open: reachable.filter(({ id }) => !names.includes(id)),
    acknowledged: reachable.filter(({ id }) => names.includes(id)),
    closed: affecting.flatMap((advisory) => {
      const reason = why(advisory);
      return reason === undefined ? [] : [{ advisory, why: reason }];
    }),
    mistakes: acknowledgements.flatMap((word, index) => {
      const problem = problemOf(word, affecting, `Kata ${kataVersion} (${flavour}) on ${name}`);
      return problem === undefined ? [] : [{ index, message: `${JSON.stringify(word)} ${problem}` }];
    }),
  };
}

const byName = (word: string): Advisory | undefined =>
  advisories.find(({ id, aliases }) => [id, ...aliases].some((name) => name.toLowerCase() === word.toLowerCase()));

function problemOf(word: string, affecting: readonly Advisory[], subject: string): string | undefined {
  const advisory = byName(word);
  const applying = affecting.map(({ id }) => id).join(", ") || "none";
  if (advisory === undefined) {
    const meant = nearest(
      word,
      advisories.flatMap(({ id, aliases }) => [id, ...aliases]),
    );
    return `is no advisory that is known here.${meant === undefined ? "" : ` Did you mean ${meant}?`} Those of ${subject}: ${applying}.`;
  }
  if (affecting.includes(advisory)) return undefined;
  return `does not apply to ${subject}: remove it. Those that do: ${applying}.`;
}

/** A pre-release counts as what came before it, however it is written, and what is no version as older than all. */
function isAffected(version: string, { from, fixedIn }: Advisory): boolean {
  if (from !== undefined && /^v?\d/.test(version) && !isAtLeast(version, from)) return false;
  return !isAtLeast(version, fixedIn) || new RegExp(`^v?${fixedIn.replaceAll(".", "\\.")}[^.+\\d]`).test(version);
}

/** "GHSA-… (CVE-…)" */
export const advisoryName = ({ id, aliases }: Advisory): string =>
  aliases.length === 0 ? id : `${id} (${aliases.join(", ")})`;

/** What is known and what to do, in sentences. `acknowledge` says how, for the ids given. */
export function explainOpen(open: readonly Advisory[], acknowledge: (ids: string[]) => string): string {
  const [newest = "", ...others] = open.map(({ fixedIn }) => fixedIn);
  const fixed = others.reduce((latest, version) => (isAtLeast(version, latest) ? version : latest), newest);
  const lines = open.map((advisory) => `${advisoryName(advisory)}: ${advisory.allows} See ${advisory.source}.`);
  return `${lines.join(" ")} Lock a payload of Kata ${fixed} or later and list it beside this one; while workloads still need this one, say that you know: ${acknowledge(open.map(({ id }) => id))}.`;
}
