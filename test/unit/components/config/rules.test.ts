import { describe, expect, test } from "vitest";
import { certificate } from "../../../fixtures/certificates.ts";
import {
  aksCluster,
  aksSnp,
  type Case,
  expectMistakes,
  group,
  host,
  localCluster,
  manifest,
  mistakesIn,
  nodes,
  snp,
  ssh,
  stack,
  withAksNodes,
  withGroup,
  withGroups,
  withHost,
  withNodes,
  withPool,
} from "./stacks.ts";

const aksGroups = (groups: Record<string, object>) =>
  stack({
    cluster: aksCluster,
    groups: Object.fromEntries(
      Object.entries(groups).map(([name, changes]) => [name, { distribution: "aks", runtimes: [], ...changes }]),
    ),
  });
const existing = { pool: { name: "cc", existing: true } };

const ofTheStack: Case[] = [
  [
    "a proof with a GPU, of which the kubelet knows nothing",
    withGroup({ runtimes: [{ ...snp, platform: "metal-qemu-snp-gpu" }], verifySandbox: true }),
    {
      "groups.workers.verifySandbox":
        "cannot pass with metal-qemu-snp-gpu: Kata asks the kubelet for the GPUs of each pod, and the kubelet does not know the proof's. Remove it; runtimes without a GPU can keep it in a group with nodes of their own.",
    },
  ],
  [
    "a proof that may take longer than its rollout waits",
    withGroup({ runtimes: [{ ...snp, kata: { agent: { dial_timeout: 900 } } }], verifySandbox: true }),
    {
      "groups.workers.stallTimeout":
        "600 is less than the 960 seconds that the proof of runtimes[0] may take, as its kata.agent says: a rollout would give up while the guest starts. Set 960 or more.",
    },
  ],
  [
    "the local image elsewhere",
    stack({ installerImage: "local" }),
    {
      installerImage:
        '"local" is an image for local clusters only. With cluster.kind kubeconfig, name an image by digest: registry/repository@sha256:<64 hex digits>.',
    },
  ],
  [
    "a mirror of the local image",
    { ...localCluster(), registry: { prefix: "mirror.example" } },
    { "registry.prefix": 'has no effect on the image "local". Remove it, or name installerImage by digest.' },
  ],
  [
    "a CA that reaches no node",
    stack({ registry: { ca: certificate("authority") } }),
    {
      "registry.ca":
        "reaches nodes by SSH only, and no group has nodes.hosts. Let the nodes' own set-up trust it, and remove it here.",
    },
  ],
  [
    "a pull secret that no kubelet reads",
    stack({ registry: { pullSecret: "x" } }),
    {
      "registry.pullSecret":
        '[secret] must be the content of a .dockerconfigjson: {"auths": {"<registry>": {"auth": …}}}.',
    },
  ],
  ["a pull secret: 7", stack({ registry: { pullSecret: "7" } }), { "registry.pullSecret": ".dockerconfigjson" }],
  [
    "manifests, which another command writes by now",
    stack({ cluster: { kind: "yaml", directory: "manifests" } }),
    {
      "cluster.kind":
        '"yaml" is no longer there. The same objects are written by contrast-runtime render --stack Pulumi.STACK.yaml --output DIR: ' +
        "commit that directory, have it applied in place of the old one, and forget the stack's state: pulumi stack rm --force.",
    },
  ],
];

