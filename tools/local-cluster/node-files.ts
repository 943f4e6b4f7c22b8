import { type ClusterLayout, type NodeLayout, serviceAddress } from "./layout.ts";

/** What decides a node's files. */
export interface NodeFacts {
  cluster: ClusterLayout;
  node: NodeLayout;
  /** "1.7", "2.4", … */
  containerd: string;
  pauseImage: string;
  /** Set if this machine lacks CAP_SYS_RESOURCE, without which nobody may lower an OOM score. */
  restrictOomScores: boolean;
}

/** The files that are written each time the node starts, by path. A value that begins with "-> " makes a link. */
export function nodeFiles(facts: NodeFacts): Record<string, string> {
  const { cluster, node } = facts;
  const wants = "/etc/systemd/system/multi-user.target.wants";
  return {
    "/etc/hosts": `127.0.0.1 localhost\n${node.address} ${node.name}\n`,
    "/etc/cni/net.d/10-pods.conflist": json(podNetwork(node)),
    [`/etc/containerd/certs.d/${cluster.registry}/hosts.toml`]: registryHosts(cluster),
    // The node pulls what its guests pull, too, and need not do so over TLS.
    [`/etc/containerd/certs.d/${cluster.guestRegistry}/hosts.toml`]: registryHosts(cluster),
    "/etc/systemd/system/containerd.service": containerdUnit,
    "/etc/systemd/system/kubelet.service": kubeletUnit(node),
    "/etc/systemd/system/node-setup.service": nodeSetupUnit(cluster, node),
    // Pods' processes outlive containerd and may ignore SIGTERM: a restart of the node would wait 90 s for them.
    "/etc/systemd/system.conf.d/10-stop.conf": "[Manager]\nDefaultTimeoutStopSec=10s\n",
    "/etc/kubernetes/kubelet.json": json(kubeletConfiguration),
    ...Object.fromEntries(Object.entries(tunables).map(([name, value]) => [tunableFile(name), `${value}\n`])),
    [`${wants}/containerd.service`]: "-> /etc/systemd/system/containerd.service",
    [`${wants}/kubelet.service`]: "-> /etc/systemd/system/kubelet.service",
    [`${wants}/node-setup.service`]: "-> /etc/systemd/system/node-setup.service",
    // The node must not set the machine's kernel parameters or binary formats, or load modules.
    "/etc/systemd/system/systemd-sysctl.service": "-> /dev/null",
    "/etc/systemd/system/systemd-binfmt.service": "-> /dev/null",
    "/etc/systemd/system/systemd-modules-load.service": "-> /dev/null",
  };
}

const json = (value: unknown) => `${JSON.stringify(value, undefined, 2)}\n`;

/** Written once, when the node is made: from then on it belongs to the administrator, and none of its bytes are changed. */
export const containerdConfigurationFile = "/etc/containerd/config.toml";

export function containerdConfiguration(facts: NodeFacts): string {
  return facts.containerd.startsWith("1.") ? version2Configuration(facts) : version3Configuration(facts);
}

const oomScores = (facts: NodeFacts) =>
  facts.restrictOomScores
    ? "\n  # This machine may not lower OOM scores; without the next line no pod starts.\n  restrict_oom_score_adj = true"
    : "";

const configurationHead = (
  facts: NodeFacts,
  version: number,
) => `# containerd of ${facts.node.name}. Kept by the platform team; changes need a second pair of eyes.
version = ${version}

root = "/var/lib/containerd"
state = "/run/containerd"

[grpc]
  address = "/run/containerd/containerd.sock"

[debug]
  level = "info"   # "debug" fills the journal within a day
`;

const version3Configuration = (facts: NodeFacts) => `${configurationHead(facts, 3)}
# ---- images ----
[plugins."io.containerd.cri.v1.images"]
  snapshotter = "overlayfs"

[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "${facts.pauseImage}"

# mirrors and certificates: one directory per registry
[plugins."io.containerd.cri.v1.images".registry]
  config_path = "/etc/containerd/certs.d"

# ---- runtimes ----
[plugins."io.containerd.cri.v1.runtime"]
  enable_selinux = false
  max_container_log_line_size = 16384${oomScores(facts)}

  [plugins."io.containerd.cri.v1.runtime".containerd]
    default_runtime_name = "runc"

    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"

      [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
        SystemdCgroup = false   # the kubelet's cgroupDriver is cgroupfs

  [plugins."io.containerd.cri.v1.runtime".cni]
    ${facts.containerd === "2.0" ? 'bin_dir = "/usr/lib/cni"' : 'bin_dirs = ["/usr/lib/cni"]'}
    conf_dir = "/etc/cni/net.d"
`;

