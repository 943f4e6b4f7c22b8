import * as pulumi from "@pulumi/pulumi";
import { describe, expect, test } from "vitest";
import type { WrongArguments } from "../../../components/arguments.ts";
import { BareMetalNodes, type BareMetalNodesArgs } from "../../../components/bare-metal-nodes.ts";
import { ContrastRuntime, type NodeGroupArgs, type RuntimeArgs } from "../../../components/contrast-runtime.ts";
import { NodeInstaller, type NodeInstallerArgs } from "../../../components/node-installer.ts";
import { RuntimeClasses } from "../../../components/runtime-classes.ts";
import type { PlatformName } from "../../../runtime/spec.ts";
import { certificate } from "../../fixtures/certificates.ts";
import { record } from "../../recorded-program.ts";
import { fixtureAdvisories, fixtureHandler, fixtureManifest } from "../runtime/fixtures.ts";

/* What must hold between a stack's keys holds between a component's arguments, by the same rules and under their names. */

const image = `registry.example.com/contrast-node-installer@sha256:${"a".repeat(64)}`;
const later = <T>(value: T): pulumi.Output<T> => pulumi.output(Promise.resolve(value)) as pulumi.Output<T>;

const runtime = (
  changes: Partial<RuntimeArgs> = {},
  platform: PlatformName = "metal-qemu-snp",
  name = "contrast-go",
) => ({
  platform,
  manifest: fixtureManifest(name),
  acknowledgedAdvisories: fixtureAdvisories[name] ?? [],
  ...changes,
});
const group = (changes: Partial<NodeGroupArgs> = {}): NodeGroupArgs => ({
  group: "a",
  distribution: { name: "containerd" },
  runtimes: [runtime()],
  ...changes,
});
const host = {
  name: "n1",
  address: "10.0.0.1",
  hostKey: "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
};
const ssh = { hosts: [host], privateKey: "key" };
const pool = { resourceGroup: "rg", cluster: "c", pool: "cc", vmSize: "Standard_DC4as_cc_v5", count: 1 };

const ofGroups = (groups: NodeGroupArgs[], more: object = {}) => new ContrastRuntime("x", { image, groups, ...more });
const ofGroup = (changes: Partial<NodeGroupArgs>) => ofGroups([group(changes)]);
const alone = (changes: Partial<NodeInstallerArgs>) =>
  new NodeInstaller("x", { ...group(), namespace: "ns", image, ...changes });
const ofHosts = (changes: Partial<BareMetalNodesArgs>) =>
  new BareMetalNodes("x", { ...ssh, distribution: "containerd", platforms: ["metal-qemu-snp"], image, ...changes });

const handler = fixtureHandler("contrast-go");
const once = "A node is in one group only.";
const aks = { distribution: { name: "aks" as const }, runtimes: [runtime({}, "aks-clh-snp", "contrast-aks")] };

