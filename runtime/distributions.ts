import type { DistributionName } from "./spec.ts";

/**
 * How a distribution runs containerd on its nodes, as plain data. Sources: the distributions' documentation and their
 * agents' source code; what they actually render is checked on the node, see ../node-installer/containerd/place.ts.
 */
export interface Distribution {
  name: DistributionName;
  /** Paths of which a node of this distribution has at least one; an earlier one may have left them, too. */
  evidence: readonly string[];
  /**
   * The program that renders containerd's configuration and starts containerd as its child, with the directory that holds
   * its data unless its arguments say otherwise. undefined: the unit starts containerd itself.
   */
  agent?: { program: string; data: string };
  edited: Edited;
  /** What the script that starts containerd reads besides containerd's own files, whether it is there or not. */
  startFiles?: readonly string[];
  socket: string;
  /** Service units: the node's is the first of these that it has. */
  units: readonly [string, ...string[]];
  /** `itself`: the distribution restarts containerd when the edited file changes; another restart would be one too many. */
  restart: "systemctl" | "itself";
  /** Where the distribution keeps its own containerd binary, if that is not the one in the unit's ExecStart. */
  binaries: readonly string[];
  /** containerd's root and state directories, in this order. */
  dataDirectories: readonly string[];
  /** The kubelet's directory, unless that is Kubernetes' own. */
  kubeletRoot?: string;
}

/** Where kubelets keep pods' volumes, if nothing else is said. */
const kubeletRoot = "/var/lib/kubelet";
/** The kubelet's directory of a distribution; undefined: any whose kubelet is where Kubernetes puts it. */
export const kubeletRootOf = (name: DistributionName | undefined): string =>
  (name && distributions[name].kubeletRoot) ?? kubeletRoot;

/** What is edited to make containerd see our handlers. */
export type Edited =
  /** The file that containerd reads. */
  | { kind: "root"; file: string }
  /** A file from which the distribution renders, at every start, the one that containerd reads. */
  | {
      kind: "rendered";
      /** What containerd reads. */
      configuration: string;
      /** By the `version` of the rendered file; the drop-in is used only where the rendered file imports it. */
      byVersion: readonly { from: number; template: string; dropIn?: string }[];
      /**
       * The line with which a new template begins: it includes what the distribution would render on its own. Its
       * comment marks a template that we made and may therefore remove.
       */
      templateBase?: string;
    }
  /** A directory whose files reach containerd through a file that the distribution writes. */
  | {
      kind: "drop-in";
      file: string;
      /** It must start with this line; otherwise it is not the distribution's. */
      root: { file: string; firstLine: string };
      /** Up to k0s 1.35 the root imports this file, into which drop-ins are merged. Later ones import the directory. */
      merged: string;
    };

const dropInName = "contrast-runtime.toml";

function rancher(name: "k3s" | "rke2", units: Distribution["units"], data = `/var/lib/rancher/${name}`): Distribution {
  const folder = `${data}/agent/etc/containerd`;
  return {
    name,
    evidence: [`${data}/agent`],
    agent: { program: name, data },
    edited: {
      kind: "rendered",
      configuration: `${folder}/config.toml`,
      byVersion: [
        { from: 3, template: `${folder}/config-v3.toml.tmpl`, dropIn: `${folder}/config-v3.toml.d/${dropInName}` },
        { from: 2, template: `${folder}/config.toml.tmpl`, dropIn: `${folder}/config.toml.d/${dropInName}` },
      ],
      templateBase: '{{ template "base" . }}{{/* made by contrast-runtime */}}',
    },
    socket: "/run/k3s/containerd/containerd.sock",
    units,
    restart: "systemctl",
    binaries: name === "k3s" ? [`${data}/data/current/bin/containerd`] : [`${data}/bin/containerd`],
    dataDirectories: [`${data}/agent/containerd`, "/run/k3s/containerd"],
  };
}

const k3s = (data?: string) => rancher("k3s", ["k3s.service", "k3s-agent.service"], data);
const rke2 = (data?: string) => rancher("rke2", ["rke2-server.service", "rke2-agent.service"], data);

const k0s = (data = "/var/lib/k0s"): Distribution => ({
  name: "k0s",
  evidence: ["/etc/k0s/containerd.toml", data],
  agent: { program: "k0s", data },
  edited: {
    kind: "drop-in",
    file: `/etc/k0s/containerd.d/${dropInName}`,
    root: { file: "/etc/k0s/containerd.toml", firstLine: "# k0s_managed=true" },
    merged: "/run/k0s/containerd-cri.toml",
  },
  socket: "/run/k0s/containerd.sock",
  units: ["k0sworker.service", "k0scontroller.service"],
  restart: "itself",
  binaries: [`${data}/bin/containerd`],
  dataDirectories: [`${data}/containerd`, "/run/k0s/containerd"],
  kubeletRoot: `${data}/kubelet`,
});

/** The distribution with its data in another directory; one whose data cannot move stays as it is. */
export const withData = ({ name }: Distribution, data: string): Distribution =>
  name === "k3s" ? k3s(data) : name === "rke2" ? rke2(data) : name === "k0s" ? k0s(data) : distributions[name];

export const distributions: Readonly<Record<DistributionName, Distribution>> = {
  containerd: {
    name: "containerd",
    evidence: [],
    edited: { kind: "root", file: "/etc/containerd/config.toml" },
    socket: "/run/containerd/containerd.sock",
    units: ["containerd.service"],
    restart: "systemctl",
    binaries: [],
    dataDirectories: ["/var/lib/containerd", "/run/containerd"],
  },
  aks: {
    name: "aks",
    evidence: ["/opt/azure/containers"],
    edited: { kind: "root", file: "/etc/containerd/config.toml" },
    socket: "/run/containerd/containerd.sock",
    units: ["containerd.service"],
    restart: "systemctl",
    binaries: [],
    dataDirectories: ["/var/lib/containerd", "/run/containerd"],
  },
  k3s: k3s(),
  rke2: rke2(),
  k0s: k0s(),
  microk8s: {
    name: "microk8s",
    evidence: ["/var/snap/microk8s/current"],
    edited: {
      kind: "rendered",
      configuration: "/var/snap/microk8s/current/args/containerd.toml",
      byVersion: [{ from: 2, template: "/var/snap/microk8s/current/args/containerd-template.toml" }],
    },
    startFiles: [
      "/var/snap/microk8s/current/args/containerd",
      "/var/snap/microk8s/current/args/containerd-env",
      "/var/snap/microk8s/current/var/lock/gpu",
    ],
    socket: "/var/snap/microk8s/common/run/containerd.sock",
    units: ["snap.microk8s.daemon-containerd.service"],
    restart: "systemctl",
    binaries: ["/snap/microk8s/current/bin/containerd"],
    dataDirectories: ["/var/snap/microk8s/common/var/lib/containerd", "/var/snap/microk8s/common/run/containerd"],
    kubeletRoot: "/var/snap/microk8s/common/var/lib/kubelet",
  },
};