const version2Configuration = (facts: NodeFacts) => `${configurationHead(facts, 2)}
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "${facts.pauseImage}"
  enable_selinux = false
  max_container_log_line_size = 16384${oomScores(facts)}

# mirrors and certificates: one directory per registry
[plugins."io.containerd.grpc.v1.cri".registry]
  config_path = "/etc/containerd/certs.d"

[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "/usr/lib/cni"
  conf_dir = "/etc/cni/net.d"

[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "overlayfs"
  default_runtime_name = "runc"

# 1.x forgets its built-in "runc" as soon as another runtime is named
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
  SystemdCgroup = false   # the kubelet's cgroupDriver is cgroupfs
`;

/** Plain HTTP. 1.7 insists on a host table, even if it adds nothing to the server. */
const registryHosts = ({ registry }: ClusterLayout) => `server = "http://${registry}"

[host."http://${registry}"]
  capabilities = ["pull", "resolve"]
`;

/** The unit of containerd's own packages; its KillMode is why pods survive a restart. */
const containerdUnit = `[Unit]
Description=containerd container runtime
Documentation=https://containerd.io
After=network.target local-fs.target dbus.service node-setup.service

[Service]
ExecStart=/usr/bin/containerd
Type=notify
Delegate=yes
KillMode=process
Restart=always
RestartSec=5
LimitNPROC=infinity
LimitCORE=infinity
TasksMax=infinity
OOMScoreAdjust=-999

[Install]
WantedBy=multi-user.target
`;

const kubeletUnit = (node: NodeLayout) => `[Unit]
Description=kubelet
After=node-setup.service containerd.service
Wants=containerd.service

[Service]
ExecStart=/opt/kubernetes/kubelet --config=/etc/kubernetes/kubelet.json --kubeconfig=/etc/kubernetes/node.kubeconfig --node-ip=${node.address} --hostname-override=${node.name}
Restart=always
RestartSec=1
KillMode=process
Delegate=yes

[Install]
WantedBy=multi-user.target
`;

/**
 * Kernel parameters of the whole machine that a kubelet insists on. The node shows the kubelet these values instead of the
 * real ones, so that the machine keeps its own.
 */
const tunables = {
  "vm/overcommit_memory": 1,
  "vm/panic_on_oom": 0,
  "kernel/panic": 10,
  "kernel/panic_on_oops": 1,
  "kernel/keys/root_maxkeys": 1_000_000,
  "kernel/keys/root_maxbytes": 25_000_000,
};
const tunableFile = (name: string) => `/etc/kubernetes/tunables/${name.replaceAll("/", ".")}`;

/** There is no udev, so systemd-networkd would wait forever for the device; and nspawn leaves cgroup v1 read-only. */
const nodeSetupUnit = (cluster: ClusterLayout, node: NodeLayout) => `[Unit]
Description=Network address, writable control groups and the kubelet's kernel parameters
DefaultDependencies=no
Before=network.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -ec 'ip address replace ${node.address}/16 dev host0; ip link set host0 up; ip route replace default via ${cluster.address}'
ExecStart=/bin/sh -ec 'while read -r _ directory type _; do case $$type in cgroup|cgroup2) mount -o remount,bind,rw "$$directory";; esac; done </proc/mounts'
${Object.keys(tunables)
  .map((name) => `ExecStart=/bin/mount --bind ${tunableFile(name)} /proc/sys/${name}`)
  .join("\n")}
`;

const kubeletConfiguration = {
  apiVersion: "kubelet.config.k8s.io/v1beta1",
  kind: "KubeletConfiguration",
  authentication: {
    anonymous: { enabled: false },
    webhook: { enabled: true },
    x509: { clientCAFile: "/etc/kubernetes/ca.crt" },
  },
  authorization: { mode: "Webhook" },
  containerRuntimeEndpoint: "unix:///run/containerd/containerd.sock",
  // What containerd's runc uses, and the only driver for runtimes without options.
  cgroupDriver: "cgroupfs",
  failCgroupV1: false,
  failSwapOn: false,
  clusterDNS: [serviceAddress],
  resolvConf: "",
  makeIPTablesUtilChains: false,
  // The disk is the machine's, and may be fuller than a node's own disk would be.
  imageGCHighThresholdPercent: 100,
  evictionHard: { "memory.available": "50Mi", "nodefs.available": "1%", "imagefs.available": "1%" },
  // Rollouts wait for this, and with few nodes frequent reports cost little.
  nodeStatusUpdateFrequency: "2s",
  nodeStatusReportFrequency: "4s",
  syncFrequency: "10s",
};

export const podNetwork = (node: NodeLayout) => ({
  cniVersion: "0.4.0",
  name: "pods",
  plugins: [
    {
      type: "bridge",
      bridge: "cni0",
      isGateway: true,
      ipMasq: false,
      ipam: {
        type: "host-local",
        ranges: [[{ subnet: node.podRange }]],
        routes: [{ dst: "0.0.0.0/0" }],
      },
    },
    { type: "portmap", capabilities: { portMappings: true } },
  ],
});
