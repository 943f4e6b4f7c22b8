import {
  aksCluster,
  type Case,
  host,
  kubeconfigCluster,
  localCluster,
  nodes,
  runtime,
  snp,
  ssh,
  stack,
  withAksNodes,
  withGroup,
  withHost,
  withNodes,
  withPool,
  withRuntime,
} from "./stacks.ts";

/*
 * Mistakes that a key has by itself. The program refuses them, and so does docs/stack.schema.json while they are typed.
 */

const missingDistribution =
  "Expected one of containerd, aks, k3s, rke2, k0s, microk8s, or a map with such a name and overrides.";

export const unknownKeys: Case[] = [
  [
    "a top-level key",
    stack({ group: {} }),
    { group: "is not a known key. Allowed here: cluster, installerImage, registry, groups. Did you mean groups?" },
  ],
  ["a group's", withGroup({ runtime: [] }), { "groups.workers.runtime": "Did you mean runtimes?" }],
  ["a group's, all unlike", withGroup({ minNodes: 2 }), { "groups.workers.minNodes": "is not a known key" }],
  ["the nodes'", withNodes({ selectors: { a: "b" } }), { [`${nodes}.selectors`]: "Did you mean selector?" }],
  [
    "the distribution's",
    withGroup({ distribution: { name: "k3s", sockt: "/x" } }),
    { "groups.workers.distribution.sockt": "Did you mean socket?" },
  ],
  [
    "one of another kind of cluster",
    stack({ cluster: { kind: "local", kubeconfig: "k" } }),
    { "cluster.kubeconfig": "is not a known key. Allowed here: kind, nodes." },
  ],
  ["a host's", withHost({ prt: 22 }), { [`${nodes}.hosts[0].prt`]: "Did you mean port?" }],
  ["a pool's", withPool({ zone: ["1"] }), { "groups.cc.nodes.pool.zone": "Did you mean zones?" }],
  [
    "ssh's",
    withNodes({ hosts: [host], ssh: { ...ssh, password: "x" } }),
    { [`${nodes}.ssh.password`]: "Allowed here: user, privateKey" },
  ],
  [
    "a toleration's",
    withGroup({ tolerations: [{ key: "a", efect: "NoExecute" }] }),
    { "groups.workers.tolerations[0].efect": "Did you mean effect?" },
  ],
  ["a runtime's", withRuntime({ payloads: "x" }), { [`${runtime}.payloads`]: "Did you mean payload?" }],
  ["an overhead's", withRuntime({ overhead: { mem: "1Gi" } }), { [`${runtime}.overhead.mem`]: "Allowed here: memory" }],
  ["the registry's", stack({ registry: { mirror: "m.example" } }), { "registry.mirror": "Allowed here: prefix" }],
  [
    "an existing cluster's",
    stack({ cluster: { ...kubeconfigCluster, context: "x" } }),
    { "cluster.context": "Allowed here: kind, name, kubeconfig" },
  ],
  ["an AKS cluster's", stack({ cluster: { ...aksCluster, region: "x" } }), { "cluster.region": "subscriptionId" }],
  [
    "a local cluster's",
    stack({ cluster: { kind: "local", node: [] }, installerImage: undefined }),
    { "cluster.node": "Did you mean nodes?" },
  ],
  ["a local node's", localCluster([{ name: "a", label: {} }]), { "cluster.nodes[0].label": "Did you mean labels?" }],
];