const ofNodes: Case[] = [
  [
    "two ways to say which",
    withNodes({ names: ["a"], selector: { x: "y" } }),
    { [nodes]: "has selector and names. Allowed: one of selector, names, hosts, pool." },
  ],
  [
    "hosts without a way to them",
    withNodes({ hosts: [host] }),
    { [`${nodes}.ssh`]: "is missing. Expected the user and privateKey with which hosts are reached." },
  ],
  ["a way to no hosts", withNodes({ ssh }), { [`${nodes}.ssh`]: "has no effect without nodes.hosts. Remove it." }],
  [
    "a join command for no hosts",
    withNodes({ joinCommand: "x" }),
    { [`${nodes}.joinCommand`]: "has no effect without nodes.hosts" },
  ],
  [
    "hosts on AKS",
    aksGroups({ workers: { nodes: { hosts: [host], ssh } } }),
    {
      [`${nodes}.hosts`]:
        "are reached by SSH, and with cluster.kind aks nodes are not ours to set up. Use selector or names.",
    },
  ],
  [
    "a handler's label as selector: no installer would ever come",
    withNodes({ selector: { "runtime.contrast.edgeless.systems/x": "true" } }),
    {
      [`${nodes}.selector.runtime.contrast.edgeless.systems/x`]:
        "is a label that a node's installer sets once the node serves the handler, and pods follow it there. Remove it.",
    },
  ],
  [
    "a handler's label on a pool: pods would come before the node serves",
    withPool({ labels: { "runtime.contrast.edgeless.systems/contrast-cc-aks-clh-snp-0a1b2c3d": "true" } }),
    {
      "groups.cc.nodes.pool.labels.runtime.contrast.edgeless.systems/contrast-cc-aks-clh-snp-0a1b2c3d":
        "is a label that a node's installer sets",
    },
  ],
  [
    "a label that Azure refuses",
    withPool({ labels: { "kubernetes.azure.com/mode": "cc" } }),
    {
      "groups.cc.nodes.pool.labels.kubernetes.azure.com/mode":
        "is in a prefix that AKS keeps for itself, and Azure refuses it. Remove it.",
    },
  ],
  [
    "a pool elsewhere",
    withNodes({ pool: { name: "cc" } }),
    { [`${nodes}.pool`]: "is an AKS node pool, and cluster.kind is kubeconfig. Use selector, names or hosts." },
  ],
  [
    "a new pool of the retired service",
    withAksNodes({ pool: { name: "cc", vmSize: "Standard_DC4as_cc_v5", count: 2 } }),
    {
      "groups.cc.nodes.pool": "neither of which needs this program: docs/aks.md",
    },
  ],
  [
    "a new pool without size and count",
    withPool({ vmSize: undefined, count: undefined }),
    {
      "groups.cc.nodes.pool.vmSize":
        "is missing. Expected a size that runs SNP guests, such as Standard_DC4as_cc_v5, or existing: true.",
      "groups.cc.nodes.pool.count": "is missing. Expected the pool's number of nodes, or existing: true.",
    },
  ],
  ...Object.entries({
    vmSize: "Standard_DC4as_cc_v5",
    count: 3,
    zones: ["1"],
    maxPods: 30,
    labels: { a: "b" },
  }).map(
    ([key, value]): Case => [
      `an existing pool with ${key}`,
      withAksNodes({ pool: { name: "cc", existing: true, [key]: value } }),
      {
        [`groups.cc.nodes.pool.${key}`]:
          "has no effect on an existing pool, which is used as it is. Remove it, or remove existing.",
      },
    ],
  ),
];

