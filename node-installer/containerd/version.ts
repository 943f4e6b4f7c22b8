import { Refusal } from "../../runtime/refusal.ts";

/** A containerd release, as far as it matters for the configuration. */
export interface ContainerdVersion {
  /** As the binary or the install spec gives it: "1.7.24", "2.2.2-bd1.34". */
  text: string;
  /** The highest `version` of a configuration file that it reads: 2 (1.7), 3 (2.0 to 2.2), 4 (from 2.3). */
  newestConfiguration: 2 | 3 | 4;
}

/** Refuses versions other than 1.7 and 2.x. */
export function parseContainerdVersion(text: string): ContainerdVersion {
  const match = /^v?(\d+)\.(\d+)\.(\d+)/.exec(text);
  if (match === null) {
    throw new Refusal(
      "containerd-version-unreadable",
      `containerd's version reads "${text}", which is not like 1.7.24 or 2.2.9. Set distribution.containerdVersion to the version that the node runs.`,
    );
  }
  const [major, minor] = [Number(match[1]), Number(match[2])];
  if (major < 1 || (major === 1 && minor <= 6)) {
    throw new Refusal(
      "containerd-too-old",
      `containerd ${text} is out of support, and early 1.6 releases run runc although their configuration names another shim. Upgrade the node to containerd 1.7 or 2.x.`,
    );
  }
  if (major > 2 || (major === 1 && minor > 7)) {
    throw new Refusal(
      "containerd-unknown",
      `containerd ${text} is not supported: 1.7 and 2.x are. Upgrade contrast-runtime, or keep the node on a supported containerd.`,
    );
  }
  return { text, newestConfiguration: major === 1 ? 2 : minor <= 2 ? 3 : 4 };
}

/** The version in the output of `containerd --version`: "containerd containerd.io 1.7.25 bcc810d…", "… v2.2.9 …". */
export function versionInOutput(output: string): string | undefined {
  return /\sv?(\d+\.\d+\.\d+[^\s]*)/.exec(output)?.[1];
}