export const missing: Case[] = [
  [
    "the cluster",
    stack({ cluster: undefined }),
    { cluster: "is missing. Expected a map with kind: local, kubeconfig or aks." },
  ],
  [
    "the cluster's name",
    stack({ cluster: { kind: "kubeconfig" } }),
    { "cluster.name": "is missing. Expected a string." },
  ],
  ["the groups", stack({ groups: undefined }), { groups: "is missing. Expected a map of names." }],
  ["any group", stack({ groups: {} }), { groups: "must list at least one node group." }],
  [
    "the distribution",
    stack({ groups: { workers: { runtimes: [snp] } } }),
    { "groups.workers.distribution": `is missing. ${missingDistribution}` },
  ],
  [
    "the list of runtimes",
    stack({ groups: { workers: { distribution: "k3s" } } }),
    { "groups.workers.runtimes": "is missing. Expected a list." },
  ],
  [
    "a runtime's payload",
    withGroup({ runtimes: [{ platform: "local" }] }),
    { [`${runtime}.payload`]: "is missing. Expected the path of a manifest below the project." },
  ],
  [
    "a host's key",
    withHost({ hostKey: undefined }),
    {
      [`${nodes}.hosts[0].hostKey`]:
        "is missing. Expected the host's public key as in known_hosts (type and key): without it anyone in between can pose as the host.",
    },
  ],
  [
    "what stands behind keys",
    withGroup({ nodes: null, distribution: null, runtimes: [null] }),
    {
      "groups.workers.distribution": `is empty. ${missingDistribution}`,
      [nodes]: "is empty. Expected a map of keys.",
      [runtime]: "is empty. Expected a map of keys.",
    },
  ],
];

export const wrongTypes: Case[] = [
  [
    "text for a number",
    withGroup({ atOnce: "two" }),
    { "groups.workers.atOnce": '"two" is not allowed. Expected a number.' },
  ],
  [
    "half a node",
    withGroup({ minimumNodes: 1.5 }),
    { "groups.workers.minimumNodes": "1.5 is not allowed. Expected a whole number." },
  ],
  [
    "a label's value",
    withNodes({ selector: { key: true } }),
    { [`${nodes}.selector.key`]: "true is not allowed. Expected a string." },
  ],
  [
    "a secret in place of the map that it belongs in",
    withNodes({ hosts: [host], ssh: "-----BEGIN OPENSSH PRIVATE KEY-----" }),
    { [`${nodes}.ssh`]: "[secret] is not allowed. Expected a map of keys." },
  ],
  [
    "a secret that is a number",
    stack({ cluster: { ...kubeconfigCluster, kubeconfig: 7 } }),
    { "cluster.kubeconfig": "[secret] is not allowed. Expected a string." },
  ],
  [
    "a yes for a switch",
    withGroup({ loadPendingChanges: "yes" }),
    { "groups.workers.loadPendingChanges": '"yes" is not allowed. Expected true or false.' },
  ],
  [
    "a yes for another switch",
    withGroup({ verifySandbox: "yes" }),
    { "groups.workers.verifySandbox": '"yes" is not allowed. Expected true or false.' },
  ],
  [
    "a pool that does not quite exist",
    withAksNodes({ pool: { name: "cc", existing: false } }),
    { "groups.cc.nodes.pool.existing": "false is not allowed. Allowed: true." },
  ],
];

export const unknownWords: Case[] = [
  [
    "kind of cluster",
    stack({ cluster: { kind: "kubeconf" } }),
    { "cluster.kind": '"kubeconf" is not allowed. Allowed: local, kubeconfig, aks. Did you mean "kubeconfig"?' },
  ],
  [
    "platform",
    withRuntime({ platform: "metal-qemu-sno" }),
    { [`${runtime}.platform`]: 'Did you mean "metal-qemu-snp"?' },
  ],
  ["distribution", withGroup({ distribution: "rke" }), { "groups.workers.distribution.name": 'Did you mean "rke2"?' }],
  [
    "distribution that is not supported",
    withGroup({ distribution: "eks" }),
    {
      "groups.workers.distribution.name":
        '"eks" is not allowed. Allowed: containerd, aks, k3s, rke2, k0s, microk8s. Nodes of EKS run plain containerd: that is "containerd". Nobody has tried it, and a node needs a TEE of its own, as bare metal has it.',
    },
  ],
  [
    "distribution by the name of what set it up",
    withGroup({ distribution: "kubeadm" }),
    { "groups.workers.distribution.name": 'Did you mean "containerd"?' },
  ],
  ["onDestroy", withGroup({ onDestroy: "uninstal" }), { "groups.workers.onDestroy": 'Did you mean "uninstall"?' }],
  [
    "effect of a taint",
    withGroup({ tolerations: [{ key: "a", effect: "NoExec" }] }),
    {
      "groups.workers.tolerations[0].effect":
        '"NoExec" is not allowed. Allowed: NoSchedule, PreferNoSchedule, NoExecute.',
    },
  ],
  [
    "operator",
    withGroup({ tolerations: [{ key: "a", operator: "In" }] }),
    { "groups.workers.tolerations[0].operator": "Exists, Equal" },
  ],
  ["credentials", stack({ cluster: { ...aksCluster, credentials: "root" } }), { "cluster.credentials": "user, admin" }],
  [
    "acknowledgement",
    stack({ cluster: { ...aksCluster, retiredService: "yes" } }),
    { "cluster.retiredService": "acknowledged" },
  ],
  [
    "containerd of a local node",
    localCluster([{ name: "a", containerd: "1.6" }]),
    { "cluster.nodes[0].containerd": "1.7, 2.0" },
  ],
];

