/**
 * Every program that is not an npm package, with its pinned version and where it comes from. Go modules are pinned by the
 * go.mod and go.sum files beside this file, Debian packages by their suite.
 */
import { join } from "node:path";
import type { ContainerdVersion } from "../../runtime/containerd-versions.ts";
import { packageRoot } from "../files/project.ts";
import type { Progress } from "../process/progress.ts";
import { debianFiles, debianTree } from "./debian.ts";
import { type GoProgram, goProgram } from "./go.ts";

/** The folder of one of the Go modules beside this file. */
export const moduleDirectory = (name: string): string => join(packageRoot, "tools", "programs", "modules", name);

const kubernetesVersion = "1.36.3";

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
    names: ["etcd", "kube-apiserver", "kube-controller-manager", "kube-proxy", "kube-scheduler", "kubectl", "kubelet"],
  },
  duration: "about 5 minutes on two cores the first time",
};

/** The directory of etcd, kube-apiserver, kube-controller-manager, kube-scheduler, kube-proxy, kubelet and kubectl. */
export const kubernetesPrograms = (progress: Progress) => goProgram(kubernetes, progress);

const pause: GoProgram = { name: "pause", version: "1", module: moduleDirectory("pause"), packages: ["."] };

/** The static program that runs in every pod's sandbox. */
export const pauseProgram = async (progress: Progress) => join(await goProgram(pause, progress), "pause");

/** By minor version. 1.7 does not build from its published module alone, so it comes from Debian. */
const containerds: Record<ContainerdVersion, (progress: Progress) => Promise<string>> = {
  "1.7": (progress) => debianFiles({ name: "containerd-1.7", suite: "trixie", packages: ["containerd"] }, progress),
  "2.0": (progress) => containerdModule("2.0.7", progress),
  "2.1": (progress) => containerdModule("2.1.9", progress),
  "2.2": (progress) => containerdModule("2.2.9", progress),
  "2.3": (progress) => containerdModule("2.3.3", progress),
  "2.4": (progress) => containerdModule("2.4.2", progress),
};

/** A tree to overlay on a node's: usr/bin/{containerd,containerd-shim-runc-v2,ctr} and perhaps more. */
export const containerdTree = (version: ContainerdVersion, progress: Progress): Promise<string> =>
  containerds[version](progress);

/** The directory of containerd, containerd-shim-runc-v2 and ctr. */
export const containerdPrograms = async (version: ContainerdVersion, progress: Progress): Promise<string> =>
  join(await containerdTree(version, progress), "usr/bin");

const containerdModule = (version: string, progress: Progress) =>
  goProgram(
    {
      name: "containerd",
      version,
      module: moduleDirectory(`containerd-${version}`),
      packages: ["containerd", "containerd-shim-runc-v2", "ctr"].map(
        (program) => `github.com/containerd/containerd/v2/cmd/${program}`,
      ),
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
