import * as pulumi from "@pulumi/pulumi";
import { describe, expect, test, vi } from "vitest";
import * as z from "zod";
import { AksCocoNodePool } from "../../../components/aks-coco-node-pool.ts";
import { checkArguments, input, WrongArguments } from "../../../components/arguments.ts";
import { BareMetalNodes } from "../../../components/bare-metal-nodes.ts";
import { ConfidentialWorkload } from "../../../components/confidential-workload.ts";
import { host as hostSchema, privateKey } from "../../../components/config/schema.ts";
import { ContrastRuntime } from "../../../components/contrast-runtime.ts";
import { LocalCluster } from "../../../components/local-cluster.ts";
import { NodeInstaller } from "../../../components/node-installer.ts";
import { RuntimeClasses } from "../../../components/runtime-classes.ts";
import { certificate } from "../../fixtures/certificates.ts";
import { record } from "../../recorded-program.ts";
import { fixtureAdvisories, fixtureHandler, fixtureManifest } from "../runtime/fixtures.ts";

/* What a program passes to a component is checked as a stack's configuration is: before anything is registered. */

const image = `registry.example.com/contrast-node-installer@sha256:${"a".repeat(64)}`;
const manifest = fixtureManifest("contrast-go");
const runtime = {
  platform: "metal-qemu-snp" as const,
  manifest,
  acknowledgedAdvisories: fixtureAdvisories["contrast-go"],
};
const host = {
  name: "n1",
  address: "10.0.0.1",
  port: 22,
  hostKey: "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
};
const distribution = { name: "containerd" as const };

const installer = { group: "workers", namespace: "ns", image, distribution, runtimes: [runtime] };
const hosts = {
  hosts: [host],
  user: "root",
  privateKey: "key",
  distribution: "containerd" as const,
  platforms: ["metal-qemu-snp" as const],
  image,
  registryCa: certificate("authority"),
};
const pool = { resourceGroup: "rg", cluster: "c", pool: "cc", vmSize: "Standard_DC4as_cc_v5", count: 1 };
const group = { group: "workers", distribution, runtimes: [runtime] };

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
    { classes: [{ handler: fixtureHandler("contrast-go"), platform: "metal-qemu-snp" }] },
    (args) => new RuntimeClasses("x", args as ConstructorParameters<typeof RuntimeClasses>[1]),
  ],
  ConfidentialWorkload: [
    {
      platform: "metal-qemu-snp",
      manifest,
      template: { spec: { containers: [] } },
      initdata: { algorithm: "sha256", data: {} },
    },
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
  ["NodeInstaller", "runtimes[0].manifest", { runtimes: [{ ...runtime, acknowledgedAdvisories: [] }] }],
  [
    "NodeInstaller",
    "runtimes[1].manifest",
    { runtimes: [runtime, { ...runtime, manifest: fixtureManifest("contrast-aks") }] },
  ],
  [
    "NodeInstaller",
    "runtimes[0].acknowledgedAdvisories[1]",
    { runtimes: [{ ...runtime, acknowledgedAdvisories: [...(runtime.acknowledgedAdvisories ?? []), "CVE-1"] }] },
  ],
  ["NodeInstaller", "group", { group: pulumi.output("workers") }],
  ["NodeInstaller", "atOnce", { atOnce: Promise.resolve(2) }],
  ["NodeInstaller", "tolerations[0].operator", { tolerations: [{ key: "a", operator: "Exist" }] }],
  ["NodeInstaller", "nodeSelector.a", { nodeSelector: { a: "b c" } }],
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
  ["BareMetalNodes", "onDestroy", { onDestroy: "remove" }],
  ["BareMetalNodes", "platforms[0]", { platforms: ["metal-qemu-sev"] }],
  ["BareMetalNodes", "hosts", { hosts: pulumi.output([host]) }],
  ["BareMetalNodes", "privateKey", { privateKey: "/root/.ssh/id_ed25519" }],
  ["AksCocoNodePool", "pool", { pool: "Pool 1" }],
  ["AksCocoNodePool", "cluster", { cluster: "../other" }],
  ["ContrastRuntime", "groups[0].group", { groups: [{ ...group, group: "A" }] }],
  [
    "ContrastRuntime",
    "groups[0].runtimes[0].manifest.name",
    { groups: [{ ...group, runtimes: [{ ...group.runtimes[0], manifest: { ...manifest, name: "../x" } }] }] },
  ],
  [
    "ContrastRuntime",
    "groups[0].runtimes[1].manifest.files",
    { groups: [{ ...group, runtimes: [runtime, { ...runtime, manifest: { ...manifest, files: [] } }] }] },
  ],
  ["ContrastRuntime", "groups[0].onDestroy", { groups: [{ ...group, onDestroy: "Leave" }] }],
  ["ContrastRuntime", "groups[0].ssh.privateKey", { groups: [{ ...group, ssh: { hosts: [host] } }] }],
  [
    "ContrastRuntime",
    "groups[0].runtimes[0].overhead.memory",
    { groups: [{ ...group, runtimes: [{ ...runtime, overhead: { memory: "much" } }] }] },
  ],
  ["ContrastRuntime", "registryCa", { registryCa: "" }],
  ["LocalCluster", "nodes[0].labels.a", { nodes: [{ name: "n1", labels: { a: "--all" } }] }],
  ["RuntimeClasses", "classes[0].handler", { classes: [{ handler: "kata", platform: "metal-qemu-snp" }] }],
  ["ConfidentialWorkload", "platform", { platform: "metal" }],
  ["ConfidentialWorkload", "template", { template: undefined }],
  ["ConfidentialWorkload", "initdata.algorithm", { initdata: { algorithm: "md5", data: {} } }],
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
    expect(refusal).toBeInstanceOf(pulumi.InputPropertiesError);
    // It is shown without a stack.
    expect(pulumi.RunError.isInstance(refusal)).toBe(true);
    const { message, errors } = refusal as WrongArguments;
    expect(errors.map(({ propertyPath }) => propertyPath)).toContain(key);
    expect(message).toContain(`The arguments of ${component} x cannot be used:\n  ${key}: `);
    expect(message).not.toContain("id_ed25519");
    expect(registered).toEqual([]);
  });
});

