import { readFile } from "node:fs/promises";
import { describe, expect, test } from "vitest";
import { type ConfigurationSource, readConfiguration } from "../../../components/config/read.ts";
import { Refusal } from "../../../runtime/refusal.ts";
import { certificate } from "../../fixtures/certificates.ts";
import { fixtureAdvisories, fixtureHandler } from "../runtime/fixtures.ts";

const fx = "test/fixtures/manifests/fixture-";
const digest = `sha256:${"a".repeat(64)}`;
const image = `ghcr.io/edgeless/contrast-node-installer@${digest}`;
const metal = { kind: "kubeconfig", name: "prod" };
const aks = { kind: "aks", subscriptionId: "00000000-0000-0000-0000-000000000000", resourceGroup: "rg", name: "c" };
const rt = {
  platform: "metal-qemu-snp",
  payload: `${fx}contrast-go.json`,
  acknowledgedAdvisories: fixtureAdvisories["contrast-go"],
};
const aksRuntime = {
  platform: "aks-clh-snp",
  payload: `${fx}contrast-aks.json`,
  acknowledgedAdvisories: fixtureAdvisories["contrast-aks"],
};
const host = { name: "n1", address: "10.0.0.1", hostKey: "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA" };
const ssh = { privateKey: "k" };

type Entries = Record<string, unknown>;
const group = (changes: object = {}) => ({ distribution: "containerd", runtimes: [rt], ...changes });
const base = (changes: Entries = {}): Entries => ({
  cluster: metal,
  installerImage: image,
  groups: { workers: group() },
  ...changes,
});
const g = (changes: object, rest: Entries = {}) => base({ groups: { workers: group(changes) }, ...rest });
const aksGroup = (nodes: object, cluster: object = {}) =>
  base({
    cluster: { ...aks, ...cluster },
    groups: {
      cc: { distribution: "aks", nodes, runtimes: [aksRuntime] },
    },
  });

/** As the engine hands configuration over: structured values are JSON, the rest is text. */
const source = (entries: Entries, changes: Partial<ConfigurationSource> = {}): ConfigurationSource => ({
  stack: "dev",
  entries: Object.fromEntries(
    Object.entries(entries)
      .filter(([, value]) => value !== undefined)
      .map(([key, value]) => [key, typeof value === "string" ? value : JSON.stringify(value)]),
  ),
  secretKeys: ["cluster", "groups", "registry"],
  readText: async (path) => (path === "README.md" ? "# x" : readFile(path, "utf8")),
  imageDigest: async () => digest,
  ...changes,
});

const mistakesOf = async (entries: Entries, changes?: Partial<ConfigurationSource>): Promise<string[]> => {
  try {
    await readConfiguration(source(entries, changes));
    return [];
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    return error.message
      .split("\n")
      .slice(1)
      .map((line) => line.trim());
  }
};

