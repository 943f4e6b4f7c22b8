/**
 * Every program that is not an npm package, with its pinned version and where it comes from. Releases are pinned by the
 * digests that their projects published, Go modules by the go.mod and go.sum files beside this file, Debian packages by
 * their suite. A program without a digest here, such as containerd 2.4, is always built.
 */
import { join } from "node:path";
import type { ContainerdVersion } from "../../runtime/containerd-versions.ts";
import { packageRoot } from "../files/project.ts";
import type { Progress } from "../process/progress.ts";
import { debianFiles, debianTree } from "./debian.ts";
import { type GoProgram, goProgram, isBuilt } from "./go.ts";
import { type Release, releasedOr } from "./released.ts";

/** The folder of one of the Go modules beside this file. */
export const moduleDirectory = (name: string): string => join(packageRoot, "tools", "programs", "modules", name);

const kubernetesVersion = "1.36.3";
/** The one that Kubernetes' module is built with. */
const etcdVersion = "3.6.8";

/** Digests: dl.k8s.io has one beside each program, as `kubelet.sha256`; etcd's are in its release's SHA256SUMS. */
export const kubernetesRelease: Release = {
  name: "kubernetes",
  version: kubernetesVersion,
  programs: ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl", "kubelet"],
  files: [
    ...Object.entries({
      "kube-apiserver": "1f217d397234a6d065da663c6e086fdb02c0f0de97a0758ff3e6f3956f4ef8ab",
      "kube-controller-manager": "7edfe976d5a06c7a702d653e914095f4a732a04bb2139115b6a6eba6a9b781c7",
      "kube-scheduler": "b8955d4518c902110b50a825364339b1fb673822518ce0ba081a69ed634f8eee",
      kubectl: "ebbd080e7c2e275093b55915722043257eb24004363e20acb3c4d71919f88336",
      kubelet: "46707a53209f826ad0f0d62371ac69cd00e78fd9a8176cf5f6f87f18f7f8b718",
    }).map(([program, sha256]) => ({
      url: `https://dl.k8s.io/v${kubernetesVersion}/bin/linux/amd64/${program}`,
      sha256,
      to: program,
    })),
    {
      url: `https://github.com/etcd-io/etcd/releases/download/v${etcdVersion}/etcd-v${etcdVersion}-linux-amd64.tar.gz`,
      sha256: "cf9cfe91a4856cb90eed9c99e6aee4b708db2c7888b88a6f116281f04b0ea693",
      to: ".",
      members: [`etcd-v${etcdVersion}-linux-amd64/etcd`],
    },
  ],
};

const kubernetes: GoProgram = {
  name: "kubernetes",
  version: kubernetesVersion,
  module: moduleDirectory("kubernetes"),
  packages: ["."],
  tags: ["selinux", "notest", "grpcnotrace"],
  ldflags: ["k8s.io/component-base/version", "k8s.io/client-go/pkg/version"].flatMap((variables) => [
    `-X ${variables}.gitVersion=v${kubernetesVersion}`,
    `-X ${variables}.gitMajor=${kubernetesVersion.split(".")[0]}`,
    `-X ${variables}.gitMinor=${kubernetesVersion.split(".")[1]}`,
    `-X ${variables}.gitTreeState=clean`,
  ]),
  links: {
    target: "kubernetes",
    names: kubernetesRelease.programs,
  },
  duration: "about 5 minutes on two cores the first time",
};

/** The directory of etcd, kube-apiserver, kube-controller-manager, kube-scheduler, kubelet and kubectl. */
export const kubernetesPrograms = (progress: Progress) => releasedOrBuilt(kubernetesRelease, kubernetes, progress);

const releasedOrBuilt = (release: Release | undefined, program: GoProgram, progress: Progress) =>
  releasedOr(release, { isThere: () => isBuilt(program), make: () => goProgram(program, progress) }, progress);

const pause: GoProgram = { name: "pause", version: "1", module: moduleDirectory("pause"), packages: ["."] };

/** The static program that runs in every pod's sandbox. */
export const pauseProgram = async (progress: Progress) => join(await goProgram(pause, progress), "pause");

