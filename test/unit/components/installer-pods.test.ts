import { describe, expect, test } from "vitest";
import type { Recorded } from "../../recorded-program.ts";
import { find, group, podOf, register } from "./registered.ts";

describe("what a cluster wants of the installer's pods", () => {
  const installerPod = {
    labels: { "example.com/team": "platform" },
    annotations: { "sidecar.istio.io/inject": "false" },
    requests: { memory: "128Mi" },
    limits: { cpu: "500m", memory: "1Gi" },
  };

  test("is in the template, beside the pods' own labels, and not in the selector", async () => {
    const plan = await register([group("metal-qemu-snp", "contrast-go", { installerPod })]);
    const { spec } = find(plan, ":DaemonSet").inputs as {
      spec: { selector: { matchLabels: object }; template: { metadata: object } };
    };
    const own = { "app.kubernetes.io/name": "contrast-installer-workers" };
    expect(spec.template.metadata).toEqual({
      labels: { ...own, "app.kubernetes.io/part-of": "contrast-runtime", ...installerPod.labels },
      annotations: installerPod.annotations,
    });
    expect(spec.selector.matchLabels).toEqual(own);
    expect(podOf(plan).containers[0]?.resources).toEqual({
      requests: { cpu: "20m", memory: "128Mi" },
      limits: installerPod.limits,
    });
  });
});

describe("a startup taint", () => {
  const startupTaint = "example.com/not-ready";
  const policies = (plan: Recorded[]) =>
    JSON.stringify(plan.filter(({ type }) => type.endsWith(":ValidatingAdmissionPolicy")));

  test("is tolerated by the installers, told to them, and the only thing of a node's spec that they may change", async () => {
    const tolerations = [{ key: "dedicated", operator: "Exists" }];
    const plan = await register([group("metal-qemu-snp", "contrast-go", { startupTaint, tolerations })]);
    expect(podOf(plan)).toHaveProperty("tolerations", [
      { key: "dedicated", operator: "Exists" },
      { key: startupTaint, operator: "Exists" },
    ]);
    expect(JSON.stringify(find(plan, ":ConfigMap").inputs)).toContain(startupTaint);
    expect(policies(plan)).toContain(`remove its taint ${startupTaint}`);
  });

  test("is in no policy of a group without one", async () => {
    expect(policies(await register([group("metal-qemu-snp", "contrast-go")]))).not.toContain("taint");
  });
});