/** What is wrong, and every line that the user sees; the fourth column: entries that are encrypted. */
const table: [string, Entries, string[], string[]?][] = [
  [
    "unknown top-level key",
    base({ group: {} }),
    ["group: is not a known key. Allowed here: cluster, installerImage, registry, groups. Did you mean groups?"],
  ],
  [
    "unknown group key",
    g({ runtime: [] }),
    [
      "groups.workers.runtime: is not a known key. Allowed here: distribution, nodes, runtimes, atOnce, minimumNodes, ignoreNodes, stallTimeout, tolerations, priorityClass, verifySandbox, onDestroy. Did you mean runtimes?",
    ],
  ],
  [
    "unknown nested",
    g({ nodes: { selectors: { a: "b" } } }),
    [
      "groups.workers.nodes.selectors: is not a known key. Allowed here: selector, names, hosts, pool, ssh, joinCommand. Did you mean selector?",
    ],
  ],
  [
    "missing cluster",
    base({ cluster: undefined }),
    ["cluster: is missing. Expected a map with kind: local, kubeconfig, aks or yaml."],
  ],
  [
    "nothing behind a key",
    g({ nodes: null, distribution: null, runtimes: [null] }),
    [
      "groups.workers.distribution: is empty. Expected one of containerd, aks, k3s, rke2, k0s, microk8s, or a map with such a name and overrides.",
      "groups.workers.nodes: is empty. Expected a map of keys.",
      "groups.workers.runtimes[0]: is empty. Expected a map of keys.",
    ],
  ],
  [
    "no distribution",
    base({ groups: { workers: { runtimes: [rt] } } }),
    [
      "groups.workers.distribution: is missing. Expected one of containerd, aks, k3s, rke2, k0s, microk8s, or a map with such a name and overrides.",
    ],
  ],
  [
    "a kubeconfig's path",
    base({ cluster: { ...metal, kubeconfig: "~/.kube/config" } }),
    ["cluster.kubeconfig: [secret] must be the content of a kubeconfig, not its path."],
  ],
  [
    "a private key's path",
    g({ nodes: { hosts: [host], ssh: { privateKey: "/root/.ssh/id_ed25519\n" } } }),
    ["groups.workers.nodes.ssh.privateKey: [secret] must be the private key itself, not its path."],
  ],
  ["missing groups", base({ groups: undefined }), ["groups: is missing. Expected a map of names."]],
  ["no groups", base({ groups: {} }), ["groups: must list at least one node group."]],
  [
    "unknown kind",
    base({ cluster: { kind: "kubeconf" } }),
    ['cluster.kind: "kubeconf" is not allowed. Allowed: local, kubeconfig, aks, yaml. Did you mean "kubeconfig"?'],
  ],
  [
    "manifests outside of the project",
    base({ cluster: { kind: "yaml", directory: "../manifests" } }),
    ['cluster.directory: "../manifests" must be a directory below the project, such as manifests/prod.'],
  ],
  [
    "a cluster's key with manifests only",
    base({ cluster: { kind: "yaml", directory: "manifests", kubeconfig: "k" } }),
    ["cluster.kubeconfig: is not a known key. Allowed here: kind, directory."],
  ],
  [
    "a pull secret in manifests",
    base({ cluster: { kind: "yaml", directory: "manifests" }, registry: { pullSecret: '{"auths": {}}' } }),
    [
      "registry.pullSecret: [secret] would be written into manifests in plain text. Let the nodes' own set-up log in to the registry, and remove it here.",
    ],
  ],
  [
    "cluster scalar",
    base({ cluster: "local" }),
    ['cluster: "local" is not allowed. Expected a map with kind: local, kubeconfig, aks or yaml.'],
    [],
  ],
  [
    "a secret in place of the map that it belongs in",
    g({ nodes: { hosts: [host], ssh: "-----BEGIN OPENSSH PRIVATE KEY-----" } }),
    ["groups.workers.nodes.ssh: [secret] is not allowed. Expected a map of keys."],
  ],
  ["cluster missing name", base({ cluster: { kind: "kubeconfig" } }), ["cluster.name: is missing. Expected a string."]],
  [
    "malformed subscription",
    base({ cluster: { ...aks, subscriptionId: "x" } }),
    ['cluster.subscriptionId: "x" must be a subscription\'s id, such as 00000000-0000-0000-0000-000000000000.'],
  ],
  [
    "image by tag",
    base({ installerImage: "ghcr.io/e/c:v1" }),
    [
      'installerImage: "ghcr.io/e/c:v1" names an image by tag, which may be a different image tomorrow: must end in @sha256:<64 hex digits>.',
    ],
  ],
  [
    "image that is not a reference",
    base({ installerImage: "Foo" }),
    [
      'installerImage: "Foo" must be registry/repository@sha256:<64 hex digits>, or "local" for the image that `npm run image` built.',
    ],
  ],
  [
    "image without its registry, which a mirror would have to replace",
    base({ installerImage: `edgeless/contrast-node-installer@${digest}` }),
    [
      `installerImage: "edgeless/contrast-node-installer@${digest}" does not say which registry: must begin with a host, such as docker.io/.`,
    ],
  ],
  [
    "image by tag and digest",
    base({ installerImage: `localhost:5000/e/c:v1@${digest}` }),
    [
      `installerImage: "localhost:5000/e/c:v1@${digest}" has a tag besides the digest, which alone counts: leave out the tag.`,
    ],
  ],
  [
    "image with a short digest",
    base({ installerImage: "ghcr.io/e/c@sha256:abc" }),
    [
      'installerImage: "ghcr.io/e/c@sha256:abc" must be registry/repository@sha256:<64 hex digits>, or "local" for the image that `npm run image` built.',
    ],
  ],
  [
    "local image elsewhere",
    base({ installerImage: "local" }),
    [
      'installerImage: "local" is an image for local clusters only. With cluster.kind kubeconfig, name an image by digest: registry/repository@sha256:<64 hex digits>.',
    ],
  ],
  [
    "mirror with a scheme",
    base({ registry: { prefix: "https://m" } }),
    ['registry.prefix: "https://m" must be host[:port][/path] without a scheme, the host with a dot or a port.'],
  ],
  [
    "mirror that is not a host",
    base({ registry: { prefix: "mirror/apps" } }),
    ['registry.prefix: "mirror/apps" must be host[:port][/path] without a scheme, the host with a dot or a port.'],
  ],
  [
    "a CA that is not a certificate",
    base({ registry: { ca: "x" } }),
    [
      'registry.ca: "x" has no certificate. Expected certificates of authorities in PEM (BEGIN CERTIFICATE … END CERTIFICATE).',
    ],
  ],
  [
    "a CA that reaches no node",
    base({ registry: { ca: certificate("authority") } }),
    [
      "registry.ca: reaches nodes by SSH only, and no group has nodes.hosts. Let the nodes' own set-up trust it, and remove it here.",
    ],
  ],
  [
    "malformed pull secret",
    base({ registry: { pullSecret: "x" } }),
    [
      'registry.pullSecret: [secret] must be the content of a .dockerconfigjson: {"auths": {"<registry>": {"auth": …}}}.',
    ],
  ],
  [
    "group name",
    base({ groups: { Workers: group() } }),
    [
      'groups.Workers: the name "Workers" must be lower-case letters, digits and inner dashes, beginning with a letter, at most 40 characters.',
    ],
  ],
  [
    "platform",
    g({ runtimes: [{ ...rt, platform: "metal-qemu-sno" }] }),
    [
      'groups.workers.runtimes[0].platform: "metal-qemu-sno" is not allowed. Allowed: aks-clh-snp, metal-qemu-snp, metal-qemu-tdx, metal-qemu-snp-gpu, metal-qemu-tdx-gpu, local. Did you mean "metal-qemu-snp"?',
    ],
  ],
  [
    "distribution",
    g({ distribution: "rke" }),
    [
      'groups.workers.distribution.name: "rke" is not allowed. Allowed: containerd, aks, k3s, rke2, k0s, microk8s. Did you mean "rke2"?',
    ],
  ],
  [
    "distribution obj",
    g({ distribution: { name: "k3s", sockt: "/x" } }),
    [
      "groups.workers.distribution.sockt: is not a known key. Allowed here: name, configPath, socket, unit, containerdVersion. Did you mean socket?",
    ],
  ],
  [
    "socket",
    g({ distribution: { name: "k3s", socket: "run/x" } }),
    [
      'groups.workers.distribution.socket: "run/x" must be an absolute path without . or .. segments, quotes, backslashes and control characters.',
    ],
  ],
  [
    "old containerd",
    g({ distribution: { name: "containerd", containerdVersion: "1.6.20" } }),
    [
      'groups.workers.distribution.containerdVersion: "1.6.20" is out of support and ignores where a runtime\'s shim is. Allowed: 1.7.0 and later.',
    ],
  ],
  ["text for a number", g({ atOnce: "two" }), ['groups.workers.atOnce: "two" is not allowed. Expected a number.']],
  ["nothing at once", g({ atOnce: 0 }), ["groups.workers.atOnce: 0 must be 1 or more."]],
  [
    "half a node",
    g({ minimumNodes: 1.5 }),
    ["groups.workers.minimumNodes: 1.5 is not allowed. Expected a whole number."],
  ],
  [
    "runtimes missing",
    base({ groups: { workers: { distribution: "k3s" } } }),
    ["groups.workers.runtimes: is missing. Expected a list."],
  ],
  ["runtimes map", g({ runtimes: {} }), ["groups.workers.runtimes: {} is not allowed. Expected a list."], []],
  [
    "two ways",
    g({ nodes: { names: ["a"], selector: { x: "y" } } }),
    ["groups.workers.nodes: has selector and names. Allowed: one of selector, names, hosts, pool."],
  ],
  [
    "host key",
    g({ nodes: { hosts: [{ name: "n1", address: "10.0.0.1" }], ssh } }),
    [
      "groups.workers.nodes.hosts[0].hostKey: is missing. Expected the host's public key as in known_hosts (type and key): without it anyone in between can pose as the host.",
    ],
  ],
  ...["ssh-ed25519 AAAAB3NzaC1yc2EAAAADAQABAAABgQC7", "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABgQC7"].map(
    (hostKey): [string, Entries, string[]] => [
      `a host key of another type: ${hostKey}`,
      g({ nodes: { hosts: [{ ...host, hostKey }], ssh } }),
      [
        `groups.workers.nodes.hosts[0].hostKey: "${hostKey}" must be type and key as in known_hosts, the type one of ssh-ed25519, ecdsa-sha2-nistp256, ecdsa-sha2-nistp384, ecdsa-sha2-nistp521.`,
      ],
    ],
  ),
  [
    "an invalid port",
    g({ nodes: { hosts: [{ ...host, port: 70_000 }], ssh } }),
    ["groups.workers.nodes.hosts[0].port: 70000 must be at most 65535."],
  ],
  [
    "host no ssh",
    g({ nodes: { hosts: [host] } }),
    ["groups.workers.nodes.ssh: is missing. Expected the user and privateKey with which hosts are reached."],
  ],
  ["ssh no hosts", g({ nodes: { ssh } }), ["groups.workers.nodes.ssh: has no effect without nodes.hosts. Remove it."]],
  [
    "join no hosts",
    g({ nodes: { joinCommand: "x" } }),
    ["groups.workers.nodes.joinCommand: has no effect without nodes.hosts. Remove it."],
  ],
  [
    "hosts on aks",
    base({ cluster: aks, groups: { w: { distribution: "aks", runtimes: [], nodes: { hosts: [host], ssh } } } }),
    [
      "groups.w.nodes.hosts: are reached by SSH, and with cluster.kind aks nodes are not ours to set up. Use selector or names.",
    ],
  ],
  [
    "another distribution on aks",
    base({
      cluster: aks,
      groups: {
        w: { distribution: "containerd", runtimes: [aksRuntime] },
      },
    }),
    [
      'groups.w.distribution.name: "containerd" is not how the nodes of an AKS cluster run containerd. Allowed with cluster.kind aks: aks.',
    ],
  ],
  [
    "an invalid zone",
    aksGroup(
      { pool: { name: "cc", vmSize: "Standard_DC4as_cc_v5", count: 2, zones: ["westeurope-1"] } },
      { retiredService: "acknowledged" },
    ),
    ['groups.cc.nodes.pool.zones[0]: "westeurope-1" must be the number of an availability zone, such as "1".'],
  ],
  [
    "a zone twice",
    aksGroup(
      { pool: { name: "cc", vmSize: "Standard_DC4as_cc_v5", count: 2, zones: ["1", "1"] } },
      { retiredService: "acknowledged" },
    ),
    ['groups.cc.nodes.pool.zones: ["1","1"] must not list a zone twice.'],
  ],
  [
    "a label that Azure refuses",
    aksGroup(
      { pool: { name: "cc", vmSize: "Standard_DC4as_cc_v5", count: 2, labels: { "kubernetes.azure.com/mode": "cc" } } },
      { retiredService: "acknowledged" },
    ),
    [
      "groups.cc.nodes.pool.labels.kubernetes.azure.com/mode: is in a prefix that AKS keeps for itself, and Azure refuses it. Remove it.",
    ],
  ],
  [
    "pool elsewhere",
    g({ nodes: { pool: { name: "cc" } } }),
    ["groups.workers.nodes.pool: is an AKS node pool, and cluster.kind is kubeconfig. Use selector, names or hosts."],
  ],
  [
    "pool",
    aksGroup({ pool: { name: "cc", vmSize: "Standard_DC4as_cc_v5", count: 2 } }),
    [
      'groups.cc.nodes.pool: "cc" would be created or scaled with KataCcIsolation. Microsoft retired that service and its node images in March 2026: Azure most likely refuses. Use an existing pool (existing: true), or set cluster.retiredService to "acknowledged".',
    ],
  ],
  [
    "pool no size",
    aksGroup({ pool: { name: "cc" } }, { retiredService: "acknowledged" }),
    [
      "groups.cc.nodes.pool.vmSize: is missing. Expected a size that runs SNP guests, such as Standard_DC4as_cc_v5, or existing: true.",
      "groups.cc.nodes.pool.count: is missing. Expected the pool's number of nodes, or existing: true.",
    ],
  ],
  [
    "pool existing",
    aksGroup({ pool: { name: "cc", existing: true, count: 3 } }),
    [
      "groups.cc.nodes.pool.count: has no effect on an existing pool, which is used as it is. Remove it, or remove existing.",
    ],
  ],
  [
    "a handler's label on a pool: pods would come before the node serves",
    aksGroup(
      {
        pool: {
          name: "cc",
          vmSize: "Standard_DC4as_cc_v5",
          count: 2,
          labels: { "runtime.contrast.edgeless.systems/contrast-cc-aks-clh-snp-0a1b2c3d": "true" },
        },
      },
      { retiredService: "acknowledged" },
    ),
    [
      "groups.cc.nodes.pool.labels.runtime.contrast.edgeless.systems/contrast-cc-aks-clh-snp-0a1b2c3d: is a label that a node's installer sets once the node serves the handler, and pods follow it there. Remove it.",
    ],
  ],
  [
    "a handler's label as selector: no installer would ever come",
    g({ nodes: { selector: { "runtime.contrast.edgeless.systems/x": "true" } } }),
    [
      "groups.workers.nodes.selector.runtime.contrast.edgeless.systems/x: is a label that a node's installer sets once the node serves the handler, and pods follow it there. Remove it.",
    ],
  ],
  [
    "pool name",
    aksGroup({ pool: { name: "Conf-Pool", existing: true } }),
    [
      'groups.cc.nodes.pool.name: "Conf-Pool" must be lower-case letters and digits, at most 12, beginning with a letter.',
    ],
  ],
  [
    "vmSize",
    aksGroup({ pool: { name: "cc", vmSize: "DC4", count: 1 } }, { retiredService: "acknowledged" }),
    ['groups.cc.nodes.pool.vmSize: "DC4" must be a VM size such as Standard_DC4as_cc_v5.'],
  ],
  [
    "aks platform off aks",
    g({ runtimes: [aksRuntime] }),
    [
      'groups.workers.runtimes[0].platform: "aks-clh-snp" runs on AKS only, and the group\'s distribution is "containerd". Allowed here: metal-qemu-snp, metal-qemu-tdx, metal-qemu-snp-gpu, metal-qemu-tdx-gpu, local.',
    ],
  ],
  [
    "metal on aks",
    base({ cluster: aks, groups: { w: group({ distribution: "aks" }) } }),
    [
      'groups.w.runtimes[0].platform: "metal-qemu-snp" needs /dev/kvm, which AKS nodes do not have. Allowed here: aks-clh-snp.',
    ],
  ],
  [
    "node twice",
    base({ groups: { a: group({ nodes: { names: ["n1"] } }), b: group({ nodes: { names: ["n1"] } }) } }),
    ['groups.b.nodes.names[0]: "n1" is already in group a. A node is in one group only.'],
  ],
  [
    "same selector",
    base({ groups: { a: group({ nodes: { selector: { x: "y" } } }), b: group({ nodes: { selector: { x: "y" } } }) } }),
    ["groups.b.nodes.selector: also selects nodes of group a. A node is in one group only."],
  ],
  [
    "a selector whose nodes are all in another group",
    base({
      groups: {
        a: group({ nodes: { selector: { x: "y" } } }),
        b: group({ nodes: { selector: { x: "y", z: "1" } } }),
        c: group({ nodes: { selector: { x: "other" } } }),
      },
    }),
    ["groups.b.nodes.selector: also selects nodes of group a. A node is in one group only."],
  ],
  [
    "a pool whose label another group selects",
    base({
      cluster: aks,
      groups: {
        a: { distribution: "aks", runtimes: [], nodes: { pool: { name: "cc", existing: true } } },
        b: { distribution: "aks", runtimes: [], nodes: { selector: { "kubernetes.azure.com/agentpool": "cc" } } },
      },
    }),
    ["groups.b.nodes.selector: also selects nodes of group a. A node is in one group only."],
  ],
  [
    "a selector of nothing",
    g({ nodes: { selector: {} } }),
    ["groups.workers.nodes.selector: {} must name at least one label."],
  ],
  [
    "two kinds of processor in a group",
    g({ runtimes: [rt, { ...rt, platform: "metal-qemu-tdx" }] }),
    ["groups.workers.runtimes: need SNP and TDX, which no processor has together. Make a group for each."],
  ],
  [
    "keys that nobody advertises",
    g({ runtimes: [{ platform: "local", payload: `${fx}local.json`, overhead: { teeKeys: true } }] }),
    ['groups.workers.runtimes[0].overhead.teeKeys: has no effect: nodes of "local" advertise no keys. Remove it.'],
  ],
  [
    "a local cluster's node twice",
    base({ cluster: { kind: "local", nodes: [{ name: "a" }, { name: "a" }] }, installerImage: undefined }),
    ['cluster.nodes: [{"name":"a"},{"name":"a"}] must not list a name twice.'],
  ],
  [
    "unselected",
    base({ groups: { a: group({ nodes: { selector: { x: "y" } } }), b: group() } }),
    [
      "groups.b.nodes: is missing. With several groups, each must say which nodes are its own: selector, names, hosts or pool.",
    ],
  ],
  [
    "address twice",
    g({ nodes: { hosts: [host, { ...host, name: "n2" }], ssh } }),
    ['groups.workers.nodes.hosts[1].address: "10.0.0.1" is listed twice.'],
  ],
  [
    "minimum",
    g({ nodes: { names: ["a"] }, minimumNodes: 2 }),
    ["groups.workers.minimumNodes: 2 is more than the number of nodes that the group lists, 1."],
  ],
  [
    "minimum without those that are ignored",
    g({ nodes: { names: ["a", "b"] }, minimumNodes: 2, ignoreNodes: ["b"] }),
    [
      "groups.workers.minimumNodes: 2 is more than the number of nodes that the group lists, 1 without those of ignoreNodes.",
    ],
  ],
  [
    "more at once than there are nodes anywhere",
    g({ atOnce: 100_000 }),
    ["groups.workers.atOnce: 100000 must be at most 1000."],
  ],
  [
    "ignore",
    g({ nodes: { names: ["a"] }, ignoreNodes: ["b"] }),
    ['groups.workers.ignoreNodes[0]: "b" is not a node of the group. Allowed: a.'],
  ],
  [
    "label",
    g({ nodes: { selector: { "bad key": "y" } } }),
    ['groups.workers.nodes.selector.bad key: "bad key" must be a valid label key.'],
  ],
  [
    "label value",
    g({ nodes: { selector: { key: "bad value" } } }),
    ['groups.workers.nodes.selector.key: "bad value" must be a valid label value.'],
  ],
  [
    "label value type",
    g({ nodes: { selector: { key: true } } }),
    ["groups.workers.nodes.selector.key: true is not allowed. Expected a string."],
  ],
  [
    "exists",
    g({ tolerations: [{ key: "a", operator: "Exists", value: "b" }] }),
    ['groups.workers.tolerations[0].value: "b" has no meaning with operator "Exists". Remove it, or use "Equal".'],
  ],
  [
    "effect",
    g({ tolerations: [{ key: "a", effect: "NoExec" }] }),
    [
      'groups.workers.tolerations[0].effect: "NoExec" is not allowed. Allowed: NoSchedule, PreferNoSchedule, NoExecute.',
    ],
  ],
  [
    "a toleration's value that no taint can have",
    g({ tolerations: [{ key: "a", value: "b c" }] }),
    ['groups.workers.tolerations[0].value: "b c" must be a valid label value.'],
  ],
  [
    "tol key",
    g({ tolerations: [{ value: "a" }] }),
    ['groups.workers.tolerations[0].key: is missing. Only operator "Exists" tolerates every key.'],
  ],
  [
    "ondestroy",
    g({ onDestroy: "uninstal" }),
    ['groups.workers.onDestroy: "uninstal" is not allowed. Allowed: uninstall, leave. Did you mean "uninstall"?'],
  ],
  [
    "payload missing",
    g({ runtimes: [{ ...rt, payload: "nowhere.json" }] }),
    [
      'groups.workers.runtimes[0].payload: "nowhere.json" cannot be read. Write the manifest with npm run lock; the path begins at the project\'s directory.',
    ],
  ],
  [
    "payload not json",
    g({ runtimes: [{ ...rt, payload: "README.md" }] }),
    [
      'groups.workers.runtimes[0].payload: "README.md" is not JSON: Unexpected token \'#\', "# x" is not valid JSON. Write it with npm run lock.',
    ],
  ],
  [
    "payload that is not a manifest",
    g({ runtimes: [{ ...rt, payload: "package.json" }] }),
    [
      'groups.workers.runtimes[0].payload: "package.json" is not a manifest: schemaVersion is missing. Allowed: 1. Write it with npm run lock.',
    ],
  ],
  [
    "payload wrong",
    g({ runtimes: [{ ...rt, payload: `${fx}contrast-aks.json` }] }),
    [
      'groups.workers.runtimes[0].payload: "test/fixtures/manifests/fixture-contrast-aks.json" cannot be used: Kata 3.2.0.azl2 is too old for metal-qemu-snp with flavour contrast-go: 3.17.0 or later is needed. Lock a newer payload.',
    ],
  ],
  [
    "a pair that cannot work",
    g({ runtimes: [{ platform: "metal-qemu-snp-gpu", payload: `${fx}kata-rs.json` }] }),
    [
      'groups.workers.runtimes[0].payload: "test/fixtures/manifests/fixture-kata-rs.json" cannot be used: Flavour kata-rs cannot serve the platform metal-qemu-snp-gpu: runtime-rs cannot plug a GPU before the guest boots. Use a payload of flavour contrast-go, kata-go.',
    ],
  ],
  [
    "a payload whose Kata has known holes",
    g({ runtimes: [{ platform: "metal-qemu-snp", payload: `${fx}contrast-go-next.json` }] }),
    [
      'groups.workers.runtimes[0].payload: "test/fixtures/manifests/fixture-contrast-go-next.json" holds Kata 3.29.0, which has known holes. GHSA-fmg6-v47x-52wr (CVE-2026-77176): The host mounts guest paths of its choice over certain files of a container, although a policy made with this release\'s genpolicy protects it. Policies made with the rules of 4.1.0 or later forbid it. See https://github.com/kata-containers/kata-containers/security/advisories/GHSA-fmg6-v47x-52wr. Lock a payload of Kata 4.1.0 or later and list it beside this one; while workloads still need this one, say that you know: add "acknowledgedAdvisories: [GHSA-fmg6-v47x-52wr]" to the runtime.',
    ],
  ],
  [
    "acknowledgements that say nothing",
    g({
      runtimes: [
        { ...rt, acknowledgedAdvisories: ["CVE-2026-77176", "CVE-2026-41326", "CVE-2026-4132", "CVE-2025-58354"] },
        { platform: "metal-qemu-snp", payload: `${fx}kata-go.json`, acknowledgedAdvisories: ["CVE-2026-77176"] },
      ],
    }),
    [
      'groups.workers.runtimes[0].acknowledgedAdvisories[2]: "CVE-2026-4132" is no advisory that is known here. Did you mean CVE-2026-41326? Those of Kata 3.28.0 (contrast-go) on metal-qemu-snp: kata-4.3.0-annotation-allowlist, GHSA-fmg6-v47x-52wr, GHSA-mp2j-xm59-qfgw, GHSA-h8jv-63p2-496x, GHSA-rr59-xxvx-96qr, GHSA-q49m-57vm-c8cc.',
      'groups.workers.runtimes[0].acknowledgedAdvisories[3]: "CVE-2025-58354" does not apply to Kata 3.28.0 (contrast-go) on metal-qemu-snp: remove it. Those that do: kata-4.3.0-annotation-allowlist, GHSA-fmg6-v47x-52wr, GHSA-mp2j-xm59-qfgw, GHSA-h8jv-63p2-496x, GHSA-rr59-xxvx-96qr, GHSA-q49m-57vm-c8cc.',
      'groups.workers.runtimes[1].acknowledgedAdvisories[0]: "CVE-2026-77176" does not apply to Kata 4.1.0 (kata-go) on metal-qemu-snp: remove it. Those that do: kata-4.3.0-annotation-allowlist.',
    ],
  ],
  [
    "a runtime twice",
    g({ runtimes: [rt, rt] }),
    [
      `groups.workers.runtimes: lists ${fixtureHandler("contrast-go")} (metal-qemu-snp, fixture-contrast-go) twice. Remove one.`,
    ],
  ],
  [
    "overheads",
    base({
      groups: {
        a: group({ nodes: { names: ["a"] }, runtimes: [{ ...rt, overhead: { memory: "1Gi" } }] }),
        b: group({ nodes: { names: ["b"] } }),
      },
    }),
    [
      `groups.b.runtimes: gives ${fixtureHandler("contrast-go")} a different overhead than group a. A handler has one RuntimeClass, and that has one overhead.`,
    ],
  ],
  [
    "quantity",
    g({ runtimes: [{ ...rt, overhead: { memory: "1 Gi" } }] }),
    ['groups.workers.runtimes[0].overhead.memory: "1 Gi" must be an amount of memory such as "512Mi".'],
  ],
  [
    "plain secret",
    base({ cluster: { ...metal, kubeconfig: "apiVersion: v1" } }),
    [
      "cluster.kubeconfig: is a secret in plain text. Encrypt it: pulumi config set --secret --path 'cluster.kubeconfig'.",
    ],
    [],
  ],
  [
    "plain secret group",
    g({ nodes: { hosts: [host], ssh } }),
    [
      "groups.workers.nodes.ssh.privateKey: is a secret in plain text. Encrypt it: pulumi config set --secret --path 'groups.workers.nodes.ssh.privateKey'.",
    ],
    [],
  ],
  [
    "several at once",
    base({
      cluster: { kind: "aks" },
      installerImage: "x:y",
      groups: { w: { distribution: "k3", runtimes: [{ platform: "locl" }], minNodes: 2 } },
    }),
    [
      "cluster.subscriptionId: is missing. Expected a string.",
      "cluster.resourceGroup: is missing. Expected a string.",
      "cluster.name: is missing. Expected a string.",
      'installerImage: "x:y" must be registry/repository@sha256:<64 hex digits>, or "local" for the image that `npm run image` built.',
      'groups.w.distribution.name: "k3" is not allowed. Allowed: containerd, aks, k3s, rke2, k0s, microk8s. Did you mean "k3s"?',
      'groups.w.runtimes[0].platform: "locl" is not allowed. Allowed: aks-clh-snp, metal-qemu-snp, metal-qemu-tdx, metal-qemu-snp-gpu, metal-qemu-tdx-gpu, local. Did you mean "local"?',
      "groups.w.runtimes[0].payload: is missing. Expected the path of a manifest below the project.",
      "groups.w.minNodes: is not a known key. Allowed here: distribution, nodes, runtimes, atOnce, minimumNodes, ignoreNodes, stallTimeout, tolerations, priorityClass, verifySandbox, onDestroy.",
    ],
  ],
];

