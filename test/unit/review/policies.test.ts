import { expect, test } from "vitest";
import { rules } from "../../../review/policies/rules.ts";

const pinned = `registry.example.com/a@sha256:${"0".repeat(64)}`;
const violations = (type: string, props: object, stack = "production") =>
  rules.flatMap(({ name, check }) =>
    check({
      type,
      name: "it",
      urn: `urn:pulumi:${stack}::p::${type}::it`,
      props: props as Record<string, unknown>,
    }).map((sentence) => `${name}: ${sentence}`),
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
  ["a resource that has nothing to do with it", "aws:s3:Bucket", { spec: { containers: [{ image: "a" }] } }],
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

test.each([
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
  ["a runtime without a TEE", runtimeClass, insecure, "secure-runtimes", insecure.handler],
  [
    "a group with such a runtime",
    "contrast-runtime:index:NodeInstaller",
    { runtimes: [{ handler: "x", platform: "local" }] },
    "secure-runtimes",
    "The runtime x",
  ],
])("%s is a violation", (_name, type, props, rule, part) => {
  const found = violations(type, props);
  expect(found).toHaveLength(1);
  expect(found[0]).toContain(`${rule}: `);
  expect(found[0]).toContain(part);
});

test.each(["dev", "dev-anna", "dev.lab"])("insecure runtimes are for dev stacks such as %s", (stack) => {
  expect(violations(runtimeClass, insecure, stack)).toEqual([]);
});
test.each(["production", "device", "my-dev"])("%s is no dev stack", (stack) => {
  expect(violations(runtimeClass, insecure, stack)).toHaveLength(1);
});
