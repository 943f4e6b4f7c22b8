import { expect, test } from "vitest";
import { daemonSetPart, nodePart, podPart, scrubbed, specPart } from "../../../../tools/fleet/support-parts.ts";

const secret = "hunter2-hunter2";
const metadata = {
  name: "node-1",
  labels: { "example.com/owner": secret, "runtime.contrast.edgeless.systems/contrast-cc-x": "true" },
  annotations: {
    "status.runtime.contrast.edgeless.systems/metal": "{}",
    "example.com/runtime.contrast.edgeless.systems": secret,
    "kubectl.kubernetes.io/last-applied-configuration": secret,
  },
  managedFields: [{ manager: secret }],
};

test("of each object only what is listed is kept: no other labels, environment, arguments, addresses", () => {
  const env = [{ name: "A", value: secret }];
  const kept = [
    nodePart.parse({
      metadata,
      spec: { podCIDR: secret, taints: [{ key: "k", value: secret, effect: "NoSchedule" }] },
      status: { addresses: [{ address: secret }], images: [{ names: [secret] }], conditions: [] },
    }),
    podPart.parse({
      metadata,
      spec: { nodeName: "node-1", containers: [{ env, args: [secret] }] },
      status: { podIP: secret },
    }),
    daemonSetPart.parse({
      metadata,
      spec: { template: { spec: { containers: [{ name: "installer", image: "i", env, command: [secret] }] } } },
      status: { numberReady: 1, conditions: [{ message: secret }] },
    }),
    specPart.parse({ group: "metal", unknown: secret, runtimes: [{ handler: "h", unknown: secret }] }),
  ];
  const text = JSON.stringify(kept);
  expect(text).not.toContain(secret);
  expect(text).toContain("status.runtime.contrast.edgeless.systems/metal");
  expect(text).toContain('"numberReady":1');
});

test.each([
  [`proxy = "http://me:${secret}@proxy:3128"`, 'proxy = "http://REDACTED@proxy:3128"'],
  [`Authorization: Bearer ${secret}`, "Authorization: Bearer REDACTED"],
  [`password=${secret} user=me`, "password=REDACTED user=me"],
  [`{"token": "${secret}"}`, '{"token": "REDACTED"}'],
  ["eyJhbGciOi.eyJzdWIi.c2ln is refused", "REDACTED is refused"],
  ["-----BEGIN EC PRIVATE KEY-----\nabc\n-----END EC PRIVATE KEY-----", "REDACTED"],
  ["containerd restarts, token queue empty", "containerd restarts, token queue empty"],
])("%s", (text, expected) => {
  expect(scrubbed(text)).toBe(expected);
});