describe("mistakes in a stack's configuration", () => {
  test.each(table)("%s", async (_name, entries, messages, secretKeys) => {
    expect(await mistakesOf(entries, secretKeys && { secretKeys })).toEqual(messages);
  });

  test("no message repeats a secret", async () => {
    const [message] = await mistakesOf(base({ cluster: { ...metal, kubeconfig: 7 } }));
    expect(message).toBe("cluster.kubeconfig: [secret] is not allowed. Expected a string.");
  });

  test.each(["Dev", "my_stack", "2nd", "a".repeat(31)])(
    "a local cluster cannot have the stack's name: %s",
    async (stack) => {
      const entries = base({ cluster: { kind: "local" }, installerImage: undefined });
      expect(await mistakesOf(entries, { stack })).toEqual([
        `cluster.kind: "local" names the cluster after the stack, but "${stack}" is not a lower-case DNS label of at most 30 characters that begins with a letter: rename the stack with pulumi stack rename.`,
      ]);
      expect(await mistakesOf(base(), { stack })).toEqual([]);
    },
  );

  test("an image that has not been built yet is a mistake in the configuration, too", async () => {
    const imageDigest = async () => {
      throw new Refusal("image-missing", "There is no image in .local/image. Build it: npm run image.");
    };
    const entries = base({ cluster: { kind: "local" }, installerImage: undefined });
    expect(await mistakesOf(entries, { imageDigest })).toEqual([
      'installerImage: "local" cannot be used: There is no image in .local/image. Build it: npm run image.',
    ]);
  });
});

describe("a stack's configuration", () => {
  test("is complete: defaults filled in, manifests read, groups sorted", async () => {
    const entries = base({
      registry: { prefix: "mirror.example:5000/apps" },
      groups: { b: group({ nodes: { names: ["n2"] } }), a: group({ nodes: { names: ["n1"] }, atOnce: 3 }) },
    });
    const { image, groups } = await readConfiguration(source(entries));
    expect(image).toEqual({ reference: `mirror.example:5000/apps/edgeless/contrast-node-installer@${digest}` });
    expect(
      groups.map(({ name, atOnce, minimumNodes, onDestroy }) => ({ name, atOnce, minimumNodes, onDestroy })),
    ).toEqual([
      { name: "a", atOnce: 3, minimumNodes: 1, onDestroy: "uninstall" },
      { name: "b", atOnce: 1, minimumNodes: 1, onDestroy: "uninstall" },
    ]);
    expect(groups[0]?.runtimes[0]?.manifest.name).toBe("fixture-contrast-go");
  });

  test("a local cluster takes the image that was built here", async () => {
    const { image } = await readConfiguration(source(base({ cluster: { kind: "local" }, installerImage: undefined })));
    expect(image).toEqual({ localDigest: digest });
  });
});
