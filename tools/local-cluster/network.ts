import { mkdir, statfs, writeFile } from "node:fs/promises";
import { dirname } from "node:path";
import { check, run } from "../process/run.ts";
import { type ClusterLayout, enterNetwork, type NodeLayout, serviceAddress } from "./layout.ts";

/** The magic number of the kernel's namespace file system, which a file is on while it holds a namespace. */
const namespaceFileSystem = 0x6e736673;

export async function networkExists(cluster: ClusterLayout): Promise<boolean> {
  return (await statfs(cluster.networkNamespace).catch(() => undefined))?.type === namespaceFileSystem;
}

/**
 * One network namespace for everything, held by one of the cluster's files: a bridge in it connects control plane, registry
 * and nodes, and the machine itself sees no address, port, route or firewall rule. It has no connection to the outside.
 */
export async function ensureNetwork(cluster: ClusterLayout, nodes: NodeLayout[]): Promise<void> {
  if (!(await networkExists(cluster))) {
    await mkdir(dirname(cluster.networkNamespace), { recursive: true });
    await writeFile(cluster.networkNamespace, "");
    await check("unshare", [`--net=${cluster.networkNamespace}`, "true"]);
  }
  const script = [
    "ip link set lo up",
    "ip link show br0 >/dev/null 2>&1 || ip link add br0 type bridge",
    `ip address replace ${cluster.address}/16 dev br0`,
    `ip address replace ${serviceAddress}/32 dev lo`,
    "ip link set br0 up",
    "echo 1 >/proc/sys/net/ipv4/ip_forward",
    ...nodes.map((node) => `ip route replace ${node.podRange} via ${node.address} dev br0`),
  ];
  const [command = "", ...args] = enterNetwork(cluster.name);
  await check(command, [...args, "sh", "-ec", script.join("\n")]);
}

/** The kernel frees the namespace when its last process has ended. */
export async function removeNetwork(cluster: ClusterLayout): Promise<void> {
  while (await networkExists(cluster)) await check("umount", [cluster.networkNamespace]);
}

/** Runs a program in the cluster's network. */
export async function runInNetwork(cluster: ClusterLayout, argv: string[], input?: string) {
  const [command = "", ...args] = enterNetwork(cluster.name);
  return await run(command, [...args, ...argv], input === undefined ? {} : { input });
}