export const outOfRange: Case[] = [
  ["nothing at once", withGroup({ atOnce: 0 }), { "groups.workers.atOnce": "0 must be 1 or more." }],
  [
    "more at once than nodes anywhere",
    withGroup({ atOnce: 100_000 }),
    { "groups.workers.atOnce": "100000 must be at most 1000." },
  ],
  ["no patience", withGroup({ stallTimeout: 0 }), { "groups.workers.stallTimeout": "1 or more" }],
  ["fewer than no nodes", withGroup({ minimumNodes: -1 }), { "groups.workers.minimumNodes": "0 or more" }],
  ["a port", withHost({ port: 70_000 }), { [`${nodes}.hosts[0].port`]: "at most 65535" }],
  ["a pool's nodes", withPool({ count: 1001 }), { "groups.cc.nodes.pool.count": "at most 1000" }],
  ["a pool's pods", withPool({ maxPods: 9 }), { "groups.cc.nodes.pool.maxPods": "10 or more" }],
  ["no names", withNodes({ names: [] }), { [`${nodes}.names`]: "[] must list at least one node." }],
  ["no hosts", withNodes({ hosts: [], ssh }), { [`${nodes}.hosts`]: "[] must list at least one host." }],
  ["no zones", withPool({ zones: [] }), { "groups.cc.nodes.pool.zones": "[] must list at least one zone." }],
  [
    "a zone twice",
    withPool({ zones: ["1", "1"] }),
    { "groups.cc.nodes.pool.zones": '["1","1"] must not list a zone twice.' },
  ],
  ["no label", withNodes({ selector: {} }), { [`${nodes}.selector`]: "{} must name at least one label." }],
  ["no local node", localCluster([]), { "cluster.nodes": "[] must list at least one node." }],
  [
    "more local nodes than fit",
    localCluster(Array.from({ length: 51 }, (_, i) => ({ name: `n${i}` }))),
    { "cluster.nodes": "must list at most 50 nodes" },
  ],
];

/** Values that must be encrypted, and are not. */
export const plainSecrets: Case[] = [
  [
    "kubeconfig",
    stack({ cluster: { ...kubeconfigCluster, kubeconfig: "apiVersion: v1" } }),
    {
      "cluster.kubeconfig":
        "is a secret in plain text. Encrypt it: pulumi config set --secret --path 'cluster.kubeconfig'.",
    },
  ],
  [
    "private key",
    withNodes({ hosts: [host], ssh }),
    { [`${nodes}.ssh.privateKey`]: "--path 'groups.workers.nodes.ssh.privateKey'" },
  ],
  [
    "join command",
    withNodes({ hosts: [host], ssh, joinCommand: "x" }),
    { [`${nodes}.ssh.privateKey`]: "plain text", [`${nodes}.joinCommand`]: "plain text" },
  ],
  ["pull secret", stack({ registry: { pullSecret: '{"auths": {}}' } }), { "registry.pullSecret": "plain text" }],
];

/** Mistakes that are seen only where nothing of the entry is encrypted; else they could be secrets in the wrong place. */
export const inPlainEntries: Case[] = [
  [
    "a word for the cluster",
    stack({ cluster: "local" }),
    { cluster: '"local" is not allowed. Expected a map with kind: local, kubeconfig or aks.' },
  ],
  [
    "a map of runtimes",
    withGroup({ runtimes: {} }),
    { "groups.workers.runtimes": "{} is not allowed. Expected a list." },
  ],
];
