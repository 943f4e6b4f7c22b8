import * as pulumi from "@pulumi/pulumi";
import { describe, expect, test, vi } from "vitest";
import { AksCocoNodePool } from "../../../components/aks-coco-node-pool.ts";
import { registryOf } from "../../../components/arguments.ts";
import { BareMetalNodes } from "../../../components/bare-metal-nodes.ts";
import { ConfidentialWorkload } from "../../../components/confidential-workload.ts";
import { ContrastRuntime } from "../../../components/contrast-runtime.ts";
import { LocalCluster } from "../../../components/local-cluster.ts";
import { NodeInstaller } from "../../../components/node-installer.ts";
import { RuntimeClasses } from "../../../components/runtime-classes.ts";
import { deriveRuntime } from "../../../measure/runtime.ts";
import { platforms } from "../../../runtime/platforms.ts";
import { certificate } from "../../fixtures/certificates.ts";
import { type Recorded, record } from "../../recorded-program.ts";
import { fixtureManifest } from "../runtime/fixtures.ts";

/* What a program passes to a component is checked as a stack's configuration is: before anything is registered. */

const image = `registry.example.com/contrast-node-installer@sha256:${"a".repeat(64)}`;
const manifest = fixtureManifest("contrast-go");
const runtime = deriveRuntime({ platform: "metal-qemu-snp", manifest });
const host = { name: "n1", address: "10.0.0.1", port: 22, hostKey: "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA" };
const distribution = { name: "containerd" as const };

const installer = { group: "workers", namespace: "ns", image, distribution, runtimes: [runtime] };
const hosts = {
  hosts: [host],
  user: "root",
  privateKey: "key",
  distribution: "containerd" as const,
  requirements: [platforms["metal-qemu-snp"].host],
  image,
  registryCa: certificate("authority"),
  ignore: [],
};
const pool = { resourceGroup: "rg", cluster: "c", pool: "cc", vmSize: "Standard_DC4as_cc_v5", count: 1 };
const group = { group: "workers", distribution, runtimes: [{ platform: "metal-qemu-snp" as const, manifest }] };

/** Each component with arguments that it accepts, and how it is made of them. */
const components = {
  NodeInstaller: [installer, (args) => new NodeInstaller("x", args as typeof installer)],
  BareMetalNodes: [hosts, (args) => new BareMetalNodes("x", args as typeof hosts)],
  AksCocoNodePool: [pool, (args) => new AksCocoNodePool("x", args as typeof pool)],
  ContrastRuntime: [
    { image, groups: [group] },
    (args) => new ContrastRuntime("x", args as { image: string; groups: [typeof group] }),
  ],
  LocalCluster: [{ name: "dev" }, (args) => new LocalCluster("x", args as { name: string })],
  RuntimeClasses: [
    { classes: [{ handler: runtime.handler, platform: "metal-qemu-snp" }] },
    (args) => new RuntimeClasses("x", args as ConstructorParameters<typeof RuntimeClasses>[1]),
  ],
  ConfidentialWorkload: [
    { platform: "metal-qemu-snp", manifest, template: { spec: { containers: [] } }, initdata: {} },
    (args) => new ConfidentialWorkload("x", args as unknown as ConstructorParameters<typeof ConfidentialWorkload>[1]),
  ],
} satisfies Record<string, [object, (args: object) => pulumi.ComponentResource]>;