const ofAGroup: Case[] = [
  [
    "another distribution on AKS",
    aksGroups({ w: { distribution: "containerd", runtimes: [aksSnp] } }),
    {
      "groups.w.distribution.name":
        '"containerd" is not how the nodes of an AKS cluster run containerd. Allowed with cluster.kind aks: aks.',
    },
  ],
  [
    "a containerd that is too old",
    withGroup({ distribution: { name: "containerd", containerdVersion: "1.6.20" } }),
    {
      "groups.workers.distribution.containerdVersion":
        '"1.6.20" is out of support and ignores where a runtime\'s shim is. Allowed: 1.7.0 and later.',
    },
  ],
  [
    "two kinds of processor",
    withGroup({ runtimes: [snp, { ...snp, platform: "metal-qemu-tdx" }] }),
    { "groups.workers.runtimes": "need SNP and TDX, which no processor has together. Make a group for each." },
  ],
  [
    "keys that no node advertises",
    withGroup({ runtimes: [{ platform: "local", payload: manifest("local"), overhead: { teeKeys: true } }] }),
    {
      "groups.workers.runtimes[0].overhead.teeKeys": 'has no effect: nodes of "local" advertise no keys. Remove it.',
    },
  ],
  [
    "a platform of AKS elsewhere",
    withGroup({ runtimes: [aksSnp] }),
    {
      "groups.workers.runtimes[0].platform":
        '"aks-clh-snp" runs on AKS only, and the group\'s distribution is "containerd". Allowed here: metal-qemu-snp, metal-qemu-tdx, metal-qemu-snp-gpu, metal-qemu-tdx-gpu, metal-qemu-insecure, local.',
    },
  ],
  [
    "a platform of bare metal on AKS",
    aksGroups({ w: { runtimes: [snp] } }),
    {
      "groups.w.runtimes[0].platform":
        '"metal-qemu-snp" needs /dev/kvm, which AKS nodes do not have. Allowed here: aks-clh-snp.',
    },
  ],
  [
    "a taint's value that does not count",
    withGroup({ tolerations: [{ key: "a", operator: "Exists", value: "b" }] }),
    {
      "groups.workers.tolerations[0].value": '"b" has no meaning with operator "Exists". Remove it, or use "Equal".',
    },
  ],
  [
    "a toleration of any key",
    withGroup({ tolerations: [{ value: "a" }] }),
    { "groups.workers.tolerations[0].key": 'is missing. Only operator "Exists" tolerates every key.' },
  ],
  [
    "more nodes to wait for than there are names",
    withGroup({ nodes: { names: ["a"] }, minimumNodes: 2 }),
    { "groups.workers.minimumNodes": "2 is more than the number of nodes that the group lists, 1." },
  ],
  [
    "… than hosts",
    withGroup({ nodes: { hosts: [host], ssh }, minimumNodes: 2 }),
    { "groups.workers.minimumNodes": "that the group lists, 1" },
  ],
  [
    "… than nodes in the pool",
    stack({
      cluster: { ...aksCluster, retiredService: "acknowledged" },
      groups: {
        w: {
          distribution: "aks",
          runtimes: [aksSnp],
          nodes: { pool: { name: "cc", vmSize: "Standard_DC4as_cc_v5", count: 2 } },
          minimumNodes: 3,
        },
      },
    }),
    { "groups.w.minimumNodes": "that the group lists, 2" },
  ],
  [
    "… than are left without the dead ones",
    withGroup({ nodes: { names: ["a", "b"] }, minimumNodes: 2, ignoreNodes: ["b"] }),
    {
      "groups.workers.minimumNodes":
        "2 is more than the number of nodes that the group lists, 1 without those of ignoreNodes.",
    },
  ],
  [
    "a dead node that is not the group's",
    withGroup({ nodes: { names: ["a"] }, ignoreNodes: ["b"] }),
    { "groups.workers.ignoreNodes[0]": '"b" is not a node of the group. Allowed: a.' },
  ],
  [
    "a dead node twice",
    withGroup({ ignoreNodes: ["b", "b"] }),
    { "groups.workers.ignoreNodes[1]": '"b" is listed twice.' },
  ],
];

