import { expect, test } from "vitest";
import { rules } from "../../../../review/policies/rules.ts";

const pinned = `registry.example.com/a@sha256:${"0".repeat(64)}`;
const violations = (type: string, props: object, stack = "production", stacks?: string[], parents = "") =>
  rules.flatMap(({ name, check }) =>
    check(
      {
        type,
        name: "it",
        urn: `urn:pulumi:${stack}::p::${parents}${type}::it`,
        props: props as Record<string, unknown>,
      },
      stacks && { stacks },
    ).map((sentence) => `${name}: ${sentence}`),
  );
const pods = (...containers: object[]) => ({ spec: { template: { spec: { containers } } } });
const connection = { host: "192.0.2.1", hostKey: "ssh-ed25519 AAAA" };
const cluster = "azure-native:containerservice:ManagedCluster";
const runtimeClass = "kubernetes:node.k8s.io/v1:RuntimeClass";
const insecure = { handler: "contrast-insecure-local-00000000" };

test.each([
  ["a pinned DaemonSet", "kubernetes:apps/v1:DaemonSet", pods({ name: "a", image: pinned })],
  [
    "a pinned CronJob",
    "kubernetes:batch/v1:CronJob",
    { spec: { jobTemplate: { spec: pods({ name: "a", image: pinned }).spec } } },
  ],
  ["a resource that has nothing to do with it", "aws:s3:Bucket", { spec: { containers: ["a", { name: "b" }] } }],
  ["a patch that leaves the image alone", "kubernetes:apps/v1:DaemonSetPatch", pods({ name: "a", tty: true })],
  ["a chart, whose objects are resources", "kubernetes:helm.sh/v4:Chart", { chart: "x" }],
  ["a command that checks", "command:local:Command", { create: "curl -o f https://a; sha256sum -c f.sum" }],
  ["a host with its key", "command:remote:Command", { connection }],
  ["a host behind a known one", "command:remote:Command", { connection: { ...connection, proxy: connection } }],
  ["a private cluster", cluster, { apiServerAccessProfile: { enablePrivateCluster: true } }],
  [
    "a cluster for few",
    cluster,
    { apiServerAccessProfile: { authorizedIPRanges: ["192.0.2.0/24", "192.0.2.1", "2001:db8::/32"] } },
  ],
  ["a runtime with a TEE", runtimeClass, { handler: "contrast-cc-metal-qemu-snp-00000000" }],
])("%s is allowed", (_name, type, props) => {
  expect(violations(type, props)).toEqual([]);
});

test.each<readonly [string, string, object, string, string]>([
  [
    "an image by tag",
    "kubernetes:apps/v1:DaemonSet",
    pods({ name: "a", image: "busybox:1" }),
    "pinned-images",
    '"busybox:1"',
  ],
  [
    "a short digest",
    "kubernetes:apps/v1:Deployment",
    pods({ name: "a", image: "a@sha256:00" }),
    "pinned-images",
    '"a@sha256:00"',
  ],
  [
    "an init container of a Pod",
    "kubernetes:core/v1:Pod",
    { spec: { initContainers: [{ name: "i", image: "x" }] } },
    "pinned-images",
    'Container "i"',
  ],
  [
    "a CronJob's image",
    "kubernetes:batch/v1:CronJob",
    { spec: { jobTemplate: { spec: pods({ name: "c", image: "x" }).spec } } },
    "pinned-images",
    'Container "c"',
  ],
  ["a host without a key", "command:remote:Command", { connection: { host: "h" } }, "host-keys", '"h" has no hostKey'],
  [
    "an empty key",
    "command:remote:CopyToRemote",
    { connection: { host: "h", hostKey: "" } },
    "host-keys",
    '"h" has no hostKey',
  ],
  [
    "a jump host without a key",
    "command:remote:Command",
    { connection: { ...connection, proxy: { host: "j" } } },
    "host-keys",
    '"j" has no hostKey',
  ],
  ["an API server for everybody", cluster, {}, "private-api-server", "every address"],
  [
    "a range that is everybody",
    "azure-native:containerservice/v20250901:ManagedCluster",
    { apiServerAccessProfile: { authorizedIPRanges: ["10.0.0.0/8", "0.0.0.0/0"] } },
    "private-api-server",
    "the range 0.0.0.0/0",
  ],
  ...["1.2.3.4/0", "64.0.0.0/2", "2000::/3", "0.0.0.0/1 "].map(
    (range) =>
      [
        `the range ${range}`,
        cluster,
        { apiServerAccessProfile: { authorizedIPRanges: [range] } },
        "private-api-server",
        `the range ${range}`,
      ] as [string, string, object, string, string],
  ),
  ...["curl https://a | python3 -", "wget -O- https://a |\\\n sh", "curl https://a | sudo -E node"].map(
    (text) => [text, "command:local:Command", { create: text }, "checked-programs", "runs what it downloads"] as const,
  ),
  [
    "something before the image's name",
    "kubernetes:core/v1:Pod",
    { spec: { containers: [{ name: "a", image: `evil\n${pinned}` }] } },
    "pinned-images",
    'Container "a"',
  ],
  ["a blank key", "command:remote:Command", { connection: { host: "h", hostKey: " " } }, "host-keys", '"h"'],
  [
    "a patch of a pod without containers",
    "kubernetes:apps/v1:DaemonSetPatch",
    { spec: { template: { spec: { hostPID: true } } } },
    "confined-pods",
    "hostPID",
  ],
  [
    "the node's files by a patch",
    "kubernetes:apps/v1:DaemonSetPatch",
    { spec: { template: { spec: { volumes: [{ name: "a", hostPath: { path: "/" } }] } } } },
    "confined-pods",
    "directory /",
  ],
  [
    "a capability that leads to the node",
    "kubernetes:core/v1:Pod",
    { spec: { containers: [{ name: "a", image: pinned, securityContext: { capabilities: { add: ["SYS_ADMIN"] } } }] } },
    "confined-pods",
    "SYS_ADMIN",
  ],
  ...["hostPath", "local"].map(
    (kind) =>
      [
        `a ${kind} volume of the cluster`,
        "kubernetes:core/v1:PersistentVolume",
        { spec: { [kind]: { path: "/" } } },
        "confined-pods",
        "directory /",
      ] as const,
  ),
  ["such a runtime in a list", `${runtimeClass}List`, { items: [insecure] }, "secure-runtimes", insecure.handler],
  ["a runtime without a TEE", runtimeClass, insecure, "secure-runtimes", insecure.handler],
  [
    "a group with such a runtime",
    "contrast-runtime:index:NodeInstaller",
    { runtimes: [{ handler: "x", platform: "local" }] },
    "secure-runtimes",
    "The runtime x",
  ],
  [
    "a group with VMs that have no TEE",
    "contrast-runtime:index:NodeInstaller",
    { runtimes: [{ handler: "x", platform: "metal-qemu-insecure" }] },
    "secure-runtimes",
    "The runtime x",
  ],
])("%s is a violation", (_name, type, props, rule, part) => {
  const found = violations(type, props);
  expect(found).toHaveLength(1);
  expect(found[0]).toContain(`${rule}: `);
  expect(found[0]).toContain(part);
});