/** What is wrong, how it is made, and by property what the message says. */
type Case = [what: string, make: () => unknown, says: Record<string, string>];
const cases: Case[] = [
  [
    "three ways to say which nodes",
    () => ofGroup({ ...aks, pool, ssh, nodeNames: ["n1"] }),
    {
      "groups[0]": "has nodeNames and ssh and pool. Allowed: one of nodeSelector, nodeNames, ssh, pool.",
      "groups[0].ssh.hosts[0].name": '"n1" is listed twice.',
    },
  ],
  [
    "two ways, of which one is known later",
    () => ofGroup({ ssh, nodeSelector: later({ a: "b" }) }),
    { "groups[0]": "has nodeSelector and ssh. Allowed: one of nodeSelector, nodeNames, ssh, pool." },
  ],
  [
    "two ways of an installer",
    () => alone({ nodeNames: ["n1"], nodeSelector: { a: "b" } }),
    { "": "has nodeSelector and nodeNames. Allowed: one of nodeSelector, nodeNames." },
  ],
  [
    "two overheads of one handler",
    () =>
      ofGroups([
        group({ nodeNames: ["n1"], runtimes: [runtime({ overhead: { memory: "1Gi" } })] }),
        group({ group: "b", nodeNames: ["n2"], runtimes: [runtime({ overhead: { memory: "2Gi" } })] }),
      ]),
    {
      "groups[1].runtimes": `gives ${handler} a different overhead than group a. A handler has one RuntimeClass, and that has one overhead.`,
    },
  ],
  [
    "a runtime twice",
    () => ofGroup({ runtimes: [runtime(), runtime()] }),
    { "groups[0].runtimes": `lists ${handler} (metal-qemu-snp, fixture-contrast-go) twice. Remove one.` },
  ],
  [
    "a runtime twice, of an installer",
    () => alone({ runtimes: [runtime(), runtime()] }),
    { runtimes: `lists ${handler} (metal-qemu-snp, fixture-contrast-go) twice. Remove one.` },
  ],
  [
    "SNP and TDX",
    () => ofGroup({ runtimes: [runtime(), runtime({}, "metal-qemu-tdx")] }),
    { "groups[0].runtimes": "need SNP and TDX, which no processor has together. Make a group for each." },
  ],
  [
    "SNP and TDX, of hosts",
    () => ofHosts({ platforms: ["metal-qemu-snp", "metal-qemu-tdx"] }),
    {
      platforms:
        '["metal-qemu-snp","metal-qemu-tdx"] need SNP and TDX, which no processor has together. Make a group for each.',
    },
  ],
  [
    "a platform of AKS elsewhere",
    () => ofGroup({ runtimes: aks.runtimes }),
    {
      "groups[0].runtimes[0].platform":
        '"aks-clh-snp" runs on AKS only, and the group\'s distribution is "containerd". Allowed here: metal-qemu-snp, metal-qemu-tdx, metal-qemu-snp-gpu, metal-qemu-tdx-gpu, metal-qemu-insecure, local.',
    },
  ],
  [
    "a handler's label as selector",
    () => ofGroup({ nodeSelector: { [`runtime.contrast.edgeless.systems/${handler}`]: "true" } }),
    {
      [`groups[0].nodeSelector.runtime.contrast.edgeless.systems/${handler}`]:
        "is a label that a node's installer sets once the node serves the handler, and pods follow it there. Remove it.",
    },
  ],
  [
    "a label that Azure refuses",
    () => ofGroup({ ...aks, pool: { ...pool, labels: { "kubernetes.azure.com/mode": "cc" } } }),
    {
      "groups[0].pool.labels.kubernetes.azure.com/mode":
        "is in a prefix that AKS keeps for itself, and Azure refuses it. Remove it.",
    },
  ],
  [
    "more nodes to wait for than there are names",
    () => alone({ nodeNames: ["n1"], minimumNodes: 3 }),
    { minimumNodes: "3 is more than the number of nodes that the group lists, 1." },
  ],
  [
    "more nodes to wait for than there are hosts",
    () => ofGroup({ ssh, minimumNodes: 2 }),
    { "groups[0].minimumNodes": "2 is more than the number of nodes that the group lists, 1." },
  ],
  [
    "a dead node that is not the group's",
    () => alone({ nodeNames: ["n1"], ignoreNodes: ["n2"] }),
    { "ignoreNodes[0]": '"n2" is not a node of the group. Allowed: n1.' },
  ],
  [
    "a containerd that is too old",
    () => ofGroup({ distribution: { name: "containerd", containerdVersion: "1.6.0" } }),
    {
      "groups[0].distribution.containerdVersion":
        '"1.6.0" is out of support and ignores where a runtime\'s shim is. Allowed: 1.7.0 and later.',
    },
  ],
  [
    "a taint's value that does not count",
    () => alone({ tolerations: [{ key: "a", operator: "Exists", value: "b" }] }),
    { "tolerations[0].value": '"b" has no meaning with operator "Exists". Remove it, or use "Equal".' },
  ],
  [
    "keys that no node advertises",
    () => ofGroup({ runtimes: [runtime({ overhead: { teeKeys: true } }, "local", "local")] }),
    { "groups[0].runtimes[0].overhead.teeKeys": 'has no effect: nodes of "local" advertise no keys. Remove it.' },
  ],
  [
    "a host twice",
    () => ofGroup({ ssh: { ...ssh, hosts: [host, host] } }),
    {
      "groups[0].ssh.hosts[1].name": '"n1" is listed twice.',
      "groups[0].ssh.hosts[1].address": '"10.0.0.1" is listed twice.',
    },
  ],
  [
    "an address twice, of hosts alone",
    () => ofHosts({ hosts: [host, { ...host, name: "n2" }] }),
    { "hosts[1].address": '"10.0.0.1" is listed twice.' },
  ],
  [
    "no hosts",
    () => ofGroup({ ssh: { ...ssh, hosts: [] } }),
    { "groups[0].ssh.hosts": "[] must list at least one host." },
  ],
  [
    "a group twice",
    () => ofGroups([group({ nodeNames: ["n1"] }), group({ nodeNames: ["n2"] })]),
    { "groups[1].group": '"a" is listed twice.' },
  ],
  [
    "a class twice",
    () => {
      const one = { handler, platform: "metal-qemu-snp" as const };
      return new RuntimeClasses("x", { classes: [one, one] });
    },
    { "classes[1].handler": `${JSON.stringify(handler)} is listed twice.` },
  ],
  [
    "a node in two groups",
    () => ofGroups([group({ nodeNames: ["n1"] }), group({ group: "b", ssh })]),
    { "groups[1].ssh.hosts[0].name": `"n1" is already in group a. ${once}` },
  ],
  [
    "a pool in two groups",
    () => ofGroups([group({ ...aks, pool }), group({ ...aks, group: "b", pool })]),
    { "groups[1].pool.pool": `"cc" is already in group a. ${once}` },
  ],
  [
    "a selector whose nodes are all in another group",
    () => ofGroups([group({ nodeSelector: { x: "y" } }), group({ group: "b", nodeSelector: { x: "y", z: "1" } })]),
    { "groups[1].nodeSelector": `also selects nodes of group a. ${once}` },
  ],
  [
    "a group of all nodes beside another",
    () => ofGroups([group({ nodeNames: ["n1"] }), group({ group: "b" })]),
    {
      "groups[1].nodeSelector":
        "is missing. With several groups, each must say which nodes are its own: nodeSelector, nodeNames, ssh or pool.",
    },
  ],
  [
    "a pull secret that no kubelet reads",
    () => ofGroups([group()], { pullSecret: "x" }),
    { pullSecret: '[secret] must be the content of a .dockerconfigjson: {"auths": {"<registry>": {"auth": …}}}.' },
  ],
  [
    "an authority that reaches no node",
    () => ofGroups([group()], { registryCa: certificate("authority") }),
    {
      registryCa:
        "reaches nodes by SSH only, and no group has ssh. Let the nodes' own set-up trust it, and remove it here.",
    },
  ],
];

