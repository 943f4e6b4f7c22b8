import { expect, test } from "vitest";
import { expectMistakes, mistakesIn, withGroup } from "./stacks.ts";

/* What a group says of its installers' pods and of the taint that they lift; shapes alone: see shape.test.ts. */

test.each([
  [
    "a label that the DaemonSet needs",
    { labels: { "app.kubernetes.io/name": "x" } },
    "labels",
    '{"app.kubernetes.io/name":"x"} must not set app.kubernetes.io/name and app.kubernetes.io/part-of.',
  ],
  [
    "a limit below what is requested by default",
    { limits: { memory: "64Mi" } },
    "limits.memory",
    '"64Mi" is less than what the container requests, 96Mi: its pods would be refused. Allow more, or set requests.memory.',
  ],
  [
    "a limit below what is requested",
    { requests: { cpu: "1" }, limits: { cpu: "900m" } },
    "limits.cpu",
    '"900m" is less than what the container requests, 1: its pods would be refused. Allow more, or set requests.cpu.',
  ],
])("%s", async (_what, installerPod, key, says) => {
  await expectMistakes(withGroup({ installerPod }), { [`groups.workers.installerPod.${key}`]: says });
});

test.each([
  { installerPod: { limits: { cpu: "0.02", memory: "96Mi" } } },
  { installerPod: { requests: { memory: "1Gi" }, limits: { memory: "1024Mi" } } },
  { installerPod: { annotations: { "example.com/text": "any text: even this" } } },
  { startupTaint: "runtime.contrast.edgeless.systems/not-ready" },
  { startupTaint: "startup-taint.cluster-autoscaler.kubernetes.io/contrast" },
  { startupTaint: "not-ready" },
])("no mistake: %j", async (changes) => {
  expect(await mistakesIn(withGroup(changes))).toEqual([]);
});