test("every mistake is named, with the nearest word", () => {
  const make = () =>
    new NodeInstaller("x", {
      ...installer,
      namespace: hostile,
      ignoreNodes: [hostile],
      onDestroy: "Leave" as "leave",
      minimumNode: 2,
    } as typeof installer);
  const wrong = thrown(make);
  expect(wrong.errors.map(({ propertyPath }) => propertyPath).sort()).toEqual([
    "ignoreNodes[0]",
    "minimumNode",
    "namespace",
    "onDestroy",
  ]);
  expect(wrong.message).toContain(
    'onDestroy: "Leave" is not allowed. Allowed: uninstall, leave. Did you mean "leave"?',
  );
  expect(wrong.message).toMatch(/minimumNode: is not a known key\. .* Did you mean minimumNodes\?/);
});

test("a plain value is asked for where names or numbers depend on it", () => {
  const wrong = thrown(() => new NodeInstaller("x", { ...installer, group: pulumi.output("a") as unknown as string }));
  expect(wrong.errors).toEqual([
    { propertyPath: "group", reason: expect.stringMatching(/^is an output, but must be a plain value/) },
  ]);
});

function thrown(make: () => unknown): WrongArguments {
  try {
    make();
  } catch (error) {
    if (error instanceof WrongArguments) return error;
    throw error;
  }
  throw new Error("nothing was refused");
}

