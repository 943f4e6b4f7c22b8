import { readFile } from "node:fs/promises";
import { expect, test, vi } from "vitest";
import { ConfidentialWorkload } from "../../../../components/confidential-workload.ts";
import { readRuntimes } from "../../../../components/config/payloads.ts";
import { ContrastRuntime } from "../../../../components/contrast-runtime.ts";
import { measuredRuntime } from "../../../../measure/runtime.ts";
import { record } from "../../../recorded-program.ts";
import { fixtureAdvisories, fixtureManifest } from "../../runtime/fixtures.ts";

vi.mock(import("../../../../measure/runtime.ts"), async (original) => {
  const real = await original();
  return { ...real, measuredRuntime: vi.fn(real.measuredRuntime) };
});

const image = `registry.example.com/contrast-node-installer@sha256:${"a".repeat(64)}`;

test("a runtime is derived once for a component and all that is below it", async () => {
  const runtimes = ["contrast-go", "kata-rs"].map((name) => ({
    platform: "metal-qemu-snp" as const,
    manifest: fixtureManifest(name),
    acknowledgedAdvisories: fixtureAdvisories[name] ?? [],
  }));
  const plan = await record(
    () =>
      new ContrastRuntime("x", {
        image,
        groups: [{ group: "workers", distribution: { name: "containerd" }, runtimes }],
      }),
  );
  expect(plan.filter(({ type }) => type.endsWith(":RuntimeClass"))).toHaveLength(2);
  expect(measuredRuntime).toHaveBeenCalledTimes(2);
});

test.each(["containerd", "k0s", "microk8s"] as const)(
  "on %s, stack and components say the same handler",
  async (distribution) => {
    const [platform, manifest] = ["metal-qemu-snp", fixtureManifest("kata-go")] as const;
    const container = { name: "web", image, resources: { limits: { cpu: "1", memory: "1Gi" } } };
    const plan = await record(() => {
      new ContrastRuntime("x", {
        image,
        groups: [{ group: "workers", distribution: { name: distribution }, runtimes: [{ platform, manifest }] }],
      });
      new ConfidentialWorkload("web", {
        ...{ platform, manifest, distribution },
        template: { spec: { containers: [container] } },
        initdata: { algorithm: "sha256", data: { "policy.rego": "package agent_policy" } },
      });
    });
    const handlerOf = (type: string) => plan.find((one) => one.type.endsWith(type))?.inputs.handler;
    const { handler } = measuredRuntime({ platform, manifest, distribution }).spec;
    const shape = {
      distribution: { name: distribution },
      runtimes: [
        {
          platform,
          payload: "test/fixtures/manifests/fixture-kata-go.json",
          ...{ acknowledgedAdvisories: [], acknowledgedWeakenings: [], classNames: [], currentFor: [], debug: false },
        },
      ],
    };
    const read = await readRuntimes("workers", shape, (path) => readFile(path, "utf8"), []);
    expect([handlerOf(":RuntimeClass"), handlerOf("ConfidentialWorkload"), ...read.map((one) => one.handler)]).toEqual([
      ...[handler, handler, handler],
    ]);
  },
);
