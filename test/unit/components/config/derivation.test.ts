import { expect, test, vi } from "vitest";
import { ContrastRuntime } from "../../../../components/contrast-runtime.ts";
import { measuredRuntime } from "../../../../measure/runtime.ts";
import { record } from "../../../recorded-program.ts";
import { fixtureAdvisories, fixtureManifest } from "../../runtime/fixtures.ts";

vi.mock(import("../../../../measure/runtime.ts"), async (original) => {
  const real = await original();
  return { ...real, measuredRuntime: vi.fn(real.measuredRuntime) };
});

test("a runtime is derived once for a component and all that is below it", async () => {
  const runtimes = ["contrast-go", "kata-rs"].map((name) => ({
    platform: "metal-qemu-snp" as const,
    manifest: fixtureManifest(name),
    acknowledgedAdvisories: fixtureAdvisories[name] ?? [],
  }));
  const image = `registry.example.com/contrast-node-installer@sha256:${"a".repeat(64)}`;
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
