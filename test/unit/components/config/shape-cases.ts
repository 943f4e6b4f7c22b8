import {
  aksCluster,
  type Case,
  digest,
  group,
  host,
  kubeconfigCluster,
  localCluster,
  snp,
  ssh,
  stack,
  withAksNodes,
  withGroup,
  withPool,
} from "./stacks.ts";

/*
 * Mistakes that a key has by itself. The program refuses them, and so does docs/stack.schema.json while they are typed.
 */

const missingDistribution =
  "Expected one of containerd, aks, k3s, rke2, k0s, microk8s, or a map with such a name and overrides.";
const nodeKeys = (changes: object) => withGroup({ nodes: changes });
const hostWith = (changes: object) => nodeKeys({ hosts: [{ ...host, ...changes }], ssh });
const runtimeWith = (changes: object) => withGroup({ runtimes: [{ ...snp, ...changes }] });
const nodes = "groups.workers.nodes";
const runtime = "groups.workers.runtimes[0]";

export const unknownKeys: Case[] = [
  [
    "a top-level key",
    stack({ group: {} }),
    { group: "is not a known key. Allowed here: cluster, installerImage, registry, groups. Did you mean groups?" },
  ],
  ["a group's", withGroup({ runtime: [] }), { "groups.workers.runtime": "Did you mean runtimes?" }],
  ["a group's, all unlike", withGroup({ minNodes: 2 }), { "groups.workers.minNodes": "is not a known key" }],
  ["the nodes'", nodeKeys({ selectors: { a: "b" } }), { [`${nodes}.selectors`]: "Did you mean selector?" }],
  [
    "the distribution's",
    withGroup({ distribution: { name: "k3s", sockt: "/x" } }),
    { "groups.workers.distribution.sockt": "Did you mean socket?" },
  ],
  [
    "one of another kind of cluster",
    stack({ cluster: { kind: "yaml", directory: "manifests", kubeconfig: "k" } }),
    { "cluster.kubeconfig": "is not a known key. Allowed here: kind, directory." },
  ],
];

export const missing: Case[] = [
  [
    "the cluster",
    stack({ cluster: undefined }),
    { cluster: "is missing. Expected a map with kind: local, kubeconfig, aks or yaml." },
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
    hostWith({ hostKey: undefined }),
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
    nodeKeys({ selector: { key: true } }),
    { [`${nodes}.selector.key`]: "true is not allowed. Expected a string." },
  ],
  [
    "a secret in place of the map that it belongs in",
    nodeKeys({ hosts: [host], ssh: "-----BEGIN OPENSSH PRIVATE KEY-----" }),
    { [`${nodes}.ssh`]: "[secret] is not allowed. Expected a map of keys." },
  ],
  [
    "a secret that is a number",
    stack({ cluster: { ...kubeconfigCluster, kubeconfig: 7 } }),
    { "cluster.kubeconfig": "[secret] is not allowed. Expected a string." },
  ],
  [
    "a yes for a switch",
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
    { "cluster.kind": '"kubeconf" is not allowed. Allowed: local, kubeconfig, aks, yaml. Did you mean "kubeconfig"?' },
  ],
  [
    "platform",
    runtimeWith({ platform: "metal-qemu-sno" }),
    { [`${runtime}.platform`]: 'Did you mean "metal-qemu-snp"?' },
  ],
  ["distribution", withGroup({ distribution: "rke" }), { "groups.workers.distribution.name": 'Did you mean "rke2"?' }],
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
  ["a port", hostWith({ port: 70_000 }), { [`${nodes}.hosts[0].port`]: "at most 65535" }],
  ["a pool's nodes", withPool({ count: 1001 }), { "groups.cc.nodes.pool.count": "at most 1000" }],
  ["a pool's pods", withPool({ maxPods: 9 }), { "groups.cc.nodes.pool.maxPods": "10 or more" }],
  ["no names", nodeKeys({ names: [] }), { [`${nodes}.names`]: "[] must list at least one node." }],
  ["no hosts", nodeKeys({ hosts: [], ssh }), { [`${nodes}.hosts`]: "[] must list at least one host." }],
  ["no zones", withPool({ zones: [] }), { "groups.cc.nodes.pool.zones": "[] must list at least one zone." }],
  [
    "a zone twice",
    withPool({ zones: ["1", "1"] }),
    { "groups.cc.nodes.pool.zones": '["1","1"] must not list a zone twice.' },
  ],
  ["no label", nodeKeys({ selector: {} }), { [`${nodes}.selector`]: "{} must name at least one label." }],
  ["no local node", localCluster([]), { "cluster.nodes": "[] must list at least one node." }],
  [
    "more local nodes than fit",
    localCluster(Array.from({ length: 51 }, (_, i) => ({ name: `n${i}` }))),
    { "cluster.nodes": "must list at most 50 nodes" },
  ],
];