test("insecure runtimes are for the stack dev, and those that the configuration names", () => {
  expect(violations(runtimeClass, insecure, "dev")).toEqual([]);
  expect(violations(runtimeClass, insecure, "lab", ["lab"])).toEqual([]);
});
test.each(["production", "device", "my-dev", "dev-production", "dev.lab", "dev-anna"])(
  "%s is no dev stack",
  (stack) => {
    expect(violations(runtimeClass, insecure, stack)).toHaveLength(1);
    expect(violations(runtimeClass, insecure, stack, ["lab"])).toHaveLength(1);
  },
);

const tagged = { name: "a", image: "busybox:1" };
test.each<[string, string, object]>([
  ["a PodTemplate", "kubernetes:core/v1:PodTemplate", { template: { spec: { containers: [tagged] } } }],
  ["a patch of a pod", "kubernetes:core/v1:PodPatch", { spec: { containers: [tagged] } }],
  ["a patch of a DaemonSet", "kubernetes:apps/v1:DaemonSetPatch", pods(tagged)],
  ["a list", "kubernetes:apps/v1:DaemonSetList", { items: [pods(tagged)] }],
  ["a container for debugging", "kubernetes:core/v1:Pod", { spec: { containers: [], ephemeralContainers: [tagged] } }],
  [
    "a volume",
    "kubernetes:core/v1:Pod",
    { spec: { containers: [], volumes: [{ name: "v", image: { reference: "a:1" } }] } },
  ],
  ["a custom resource", "kubernetes:argoproj.io/v1alpha1:Rollout", { spec: { workload: { a: [pods(tagged)] } } }],
  ["another provider's resource", "docker:index:Stack", { deep: [{ containers: [tagged] }] }],
])("an image by tag in %s is a violation", (_name, type, props) => {
  expect(violations(type, props)).toEqual([expect.stringContaining("pinned-images")]);
});

test.each<[string, object]>([
  ["the node's processes", { hostPID: true }],
  ["the node's network", { hostNetwork: true }],
  ["the node's memory", { hostIPC: true }],
  ["the node's files", { volumes: [{ name: "v", hostPath: { path: "/" } }] }],
  ["everything", { containers: [{ name: "a", image: pinned, securityContext: { privileged: true } }] }],
  [
    "everything, at its start",
    { initContainers: [{ name: "a", image: pinned, securityContext: { privileged: true } }] },
  ],
])("a pod that has %s is a violation, unless it is an installer's", (_name, spec) => {
  const props = { spec: { template: { spec: { containers: [], ...spec } } } };
  const type = "kubernetes:apps/v1:DaemonSet";
  const chain = "contrast-runtime:index:ContrastRuntime$contrast-runtime:index:NodeInstaller$";
  expect(violations(type, props)).toEqual([expect.stringContaining("confined-pods")]);
  expect(violations("kubernetes:batch/v1:Job", props, "production", undefined, chain)).toHaveLength(1);
  expect(violations(type, props, "production", undefined, chain)).toEqual([]);
});

test("a Helm release cannot be looked into", () => {
  expect(violations("kubernetes:helm.sh/v3:Release", { chart: "x" })).toEqual([
    expect.stringContaining("readable-manifests"),
  ]);
});

test.each([
  "curl https://a | sh",
  "wget -qO- a | sudo -E bash",
  'sh -c "$(curl a)"',
  "bash <(curl a)",
  "curl a | /bin/sh",
])("%s is a violation wherever it runs", (text) => {
  expect(violations("command:local:Command", { create: text })).toEqual([expect.stringContaining("checked-programs")]);
  expect(violations("command:remote:Command", { connection, stdin: text })).toHaveLength(1);
});

test("a value that only the update will know hides nothing that is known", () => {
  const spec = { containers: [tagged] };
  Object.defineProperty(spec, "volumesOf", {
    enumerable: true,
    get: () => {
      throw new Error("not known yet");
    },
  });
  expect(violations("kubernetes:core/v1:Pod", { spec })).toHaveLength(1);
});

test("a platform that nobody knows is none with a TEE", () => {
  const card = { runtimes: [{ handler: "x", platform: "constructor" }] };
  expect(violations("contrast-runtime:index:NodeInstaller", card)).toEqual([
    expect.stringContaining("secure-runtimes"),
  ]);
});
