import {
  aksCluster,
  type Case,
  digest,
  group,
  host,
  kubeconfigCluster,
  localCluster,
  nodes,
  runtime,
  ssh,
  stack,
  withAksNodes,
  withGroup,
  withHost,
  withNodes,
  withPool,
  withRuntime,
} from "./stacks.ts";

/* Values of the right type that are not what they should be. Like those in shape-cases.ts, the schema refuses them, too. */

const many = Array.from({ length: 1_001 }, (_, index) => `n${index}`);

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
    "more nodes than the engine can hand on",
    withNodes({ names: many }),
    {
      [`${nodes}.names`]: `${JSON.stringify(many).slice(0, 117)}… must list at most 1000 nodes, because Linux takes 128 KiB as a variable, in which a program gets its configuration: give more of them a label, and select them by it.`,
    },
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
    { "groups.workers.distribution.unit": 'must be the name of a systemd service, with ".service" at its end' },
  ],
  [
    "containerd's version",
    withGroup({ distribution: { name: "k3s", containerdVersion: "2.1" } }),
    { "groups.workers.distribution.containerdVersion": '"2.1" must be a version such as 1.7.24 or 2.2.9.' },
  ],
  [
    "node's name",
    withNodes({ names: ["N1"] }),
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
  ["host's name", withHost({ name: "n;1" }), { [`${nodes}.hosts[0].name`]: "must be a node's name" }],
  [
    "address",
    withHost({ address: "-oProxyCommand=x" }),
    { [`${nodes}.hosts[0].address`]: '"-oProxyCommand=x" must be a host name or an IP address.' },
  ],
  [
    "host key, of a type that the plugin does not accept",
    withHost({ hostKey: "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABgQC7" }),
    {
      [`${nodes}.hosts[0].hostKey`]:
        '"ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABgQC7" must be type and key as in known_hosts, the type one of ssh-ed25519, ecdsa-sha2-nistp256, ecdsa-sha2-nistp384, ecdsa-sha2-nistp521.',
    },
  ],
  [
    "host key, of another type than it says",
    withHost({ hostKey: "ssh-ed25519 AAAAB3NzaC1yc2EAAAADAQABAAABgQC7" }),
    { [`${nodes}.hosts[0].hostKey`]: "must be the whole key: what follows ssh-ed25519 is not one" },
  ],
  ...[
    host.hostKey.slice(0, -4),
    host.hostKey.slice(0, -1),
    `${host.hostKey}AAAA`,
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5",
    host.hostKey.replace("ssh-ed25519", "ecdsa-sha2-nistp256"),
  ].map(
    (hostKey): Case => [
      `host key that is not a whole one: ${hostKey}`,
      withHost({ hostKey }),
      { [`${nodes}.hosts[0].hostKey`]: "must be the whole key" },
    ],
  ),
  ...(
    [
      ["SHA256:uNiVztksCsDhcc0u9e8BrtZpo3w7VoD9WyqQfIbH7ug", "is a fingerprint"],
      ["256 SHA256:uNiVztksCsDhcc0u9e8BrtZpo3w7VoD9WyqQfIbH7ug root@node-1 (ED25519)", "ssh-keyscan -t ed25519"],
      [`@cert-authority * ${host.hostKey}`, "must be the host's own key"],
      [`${host.hostKey}\n${host.hostKey}`, "must be one key, on one line"],
      [host.hostKey.replace("ssh-ed25519 ", ""), "must be type and key"],
    ] as const
  ).map(
    ([hostKey, message]): Case => [
      `host key in a form that is none: ${hostKey}`,
      withHost({ hostKey }),
      { [`${nodes}.hosts[0].hostKey`]: message },
    ],
  ),
  [
    "user",
    withNodes({ hosts: [host], ssh: { ...ssh, user: "a b" } }),
    { [`${nodes}.ssh.user`]: "must be a user's name" },
  ],
  [
    "label",
    withNodes({ selector: { "bad key": "y" } }),
    { [`${nodes}.selector.bad key`]: '"bad key" must be a valid label key.' },
  ],
  [
    "label's value",
    withNodes({ selector: { key: "bad value" } }),
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
    "startup taint",
    withGroup({ startupTaint: "not ready" }),
    { "groups.workers.startupTaint": '"not ready" must be a valid taint key.' },
  ],
  [
    "startup taint of Kubernetes",
    withGroup({ startupTaint: "node.kubernetes.io/unreachable" }),
    {
      "groups.workers.startupTaint":
        '"node.kubernetes.io/unreachable" is a taint of Kubernetes itself, which says what is wrong with a node. Use a key of your own domain, or one with the prefix startup-taint.cluster-autoscaler.kubernetes.io/.',
    },
  ],
  [
    "installer's label",
    withGroup({ installerPod: { labels: { "a b": "c" } } }),
    { "groups.workers.installerPod.labels.a b": '"a b" must be a valid label key.' },
  ],
  [
    "installer's annotation",
    withGroup({ installerPod: { annotations: { "a b": "c" } } }),
    { "groups.workers.installerPod.annotations.a b": '"a b" must be a valid annotation key.' },
  ],
  [
    "installer's memory",
    withGroup({ installerPod: { requests: { memory: "lots" } } }),
    { "groups.workers.installerPod.requests.memory": '"lots" must be an amount of memory such as "512Mi".' },
  ],
  [
    "memory",
    withRuntime({ overhead: { memory: "1 Gi" } }),
    { [`${runtime}.overhead.memory`]: '"1 Gi" must be an amount of memory such as "512Mi".' },
  ],
  [
    "CPUs",
    withRuntime({ overhead: { cpu: "1 core" } }),
    { [`${runtime}.overhead.cpu`]: '"1 core" must be a number of CPUs such as "250m" or "1.5".' },
  ],
  ["payload", withRuntime({ payload: "" }), { [`${runtime}.payload`]: '"" must be the path of a manifest.' }],
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