export const malformed: Case[] = [
  [
    "group's name",
    stack({ groups: { Workers: group() } }),
    {
      "groups.Workers":
        'the name "Workers" must be lower-case letters, digits and inner dashes, beginning with a letter, at most 40 characters.',
    },
  ],
  ["cluster's name", stack({ cluster: { ...kubeconfigCluster, name: "Prod" } }), { "cluster.name": "at most 40" }],
  ["local node's name", localCluster([{ name: "a_b" }]), { "cluster.nodes[0].name": "at most 40" }],
  [
    "subscription",
    stack({ cluster: { ...aksCluster, subscriptionId: "x" } }),
    { "cluster.subscriptionId": '"x" must be a subscription\'s id, such as 00000000-0000-0000-0000-000000000000.' },
  ],
  [
    "resource group",
    stack({ cluster: { ...aksCluster, resourceGroup: "rg." } }),
    { "cluster.resourceGroup": "no dot at the end" },
  ],
  [
    "AKS cluster",
    stack({ cluster: { ...aksCluster, name: "-c" } }),
    { "cluster.name": "must be an AKS cluster's name" },
  ],
  [
    "directory, outside of the project",
    stack({ cluster: { kind: "yaml", directory: "../manifests" } }),
    { "cluster.directory": '"../manifests" must be a directory below the project, such as manifests/prod.' },
  ],
  [
    "mirror, with a scheme",
    stack({ registry: { prefix: "https://m" } }),
    { "registry.prefix": '"https://m" must be host[:port][/path] without a scheme, the host with a dot or a port.' },
  ],
  [
    "mirror that is not a host",
    stack({ registry: { prefix: "mirror/apps" } }),
    { "registry.prefix": "the host with a dot" },
  ],
  [
    "CA",
    stack({ registry: { ca: "x" } }),
    {
      "registry.ca":
        '"x" has no certificate. Expected certificates of authorities in PEM (BEGIN CERTIFICATE … END CERTIFICATE).',
    },
  ],
  [
    "path on the nodes",
    withGroup({ distribution: { name: "k3s", socket: "run/x" } }),
    {
      "groups.workers.distribution.socket":
        '"run/x" must be an absolute path without . or .. segments, quotes, backslashes and control characters.',
    },
  ],
  [
    "path with segments that lead out",
    withGroup({ distribution: { name: "k3s", configPath: "/a/../b" } }),
    { "groups.workers.distribution.configPath": "must be an absolute path" },
  ],
  [
    "unit",
    withGroup({ distribution: { name: "k3s", unit: "--now" } }),
    { "groups.workers.distribution.unit": "must be the name of a systemd service" },
  ],
  [
    "containerd's version",
    withGroup({ distribution: { name: "k3s", containerdVersion: "2.1" } }),
    { "groups.workers.distribution.containerdVersion": '"2.1" must be a version such as 2.1.4.' },
  ],
  [
    "node's name",
    nodeKeys({ names: ["N1"] }),
    {
      [`${nodes}.names[0]`]:
        '"N1" must be a node\'s name: at most 253 lower-case letters, digits, inner dots and dashes.',
    },
  ],
  [
    "ignored node's name",
    withGroup({ ignoreNodes: ["n 1"] }),
    { "groups.workers.ignoreNodes[0]": "must be a node's name" },
  ],
  ["host's name", hostWith({ name: "n;1" }), { [`${nodes}.hosts[0].name`]: "must be a node's name" }],
  [
    "address",
    hostWith({ address: "-oProxyCommand=x" }),
    { [`${nodes}.hosts[0].address`]: '"-oProxyCommand=x" must be a host name or an IP address.' },
  ],
  [
    "host key, of a type that the plugin does not accept",
    hostWith({ hostKey: "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABgQC7" }),
    {
      [`${nodes}.hosts[0].hostKey`]:
        '"ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABgQC7" must be type and key as in known_hosts, the type one of ssh-ed25519, ecdsa-sha2-nistp256, ecdsa-sha2-nistp384, ecdsa-sha2-nistp521.',
    },
  ],
  [
    "host key, of another type than it says",
    hostWith({ hostKey: "ssh-ed25519 AAAAB3NzaC1yc2EAAAADAQABAAABgQC7" }),
    { [`${nodes}.hosts[0].hostKey`]: "must be type and key" },
  ],
  [
    "host key, with its comment",
    hostWith({ hostKey: `${host.hostKey} me@home` }),
    { [`${nodes}.hosts[0].hostKey`]: "must be type and key" },
  ],
  [
    "host key that is only a type",
    hostWith({ hostKey: "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5" }),
    { [`${nodes}.hosts[0].hostKey`]: "must be type and key" },
  ],
  [
    "user",
    nodeKeys({ hosts: [host], ssh: { ...ssh, user: "a b" } }),
    { [`${nodes}.ssh.user`]: "must be a user's name" },
  ],
  [
    "label",
    nodeKeys({ selector: { "bad key": "y" } }),
    { [`${nodes}.selector.bad key`]: '"bad key" must be a valid label key.' },
  ],
  [
    "label's value",
    nodeKeys({ selector: { key: "bad value" } }),
    { [`${nodes}.selector.key`]: '"bad value" must be a valid label value.' },
  ],
  [
    "taint's key",
    withGroup({ tolerations: [{ key: "a b" }] }),
    { "groups.workers.tolerations[0].key": '"a b" must be a valid taint key.' },
  ],
  [
    "taint's value",
    withGroup({ tolerations: [{ key: "a", value: "b c" }] }),
    { "groups.workers.tolerations[0].value": "label value" },
  ],
  [
    "priority class",
    withGroup({ priorityClass: "Very High" }),
    { "groups.workers.priorityClass": '"Very High" must be a PriorityClass\'s name.' },
  ],
  [
    "memory",
    runtimeWith({ overhead: { memory: "1 Gi" } }),
    { [`${runtime}.overhead.memory`]: '"1 Gi" must be an amount of memory such as "512Mi".' },
  ],
  [
    "CPUs",
    runtimeWith({ overhead: { cpu: "1 core" } }),
    { [`${runtime}.overhead.cpu`]: '"1 core" must be a number of CPUs such as "250m" or "1.5".' },
  ],
  ["payload", runtimeWith({ payload: "" }), { [`${runtime}.payload`]: '"" must be the path of a manifest.' }],
  [
    "pool's name",
    withAksNodes({ pool: { name: "Conf-Pool", existing: true } }),
    {
      "groups.cc.nodes.pool.name":
        '"Conf-Pool" must be lower-case letters and digits, at most 12, beginning with a letter.',
    },
  ],
  [
    "VM size",
    withPool({ vmSize: "DC4" }),
    { "groups.cc.nodes.pool.vmSize": '"DC4" must be a VM size such as Standard_DC4as_cc_v5.' },
  ],
  [
    "zone",
    withPool({ zones: ["westeurope-1"] }),
    { "groups.cc.nodes.pool.zones[0]": '"westeurope-1" must be the number of an availability zone, such as "1".' },
  ],
];