describe("an Input that is known later", () => {
  const later = <T>(value: T): pulumi.Output<T> => pulumi.output(Promise.resolve(value)) as pulumi.Output<T>;

  test("reaches what is registered, in whatever place it stands", async () => {
    const plan = await record(() => {
      new NodeInstaller("x", {
        ...installer,
        image: later(image),
        nodeSelector: { "example.com/pool": later("snp") },
        tolerations: later([{ key: "b" }, { key: "a", operator: "Exists" }]),
        priorityClass: later("high"),
        minimumNodes: later(3),
        pullSecret: later("pull"),
      });
    });
    expect(plan.find(({ type }) => type.endsWith(":DaemonSet"))?.inputs).toHaveProperty(
      "spec.template.spec",
      expect.objectContaining({
        containers: [expect.objectContaining({ image })],
        nodeSelector: { "example.com/pool": "snp", "kubernetes.io/arch": "amd64", "kubernetes.io/os": "linux" },
        tolerations: [
          { key: "a", operator: "Exists" },
          { key: "b", operator: "Equal" },
        ],
        priorityClassName: "high",
        imagePullSecrets: [{ name: "pull" }],
      }),
    );
    expect(plan.find(({ name }) => name === "x-rollout")?.inputs.create).toContain("--minimum-nodes 3 ");
  });

  test("gives the same as a plain value", async () => {
    const plain = {
      ...{ nodeNames: ["b", "a"], stallTimeout: 5, tolerations: [{ key: "x" }], priorityClass: "high" },
      installerPod: { labels: { team: "platform" }, limits: { cpu: "1" } },
    };
    const made = (args: object) => record(() => new NodeInstaller("x", { ...installer, ...args }));
    const known = await made(plain);
    expect(await made(Object.fromEntries(Object.entries(plain).map(([key, value]) => [key, later(value)])))).toEqual(
      known,
    );
  });

  test("may be a host that the same program creates", async () => {
    const plan = await record(
      () => {
        const machine = new Machine("machine");
        new BareMetalNodes("x", {
          ...hosts,
          hosts: [{ name: "n1", address: machine.address, hostKey: machine.hostKey }],
          user: later("admin"),
          registryCa: later(hosts.registryCa),
        });
      },
      { outputs: ({ type }) => (type === "test:index:Machine" ? { address: "192.0.2.7", hostKey: host.hostKey } : {}) },
    );
    const of = (concern: string) => plan.find(({ name }) => name === `x-n1-${concern}`)?.inputs;
    expect(of("prepare")?.connection).toMatchObject({
      secret: { host: "192.0.2.7", port: 22, user: "admin", hostKey: host.hostKey },
    });
    expect(of("prepare")?.create).toBe("sudo -n sh -c 'sh -s'");
    expect(of("registry")?.stdin).toContain("BEGIN CERTIFICATE");
    expect(plan.find(({ type }) => type.endsWith(":BareMetalNodes"))?.inputs.hosts).toEqual([
      { name: "n1", address: "192.0.2.7", hostKey: host.hostKey },
    ]);
  });

  test("is checked when it is known, and named by its place", async () => {
    const { hosts } = checkArguments("X", twoHosts, { hosts: [{ address: "a" }, { address: later("a b") }] });
    expect(hosts[0]?.address).toBe("a");
    await expect(known(hosts[1]?.address)).rejects.toThrow(
      /^The arguments of X cannot be used:\n {2}hosts\[1\]\.address: "a b" must be a host name/,
    );
  });

  test("keeps its secret to itself, also where it is wrong", async () => {
    const { key } = checkArguments("X", twoHosts, { hosts: [], key: pulumi.secret("/home/me/.ssh/id_ed25519") });
    await expect(known(key)).rejects.toThrow(/ key: \[secret\] must be the private key itself, not its path\.$/);
  });
});

const twoHosts = z.strictObject({
  hosts: z.array(z.strictObject({ address: input(hostSchema.shape.address) })),
  key: input(privateKey).optional(),
});

/** What an output becomes. */
function known(output: unknown): Promise<unknown> {
  const { promise, ...parts } = output as { promise(): Promise<unknown> };
  // Each part of a failed output rejects, and nobody else asks for them here.
  for (const part of Object.values(parts)) if (part instanceof Promise) part.catch(() => {});
  return promise();
}

class Machine extends pulumi.CustomResource {
  declare readonly address: pulumi.Output<string>;
  declare readonly hostKey: pulumi.Output<string>;

  constructor(name: string) {
    super("test:index:Machine", name, { address: undefined, hostKey: undefined });
  }
}

test("an authority that is not valid now is named in a warning, and written all the same: clocks differ", async () => {
  const said: string[] = [];
  vi.spyOn(pulumi.log, "warn").mockImplementation(async (message) => {
    said.push(message);
  });
  vi.useFakeTimers({ now: Date.UTC(2200, 0), toFake: ["Date"] });
  try {
    const plan = await record(() => new BareMetalNodes("x", hosts));
    expect(plan.find(({ name }) => name === "x-n1-registry")?.inputs.stdin).toContain("BEGIN CERTIFICATE");
    expect(said).toEqual([expect.stringMatching(/^registryCa: "O=Example CN=Example Authority" expired on /)]);
  } finally {
    vi.useRealTimers();
    vi.restoreAllMocks();
  }
});