const oneGroupOnly = "A node is in one group only.";
const betweenGroups: Case[] = [
  [
    "a node in two",
    withGroups({ a: { nodes: { names: ["n1"] } }, b: { nodes: { names: ["n1"] } } }),
    { "groups.b.nodes.names[0]": `"n1" is already in group a. ${oneGroupOnly}` },
  ],
  [
    "a host that another one names",
    withGroups({ a: { nodes: { names: ["n1"] } }, b: { nodes: { hosts: [host], ssh } } }),
    { "groups.b.nodes.hosts[0].name": '"n1" is already in group a' },
  ],
  [
    "an address twice",
    withNodes({ hosts: [host, { ...host, name: "n2" }], ssh }),
    { [`${nodes}.hosts[1].address`]: '"10.0.0.1" is listed twice.' },
  ],
  [
    "a pool in two",
    aksGroups({ a: { nodes: existing }, b: { nodes: existing } }),
    { "groups.b.nodes.pool.name": '"cc" is already in group a' },
  ],
  [
    "the same selector",
    withGroups({ a: { nodes: { selector: { x: "y" } } }, b: { nodes: { selector: { x: "y" } } } }),
    { "groups.b.nodes.selector": `also selects nodes of group a. ${oneGroupOnly}` },
  ],
  [
    "a former name that another group has",
    withGroups({
      a: { nodes: { selector: { x: "y" } }, formerly: "b" },
      b: { nodes: { selector: { x: "z" } }, formerly: "b" },
    }),
    {
      "groups.a.formerly":
        '"b" is also a group of its own. A group that is renamed goes by its new name alone: remove "b" in this update; another group of that name can come in the next.',
      "groups.b.formerly": '"b" is the group\'s name of now. Remove it.',
    },
  ],
  [
    "a selector whose nodes are all in another group",
    withGroups({
      a: { nodes: { selector: { x: "y" } } },
      b: { nodes: { selector: { x: "y", z: "1" } } },
      c: { nodes: { selector: { x: "other" } } },
    }),
    { "groups.b.nodes.selector": "also selects nodes of group a" },
  ],
  [
    "a pool whose label another group selects",
    aksGroups({ a: { nodes: existing }, b: { nodes: { selector: { "kubernetes.azure.com/agentpool": "cc" } } } }),
    { "groups.b.nodes.selector": "also selects nodes of group a" },
  ],
  [
    "a selector of a pool's label, and the pool",
    aksGroups({ a: { nodes: { selector: { "kubernetes.azure.com/agentpool": "cc" } } }, b: { nodes: existing } }),
    { "groups.b.nodes.pool": "also selects nodes of group a" },
  ],
  [
    "a group of all nodes beside another",
    withGroups({ a: { nodes: { selector: { x: "y" } } }, b: {} }),
    {
      "groups.b.nodes":
        "is missing. With several groups, each must say which nodes are its own: selector, names, hosts or pool.",
    },
  ],
];

describe.each(Object.entries({ ofTheStack, ofNodes, ofAGroup, betweenGroups }))(
  "mistakes between keys: %s",
  (_of, cases) => {
    test.each(cases)("%s", async (_what, entries, says) => {
      await expectMistakes(entries, says);
    });
  },
);

test.each(["Dev", "my_stack", "2nd", "a".repeat(31)])(
  "a local cluster cannot have the stack's name: %s",
  async (name) => {
    expect(await mistakesIn(localCluster(), { stack: name })).toEqual([
      `cluster.kind: "local" names the cluster after the stack, but "${name}" is not a lower-case DNS label of at most 30 characters that begins with a letter: rename the stack with pulumi stack rename.`,
    ]);
    expect(await mistakesIn(stack(), { stack: name })).toEqual([]);
  },
);

const fine: [string, Record<string, unknown>][] = [
  [
    "hosts by SSH, with their registry's CA",
    stack({ registry: { ca: certificate("authority") }, groups: { w: group({ nodes: { hosts: [host], ssh } }) } }),
  ],
  ["a pull secret", stack({ registry: { pullSecret: '{"auths": {}}' } })],
  ["a renamed group", withGroup({ formerly: "nodes" })],
  ["a toleration of everything", withGroup({ tolerations: [{ operator: "Exists" }] })],
  ["a new pool, acknowledged", withPool({})],
  ["an existing pool", withAksNodes(existing)],
  [
    "selectors with different values",
    withGroups({ a: { nodes: { selector: { x: "1" } } }, b: { nodes: { selector: { x: "2" } } } }),
  ],
  ["the oldest containerd", withGroup({ distribution: { name: "containerd", containerdVersion: "1.7.0" } })],
  ["a version as rke2 prints it", withGroup({ distribution: { name: "rke2", containerdVersion: "2.2.2-bd1.34" } })],
  ...[
    "10.0.0.1 KEY",
    "[10.0.0.1]:2222,node-1 KEY\n",
    "|1|F1E1KeoE/eEWhi10WpGv4OdiO6Y=|3988QV0VE8wmZL7suNrYQLITLCg= KEY",
    "KEY root@node-1",
  ].map((form): (typeof fine)[number] => [
    `host key: ${form}`,
    withHost({ hostKey: form.replace("KEY", host.hostKey) }),
  ]),
];
test.each(fine)("no mistake: %s", async (_what, entries) => {
  expect(await mistakesIn(entries)).toEqual([]);
});