const notAReference =
  'must be registry/repository@sha256:<64 hex digits>, or "local" for the image that `npm run image` built.';

export const images: Case[] = [
  [
    "by tag",
    stack({ installerImage: "ghcr.io/e/c:v1" }),
    {
      installerImage:
        '"ghcr.io/e/c:v1" names an image by tag, which may be a different image tomorrow: must end in @sha256:<64 hex digits>.',
    },
  ],
  ["that is not a reference", stack({ installerImage: "Foo" }), { installerImage: `"Foo" ${notAReference}` }],
  [
    "with a short digest",
    stack({ installerImage: "ghcr.io/e/c@sha256:abc" }),
    { installerImage: notAReference.slice(0, 60) },
  ],
  [
    "without its registry, which a mirror would have to replace",
    stack({ installerImage: `edgeless/installer@${digest}` }),
    {
      installerImage: `"edgeless/installer@${digest}" does not say which registry: must begin with a host, such as docker.io/.`,
    },
  ],
  [
    "by tag and digest",
    stack({ installerImage: `localhost:5000/e/c:v1@${digest}` }),
    {
      installerImage: `"localhost:5000/e/c:v1@${digest}" has a tag besides the digest, which alone counts: leave out the tag.`,
    },
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
    nodeKeys({ hosts: [host], ssh }),
    { [`${nodes}.ssh.privateKey`]: "--path 'groups.workers.nodes.ssh.privateKey'" },
  ],
  [
    "join command",
    nodeKeys({ hosts: [host], ssh, joinCommand: "x" }),
    { [`${nodes}.ssh.privateKey`]: "plain text", [`${nodes}.joinCommand`]: "plain text" },
  ],
  ["pull secret", stack({ registry: { pullSecret: '{"auths": {}}' } }), { "registry.pullSecret": "plain text" }],
];

/** Mistakes that are seen only where nothing of the entry is encrypted; else they could be secrets in the wrong place. */
export const inPlainEntries: Case[] = [
  [
    "a word for the cluster",
    stack({ cluster: "local" }),
    { cluster: '"local" is not allowed. Expected a map with kind: local, kubeconfig, aks or yaml.' },
  ],
  [
    "a map of runtimes",
    withGroup({ runtimes: {} }),
    { "groups.workers.runtimes": "{} is not allowed. Expected a list." },
  ],
];
