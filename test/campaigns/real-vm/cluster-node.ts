import { copyFile, cp } from "node:fs/promises";
import { join } from "node:path";
import type { ContainerdVersion } from "../../../runtime/containerd-versions.ts";
import { authorityFile, nodeCredentials } from "../../../tools/local-cluster/certificates.ts";
import { type ClusterLayout, nodeLayout } from "../../../tools/local-cluster/layout.ts";
import { runInNetwork } from "../../../tools/local-cluster/network.ts";
import {
  containerdConfiguration,
  containerdConfigurationFile,
  nodeFiles,
} from "../../../tools/local-cluster/node-files.ts";
import { writeNodeFile } from "../../../tools/local-cluster/node-machine.ts";

const kubeletFile = "/etc/kubernetes/kubelet.json";
/** An emulated VM takes minutes to start; and so often is also how long the API server may take to answer. */
const patience = {
  runtimeRequestTimeout: "30m",
  nodeStatusUpdateFrequency: "20s",
  nodeStatusReportFrequency: "20s",
};
/** Higher than those that a cluster gives to its own nodes. */
const number = 240;

/** The outer machine as a node of a local cluster, which knows nothing of it until its kubelet registers itself. */
export interface OuterNode {
  cluster: ClusterLayout;
  name: string;
  containerd: ContainerdVersion;
  pauseImage: string;
  /** Directory of the Kubernetes programs. */
  kubernetes: string;
}

/** The files that lie over the machine's tree: those of the cluster's other nodes, and the kubelet. */
export async function writeNode(options: OuterNode, layer: string): Promise<void> {
  const { cluster, name, containerd, pauseImage, kubernetes } = options;
  const node = nodeLayout(cluster, { name, number });
  const facts = { cluster, node, containerd, pauseImage, restrictOomScores: false };
  const { [kubeletFile]: kubelet = "{}", ...files } = nodeFiles(facts);
  // It is a whole machine, with modules and kernel parameters of its own.
  for (const [path, content] of Object.entries(files))
    if (content !== "-> /dev/null") await writeNodeFile(layer, path, content);
  const configuration: object = JSON.parse(kubelet);
  await writeNodeFile(layer, kubeletFile, JSON.stringify({ ...configuration, ...patience }));
  await writeNodeFile(layer, containerdConfigurationFile, containerdConfiguration(facts));
  await writeNodeFile(layer, "/etc/hostname", `${name}\n`);
  const wait = "[Service]\nExecStartPre=/bin/sh -c 'until [ -e /sys/class/net/host0 ]; do sleep 1; done'\n";
  await writeNodeFile(layer, "/etc/systemd/system/node-setup.service.d/10-device.conf", wait);
  const secrets = join(layer, "etc/kubernetes");
  await nodeCredentials(cluster, secrets, name);
  await copyFile(authorityFile(cluster), join(secrets, "ca.crt"));
  // One program by several names.
  await cp(kubernetes, join(layer, "opt/kubernetes"), { recursive: true, verbatimSymlinks: true });
  await runInNetwork(cluster, ["ip", "route", "replace", node.podRange, "via", node.address, "dev", "br0"]);
}