describe("mistakes between arguments", () => {
  test.each(cases)("%s", async (_what, make, says) => {
    let refusal: unknown;
    const registered = await record(() => {
      try {
        make();
      } catch (error) {
        refusal = error;
      }
    });
    expect(refusal).toBeInstanceOf(pulumi.InputPropertiesError);
    const { errors } = refusal as WrongArguments;
    expect(Object.fromEntries(errors.map(({ propertyPath, reason }) => [propertyPath, reason]))).toEqual(says);
    expect(registered).toEqual([]);
  });
});

const fine: [string, () => unknown][] = [
  [
    "one overhead in two groups",
    () =>
      ofGroups([
        group({ nodeNames: ["n1"], runtimes: [runtime({ overhead: { memory: "1Gi" } })] }),
        group({
          group: "b",
          ssh: { ...ssh, hosts: [{ ...host, name: "n2" }] },
          runtimes: [runtime({ overhead: { memory: "1Gi" } })],
        }),
      ]),
  ],
  [
    "names that are known later, fewer than the minimum for all that is known",
    () => alone({ nodeNames: later(["n1"]), minimumNodes: 3 }),
  ],
  [
    "names of which one is known later",
    () => alone({ nodeNames: ["n1", later("n2")], minimumNodes: 2, ignoreNodes: ["n2"] }),
  ],
  [
    "hosts whose addresses are known later",
    () =>
      ofHosts({
        hosts: [
          { ...host, address: later("10.0.0.1") },
          { ...host, name: "n2", address: later("10.0.0.2") },
        ],
      }),
  ],
  [
    "selectors that are known later",
    () =>
      ofGroups([group({ nodeSelector: later({ x: "1" }) }), group({ group: "b", nodeSelector: { x: later("2") } })]),
  ],
  [
    "an overhead that is known later",
    () =>
      ofGroups([
        group({ nodeNames: ["n1"], runtimes: [runtime({ overhead: later({ memory: "1Gi" }) })] }),
        group({ group: "b", nodeNames: ["n2"], runtimes: [runtime({ overhead: { memory: "1Gi" } })] }),
      ]),
  ],
];
test.each(fine)("no mistake: %s", async (_what, make) => {
  expect((await record(make)).length).toBeGreaterThan(0);
});
