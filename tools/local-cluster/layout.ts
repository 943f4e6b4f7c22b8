import { join } from "node:path";
import { sha256 } from "../../runtime/canonical.ts";
import { localNetworkVariable } from "../../runtime/names.ts";

/** Where all local clusters of this machine keep their state. */
export const clustersDirectory = "/var/lib/contrast-runtime-clusters";

/**
 * Every name, path and address of a cluster, derived from its own name only. So everything can be found, repaired and
 * removed by the cluster's name, whatever was interrupted and whatever record was lost.
 */
export interface ClusterLayout {
  name: string;
  directory: string;
  /** The file that holds the network namespace. */
  networkNamespace: string;
  /** Below each cgroup hierarchy: the group below which all of the cluster's processes are, and no others. */
  cgroup: string;
  /** The control plane's address on the bridge that connects the nodes. Nothing outside the namespace sees it. */
  address: string;
  server: string;
  registry: string;
  /** The same images over TLS, for guests that pull by themselves: none of them accepts plain HTTP. */
  guestRegistry: string;
  /** The first two bytes of the nodes' and of the pods' addresses. */
  nodePrefix: string;
  podPrefix: string;
}

/** The API server's address for pods. It is on the namespace's own loopback, so that no kube-proxy is needed. */
export const serviceAddress = "10.96.0.1";
export const serviceRange = "10.96.0.0/16";

export function clusterLayout(name: string): ClusterLayout {
  const spread = Number.parseInt(sha256(name).slice(0, 2), 16) % 60;
  const directory = join(clustersDirectory, name);
  const nodePrefix = `10.${100 + spread}`;
  const address = `${nodePrefix}.0.1`;
  return {
    name,
    directory,
    networkNamespace: join(directory, "network-namespace"),
    cgroup: `contrast-runtime-${name}`,
    address,
    server: `https://${address}:443`,
    registry: `${address}:5000`,
    guestRegistry: `${address}:5443`,
    nodePrefix,
    podPrefix: `10.${180 + spread}`,
  };
}

export interface NodeLayout {
  name: string;
  directory: string;
  /** The name of its processes' group and of its log. */
  unit: string;
  /** What systemd-nspawn calls the machine: unique on this host. */
  machine: string;
  address: string;
  /** The node's own share of the pods' addresses. */
  podRange: string;
  /** Stable across reboots, as a real machine's is. */
  uuid: string;
}

/** @param number 2..250, different for each node of a cluster */
export function nodeLayout(cluster: ClusterLayout, node: { name: string; number: number }): NodeLayout {
  const uuid = sha256(`${cluster.name}/${node.name}`);
  return {
    name: node.name,
    directory: join(cluster.directory, "nodes", node.name),
    unit: `node-${node.name}`,
    machine: machineName(`${cluster.cgroup}-${node.name}`),
    address: `${cluster.nodePrefix}.0.${node.number}`,
    podRange: `${cluster.podPrefix}.${node.number}.0/24`,
    uuid: `${uuid.slice(0, 8)}-${uuid.slice(8, 12)}-4${uuid.slice(13, 16)}-8${uuid.slice(17, 20)}-${uuid.slice(20, 32)}`,
  };
}

/** A host name has at most 64 characters. */
const machineName = (name: string) => (name.length <= 64 ? name : `${name.slice(0, 55)}-${sha256(name).slice(0, 8)}`);

const proxyVariables = ["http_proxy", "https_proxy", "all_proxy"].flatMap((name) => [name, name.toUpperCase()]);

/** The words to put before a command to run it in the cluster's network, without proxies, and told where it is. */
export const enterNetwork = (name: string): string[] => [
  ...["nsenter", `--net=${clusterLayout(name).networkNamespace}`, "--"],
  ...["env", ...proxyVariables.map((variable) => `--unset=${variable}`), `${localNetworkVariable}=${name}`],
];