const hostile = "x; touch /tmp/executed";
const mistakes: [keyof typeof components, string, object][] = [
  ["NodeInstaller", "namespace", { namespace: hostile }],
  ["NodeInstaller", "ignoreNodes[0]", { ignoreNodes: [hostile] }],
  ["NodeInstaller", "group", { group: hostile }],
  ["NodeInstaller", "image", { image: "registry.example.com/installer:latest" }],
  ["NodeInstaller", "nodeNames[0]", { nodeNames: ["$(id)"] }],
  ["NodeInstaller", "nodeSelector.a b", { nodeSelector: { "a b": "c" } }],
  ["NodeInstaller", "distribution.unit", { distribution: { name: "containerd", unit: "--help" } }],
  ["NodeInstaller", "distribution.configPath", { distribution: { name: "containerd", configPath: "/etc/a\nunit=b" } }],
  ["NodeInstaller", "onDestroy", { onDestroy: "Leave" }],
  ["NodeInstaller", "pullSecret", { pullSecret: "A" }],
  ["NodeInstaller", "minimumNodes", { minimumNodes: "1; id" }],
  ["NodeInstaller", "runtimes[0].handler", { runtimes: [{ ...runtime, handler: "../x" }] }],
  ["NodeInstaller", "atonce", { atonce: 2 }],
  ["BareMetalNodes", "hosts[0].name", { hosts: [{ ...host, name: hostile }] }],
  ["BareMetalNodes", "hosts[0].address", { hosts: [{ ...host, address: "-oProxyCommand=id" }] }],
  ["BareMetalNodes", "hosts[0].hostKey", { hosts: [{ ...host, hostKey: "ssh-rsa AAAA" }] }],
  ["BareMetalNodes", "user", { user: "root; id" }],
  ["BareMetalNodes", "image", { image: `x"/y@sha256:${"a".repeat(64)}` }],
  [
    "BareMetalNodes",
    "registryCa",
    { registryCa: "-----BEGIN CERTIFICATE-----\nCONTENT\nid\n-----END CERTIFICATE-----" },
  ],
  ["BareMetalNodes", "privateKey", { privateKey: "/root/.ssh/id_ed25519" }],
  ["AksCocoNodePool", "pool", { pool: "Pool 1" }],
  ["AksCocoNodePool", "cluster", { cluster: "../other" }],
  ["ContrastRuntime", "groups[0].group", { groups: [{ ...group, group: "A" }] }],
  [
    "ContrastRuntime",
    "groups[0].runtimes[0].manifest.name",
    { groups: [{ ...group, runtimes: [{ ...group.runtimes[0], manifest: { ...manifest, name: "../x" } }] }] },
  ],
  ["ContrastRuntime", "registryCa", { registryCa: "" }],
  ["LocalCluster", "nodes[0].labels.a", { nodes: [{ name: "n1", labels: { a: "--all" } }] }],
  ["RuntimeClasses", "classes[0].handler", { classes: [{ handler: "kata", platform: "metal-qemu-snp" }] }],
  ["ConfidentialWorkload", "platform", { platform: "metal" }],
];

describe("a component refuses arguments that a stack's configuration could not have", () => {
  test.each(mistakes)("%s: %s", async (component, key, change) => {
    const [args, make] = components[component];
    let refusal: unknown;
    const registered = await record(() => {
      try {
        make({ ...args, ...change });
      } catch (error) {
        refusal = error;
      }
    });
    // A RunError is shown without a stack.
    expect(refusal).toBeInstanceOf(pulumi.RunError);
    const { message } = refusal as Error;
    expect(message).toContain(`The arguments of ${component} x cannot be used:\n  ${key}: `);
    expect(message).not.toContain("id_ed25519");
    expect(registered).toEqual([]);
  });
});

test("every mistake is named, not only the first", () => {
  const make = () => new NodeInstaller("x", { ...installer, namespace: hostile, ignoreNodes: [hostile] });
  expect(make).toThrow(/ {2}ignoreNodes\[0\]: .*\n {2}namespace: /);
});

test("what is not known yet is passed on; a script is made of it only after it was checked", async () => {
  const later = pulumi.output(image);
  const plan: Recorded[] = await record(() => {
    new NodeInstaller("x", { ...installer, image: later, kubeconfig: pulumi.secret("k") });
    new BareMetalNodes("y", { ...hosts, image: later, privateKey: pulumi.secret("k") });
  });
  expect(plan.find(({ name }) => name === "n1-registry")?.inputs.stdin).toContain("registry.example.com");
  expect(registryOf(image)).toBe("registry.example.com");
  expect(() => registryOf('x"/y')).toThrow(pulumi.RunError);
});

test("an authority that is not valid now is named in a warning, and written all the same: clocks differ", async () => {
  const said: string[] = [];
  vi.spyOn(pulumi.log, "warn").mockImplementation(async (message) => {
    said.push(message);
  });
  vi.useFakeTimers({ now: Date.UTC(2200, 0), toFake: ["Date"] });
  try {
    const plan = await record(() => new BareMetalNodes("x", hosts));
    expect(plan.find(({ name }) => name === "n1-registry")?.inputs.stdin).toContain("BEGIN CERTIFICATE");
    expect(said).toEqual([expect.stringMatching(/^registryCa: "O=Example CN=Example Authority" expired on /)]);
  } finally {
    vi.useRealTimers();
    vi.restoreAllMocks();
  }
});