/** By minor version. 1.7 does not build from its published module alone, so it comes from Debian. */
const containerds: Record<ContainerdVersion, (progress: Progress) => Promise<string>> = {
  "1.7": (progress) => debianFiles({ name: "containerd-1.7", suite: "trixie", packages: ["containerd"] }, progress),
  "2.0": (progress) => containerd("2.0.7", progress),
  "2.1": (progress) => containerd("2.1.9", progress),
  "2.2": (progress) => containerd("2.2.9", progress),
  "2.3": (progress) => containerd("2.3.3", progress),
  "2.4": (progress) => containerd("2.4.2", progress),
};

/** By version, the SHA-256 that is beside containerd-VERSION-linux-amd64.tar.gz in its release, as .sha256sum. */
export const containerdDigests: Record<string, string> = {
  "2.0.7": "6dc663cd245d19c3e68260ca86247469563a31decac925087b62a2a819dfcbee",
  "2.1.9": "0083d2a4c2e77eeb20e55b6d955822fb957ff386c0c23959c8b27f598317586c",
  "2.3.3": "ebf6e710056312628eaf6fb4a1c32f0a4ae5f812568321be4029389d66fc7c7c",
};

/** A tree to overlay on a node's: usr/bin/{containerd,containerd-shim-runc-v2,ctr} and perhaps more. */
export const containerdTree = (version: ContainerdVersion, progress: Progress): Promise<string> =>
  containerds[version](progress);

/** The directory of containerd, containerd-shim-runc-v2 and ctr. */
export const containerdPrograms = async (version: ContainerdVersion, progress: Progress): Promise<string> =>
  join(await containerdTree(version, progress), "usr/bin");

const containerdNames = ["containerd", "containerd-shim-runc-v2", "ctr"];

export function containerdRelease(version: string): Release | undefined {
  const sha256 = containerdDigests[version];
  if (sha256 === undefined) return undefined;
  const place = `https://github.com/containerd/containerd/releases/download/v${version}`;
  return {
    name: "containerd",
    version,
    programs: containerdNames.map((program) => `usr/bin/${program}`),
    files: [
      {
        url: `${place}/containerd-${version}-linux-amd64.tar.gz`,
        sha256,
        to: "usr/bin",
        members: containerdNames.map((program) => `bin/${program}`),
      },
    ],
  };
}

const containerd = (version: string, progress: Progress) =>
  releasedOrBuilt(
    containerdRelease(version),
    {
      name: "containerd",
      version,
      module: moduleDirectory(`containerd-${version}`),
      packages: containerdNames.map((program) => `github.com/containerd/containerd/v2/cmd/${program}`),
      tags: ["urfave_cli_no_docs", "no_btrfs", "no_devmapper", "no_zfs", "no_aufs", "no_gateway", "no_tracing"],
      ldflags: [
        `-X github.com/containerd/containerd/v2/version.Version=v${version}`,
        "-X github.com/containerd/containerd/v2/version.Revision=go-module",
      ],
      directory: "usr/bin",
      duration: "about a minute",
    },
    progress,
  );

/** Units that wait for devices that such a node never has, or that would update its packages. */
const maskedUnits = [
  ...["getty.target", "console-getty.service", "systemd-logind.service", "systemd-timesyncd.service"],
  ...[
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
  ],
];

/** The Debian tree that every node boots: systemd, D-Bus, runc, CNI plugins, networking tools. Never written to. */
export const nodeTree = (progress: Progress) =>
  debianTree(
    {
      name: "node-bookworm",
      suite: "bookworm",
      packages: [
        "systemd",
        "systemd-sysv",
        "dbus",
        "runc",
        "containernetworking-plugins",
        "iproute2",
        "iptables",
        "kmod",
        "procps",
        "ca-certificates",
      ],
      // What each node must have of its own is removed.
      finish: [
        `for unit in ${maskedUnits.join(" ")}; do ln -sf /dev/null "$1/etc/systemd/system/$unit"; done`,
        ': >"$1/etc/machine-id"',
        'rm -f "$1/etc/resolv.conf" "$1/etc/hostname"',
      ].join("\n"),
    },
    progress,
  );

/** Debian's `docker-registry`, a static program. */
export const registryProgram = async (progress: Progress) =>
  join(
    await debianFiles({ name: "docker-registry", suite: "bookworm", packages: ["docker-registry"] }, progress),
    "usr/bin/docker-registry",
  );

/** One static program that is a shell and its tools: the proof pod's image contains it. */
export const busyboxProgram = async (progress: Progress) =>
  join(
    await debianFiles({ name: "busybox", suite: "bookworm", packages: ["busybox-static"] }, progress),
    "usr/bin/busybox",
  );
