import { describe, expect, test } from "vitest";
import { fixtureManifest } from "../../runtime/fixtures.ts";
import { go, groupSteps, linesOf, next, otherKernel, runtime, runtimeStep, summaryOf } from "../documents.ts";

describe("runtimes", () => {
  test("a runtime that is added", () => {
    const summary = summaryOf(...groupSteps({ runtimes: [go] }, { runtimes: [go, next] }));
    expect(linesOf(summary, "Runtimes")).toEqual([
      `known: Group \`workers\` gets \`${next.handler}\` (platform \`metal-qemu-snp\`, payload \`fixture-contrast-go-next\`).`,
    ]);
    expect(linesOf(summary, "Restarts of containerd")[0]).toBe(
      "predicted: Group `workers`: containerd restarts at most once on each node, 1 at a time. Pods keep running.",
    );
  });

  test("a runtime that is removed is retired, and pods that use it stop the update", () => {
    const lines = linesOf(summaryOf(...groupSteps({ runtimes: [go, next] }, { runtimes: [next] })), "Runtimes");
    expect(lines[0]).toContain(`known: Group \`workers\` loses \`${go.handler}\``);
    expect(lines[1]).toMatch(/^predicted: .*While pods do, the update fails and names them\.$/);
  });

  test("a payload edited in place is one exchange, with what differs", () => {
    const summary = summaryOf(...groupSteps({ runtimes: [go] }, { runtimes: [otherKernel] }));
    expect(linesOf(summary, "Runtimes")[0]).toBe(
      `known: Group \`workers\` exchanges \`${go.handler}\` (platform \`metal-qemu-snp\`, payload \`fixture-contrast-go\`) ` +
        `for \`${otherKernel.handler}\`, payload \`patched\`. What differs: the kernel.`,
    );
    expect(linesOf(summary, "Restarts of containerd")[0]).toContain("at most twice");
  });

  test("two groups with the same change are two lines each, and their restarts are added up", () => {
    const steps = ["a", "b"].flatMap((group, index) =>
      groupSteps(
        { group, runtimes: [go], nodes: ["n1", "n2"].slice(index), atOnce: 2 },
        { group, runtimes: [go, next], nodes: ["n1", "n2"].slice(index), atOnce: 2 },
      ),
    );
    expect(linesOf(summaryOf(...steps), "Restarts of containerd")).toEqual([
      "predicted: Group `a`: containerd restarts at most once on each node, 2 at a time; at most 2 restarts on 2 nodes. Pods keep running.",
      "predicted: Group `b`: containerd restarts at most once on each node, 2 at a time; at most 1 restart on 1 node. Pods keep running.",
      "predicted: In all groups: at most 3 restarts.",
    ]);
  });

  test("a group that leaves with onDestroy: leave is left as it is, and nothing restarts", () => {
    const summary = summaryOf(...groupSteps({ runtimes: [go], onDestroy: "leave" }, undefined));
    expect(linesOf(summary, "Runtimes")).toContainEqual(expect.stringContaining("what is on its nodes stays there"));
    expect(linesOf(summary, "Restarts of containerd")).toEqual([]);
  });

  test("where something else applies the manifests, no update waits or fails, and a group that goes leaves its nodes", () => {
    const [manifestsOnly, nodes] = [true, ["n1"]];
    const state = (...runtimes: (typeof go)[]) => ({ runtimes, manifestsOnly, nodes });
    const removed = summaryOf(...groupSteps(state(go, next), { ...state(next), nodes: ["n2"] }));
    expect(linesOf(removed, "Runtimes")[1]).toMatch(/uninstalled when no pod uses it\. Nothing waits for that\.$/);
    expect(linesOf(removed, "Nodes").at(-1)).toContain("No update names them; `contrast-runtime status` does.");
    const gone = summaryOf(...groupSteps(state(go), undefined));
    expect(linesOf(gone, "Runtimes")[1]).toContain(
      "what is on its nodes stays there: removed manifests uninstall nothing.",
    );
    expect(linesOf(gone, "Restarts of containerd")).toEqual([]);
  });

  test("from a cluster to manifests, the update uninstalls", () => {
    const state = { runtimes: [go], nodes: ["n1", "n2"] };
    const summary = summaryOf(...groupSteps(state, { ...state, manifestsOnly: true }));
    expect(linesOf(summary, "Runtimes")).toEqual([
      expect.stringMatching(/^predicted: The update uninstalls what is on/),
    ]);
    expect(linesOf(summary, "Restarts of containerd")[0]).toContain("at most 2 restarts on 2 nodes");
    const left = summaryOf(...groupSteps({ ...state, onDestroy: "leave" }, { ...state, manifestsOnly: true }));
    expect(linesOf(left, "Runtimes")).toEqual([]);
  });

  test("another distribution, and payloads that only have another name", () => {
    const renamed = { ...go, payload: "renamed" };
    expect(
      linesOf(summaryOf(...groupSteps({ runtimes: [go] }, { runtimes: [renamed] })), "Restarts of containerd"),
    ).toEqual(["predicted: Group `workers`: nothing that containerd reads changes; it does not restart."]);
    const other = groupSteps({ runtimes: [go] }, { runtimes: [go], distribution: "k3s" });
    expect(linesOf(summaryOf(...other), "Restarts of containerd").at(-1)).toBe(
      "unknown: Whether each node of `workers` accepts the other distribution.",
    );
  });

  test("another pace alone restarts nothing", () => {
    const summary = summaryOf(...groupSteps({ runtimes: [go] }, { runtimes: [go], atOnce: 5 }));
    expect(linesOf(summary, "Restarts of containerd")).toEqual([
      "predicted: Group `workers`: nothing that containerd reads changes; it does not restart.",
    ]);
    expect(linesOf(summary, "Runtimes")).toEqual([]);
  });

  test("settings of installers, and what of a runtime its handler's name does not say", () => {
    const host = { ...go.host, guestPull: !go.host.guestPull };
    const summary = summaryOf(
      ...groupSteps({ runtimes: [go] }, { runtimes: [{ ...go, host }], atOnce: 50, distribution: "k3s" }),
    );
    expect(linesOf(summary, "Nodes")).toEqual([
      "known: Group `workers`: `atOnce` `1` → `50`.",
      "known: Group `workers`: `distribution.name` `containerd` → `k3s`.",
      `known: Group \`workers\`, \`${go.handler}\`: \`host.guestPull\` \`${go.host.guestPull}\` → \`${host.guestPull}\`.`,
    ]);
  });

  test("advisories that a stack acknowledges, of handlers that stay", () => {
    const advisories = (handler: string) => ({ [handler]: ["GHSA-1", "GHSA-2"] });
    const acknowledged = groupSteps({ runtimes: [go] }, { runtimes: [go], advisories: advisories(go.handler) });
    expect(linesOf(summaryOf(...acknowledged), "Nodes")).toEqual([
      `known: Group \`workers\`, \`${go.handler}\`: \`advisories\` \`nothing\` → \`["GHSA-1","GHSA-2"]\`.`,
    ]);
    const replaced = groupSteps(
      { runtimes: [go], advisories: advisories(go.handler) },
      { runtimes: [next], advisories: advisories(next.handler) },
    );
    expect(linesOf(summaryOf(...replaced), "Nodes")).toEqual([]);
  });

  test("which nodes a class's pods land on", () => {
    const spec = (value: string) => ({ handler: go.handler, scheduling: { nodeSelector: { label: value } } });
    const step = {
      type: "kubernetes:node.k8s.io/v1:RuntimeClass",
      name: "c",
      before: spec("true"),
      after: spec("any"),
    };
    const changed = "known: RuntimeClass `c`: `scheduling.nodeSelector.label` `true` → `any`.";
    expect(linesOf(summaryOf({ ...step, op: "update" }), "Runtimes")).toEqual([changed]);
    expect(linesOf(summaryOf({ ...step, op: "replace" }), "Runtimes")).toEqual([
      changed,
      "known: RuntimeClass `c` is deleted and created again.",
    ]);
  });

  test("another overhead", () => {
    const spec = (memory: string) => ({ handler: go.handler, overhead: { podFixed: { memory } } });
    const step = { op: "update", type: "kubernetes:node.k8s.io/v1:RuntimeClass", name: go.handler };
    const lines = linesOf(summaryOf({ ...step, before: spec("682Mi"), after: spec("1Gi") }), "Runtimes");
    expect(lines[0]).toBe(
      `known: RuntimeClass \`${go.handler}\`: overhead \`{"memory":"682Mi"}\` → \`{"memory":"1Gi"}\`.`,
    );
  });
});

describe("attestation", () => {
  const [old, now] = ["a".repeat(96), "b".repeat(96)];

  test("values that change, and the measured inputs that are why", () => {
    const state = (launch: string, kernel: string, line: string) => ({
      launch: { "EPYC-Milan launch digest, 2 vCPUs": launch },
      measured: { kernel: kernel.repeat(64), "kernel command line": `quiet ${line}` },
    });
    const attestation = (before: ReturnType<typeof state>, after: typeof before) =>
      linesOf(
        summaryOf(
          runtimeStep({ [go.handler]: before }, { [otherKernel.handler]: after }),
          ...groupSteps({ runtimes: [go] }, { runtimes: [otherKernel] }),
        ),
        "Attestation",
      );
    const changed = `known: \`${otherKernel.handler}\`: EPYC-Milan launch digest, 2 vCPUs \`${old}\` → \`${now}\`.`;
    const refused = `predicted: Verifiers that do not know these values refuse pods of \`${otherKernel.handler}\`.`;
    expect(attestation(state(old, "8", "a=1"), state(now, "9", "a=`2`"))).toEqual([
      changed,
      `known: \`${otherKernel.handler}\`: SNP launch digests change because of the kernel (\`888888888888…\` → \`999999999999…\`) and kernel command line (\`a=1\` → \`a= 2 \`).`,
      refused,
    ]);
    expect(attestation(state(old, "8", "a"), state(now, "8", "a"))).toEqual([
      doubt("kernel", otherKernel.handler),
      changed,
      `unknown: Why the values of \`${otherKernel.handler}\` differ: nothing that its manifest says of measurements does.`,
      refused,
    ]);
  });

  const doubt = (role: string, handler: string) =>
    `unknown: Whether the launch values of \`${handler}\` are those of its ${role}: that is another file than in \`${go.handler}\`, but what its manifest says was measured of it is the same.`;

  test.each(["firmware", "initrd", "rootfs"] as const)(
    "another %s that is said to measure the same is not said to give the same values",
    (role) => {
      const sha256 = "e".repeat(64);
      const manifest = fixtureManifest("contrast-go");
      const { measurement = {} } = manifest;
      const other = runtime({
        ...manifest,
        files: manifest.files.map((file) => (file.role === role ? { ...file, sha256 } : file)),
        measurement: { ...measurement, [role]: { ...measurement[role], sha256 } },
      });
      const measured = { firmware: "f", kernel: "k", initrd: "i", "kernel command line": "c" };
      const state = { launch: { "EPYC-Milan launch digest, 2 vCPUs": old }, measured };
      const lines = linesOf(
        summaryOf(
          runtimeStep({ [go.handler]: state }, { [other.handler]: state }),
          ...groupSteps({ runtimes: [go] }, { runtimes: [other] }),
        ),
        "Attestation",
      );
      expect(lines).toEqual([doubt(role, other.handler)]);
    },
  );

  test("of VMs without a TEE nothing is said: no verifier sees them", () => {
    const insecure = runtime("kata-go", "metal-qemu-insecure");
    const steps = groupSteps({ runtimes: [] }, { runtimes: [insecure] });
    const card = { [insecure.handler]: { launch: {}, measured: {} } };
    const summary = summaryOf(runtimeStep({}, card), ...steps);
    expect(JSON.stringify(summary)).toContain(insecure.handler);
    expect(JSON.stringify(summary)).not.toContain("verifier will see");
  });

  test("a runtime whose launch is the same is said to be", () => {
    const launch = { launch: { "EPYC-Milan launch digest, 2 vCPUs": old } };
    const steps = groupSteps({ runtimes: [go] }, { runtimes: [next] });
    const lines = linesOf(
      summaryOf(runtimeStep({ [go.handler]: launch }, { [next.handler]: launch }), ...steps),
      "Attestation",
    );
    expect(lines).toEqual([
      `known: Verifiers see the same launch values of \`${next.handler}\` as of \`${go.handler}\`.`,
    ]);
  });

  test("of values that nobody can compute it is not said that verifiers see the same", () => {
    const unknown = "not predictable: covers the kernel command line";
    const steps = groupSteps({ runtimes: [go] }, { runtimes: [next] });
    const lines = (launch: Record<string, string>) =>
      linesOf(
        summaryOf(runtimeStep({ [go.handler]: { launch } }, { [next.handler]: { launch } }), ...steps),
        "Attestation",
      );
    const of = `of \`${next.handler}\` as of \`${go.handler}\``;
    expect(lines({ "SNP launch digest": unknown })).toEqual([
      `unknown: Whether verifiers see the same SNP launch digest ${of}: not predictable.`,
    ]);
    expect(lines({ MRTD: old, RTMR0: unknown, RTMR1: unknown })).toEqual([
      `known: Verifiers see the same MRTD ${of}.`,
      `unknown: Whether verifiers see the same RTMR0 and RTMR1 ${of}: not predictable.`,
    ]);
  });

  test("a runtime that another group has already is nothing new to verifiers", () => {
    const cards = { [go.handler]: { launch: { "EPYC-Milan launch digest, 2 vCPUs": old } } };
    const steps = groupSteps(undefined, { group: "second", runtimes: [go] });
    expect(linesOf(summaryOf(runtimeStep(cards, cards), ...steps), "Attestation")).toEqual([]);
  });

  test("values that change although the files do not, as when somebody edits a manifest", () => {
    const state = (launch: string, kernel: string) => ({
      launch: { "EPYC-Milan launch digest, 2 vCPUs": launch },
      measured: { kernel: kernel.repeat(64) },
    });
    const [before, after] = [{ [go.handler]: state(old, "8") }, { [go.handler]: state(now, "9") }];
    expect(linesOf(summaryOf(runtimeStep(before, after)), "Attestation")).toEqual([
      `known: \`${go.handler}\`: EPYC-Milan launch digest, 2 vCPUs \`${old}\` → \`${now}\`.`,
      `known: \`${go.handler}\`: SNP launch digests change because of the kernel (\`888888888888…\` → \`999999999999…\`).`,
      `predicted: The files of \`${go.handler}\` stay the same, and so does what its guests measure: the values are wrong now, or were before.`,
    ]);
    expect(linesOf(summaryOf(runtimeStep(before, before)), "Attestation")).toEqual([]);
    const lost = linesOf(summaryOf(runtimeStep(before, { [go.handler]: { launch: {} } })), "Attestation");
    expect(lost[0]).toBe(`known: \`${go.handler}\`: EPYC-Milan launch digest, 2 vCPUs \`${old}\` → \`nothing\`.`);
  });

  test("each of a program's several runtimes has its own card", () => {
    const launch = { launch: { "EPYC-Milan launch digest, 2 vCPUs": old } };
    const first = runtimeStep({}, {});
    const second = { ...runtimeStep({}, { [go.handler]: launch }), name: "second" };
    const lines = linesOf(summaryOf(first, second, ...groupSteps({ runtimes: [] }, { runtimes: [go] })), "Attestation");
    expect(lines).toEqual([`known: \`${go.handler}\`: EPYC-Milan launch digest, 2 vCPUs \`${old}\`.`]);
  });

  test("a value that cannot be predicted changes, too, when what it is made of does", () => {
    const state = (kernel: string) => ({
      launch: { MRTD: now, RTMR1: "not predictable: depends on the VMM" },
      measured: { firmware: now, kernel: kernel.repeat(64) },
    });
    const [before, after] = [runtime("contrast-go", "metal-qemu-tdx"), runtime("contrast-go-next", "metal-qemu-tdx")];
    const lines = linesOf(
      summaryOf(
        runtimeStep({ [before.handler]: state("8") }, { [after.handler]: state("9") }),
        ...groupSteps({ runtimes: [before] }, { runtimes: [after] }),
      ),
      "Attestation",
    );
    expect(lines).toEqual([
      `known: \`${after.handler}\`: RTMR1 changes because of the kernel (\`888888888888…\` → \`999999999999…\`).`,
      `predicted: Verifiers that do not know these values refuse pods of \`${after.handler}\`.`,
    ]);
  });

  test("without measurements the values are unknown, and so are those that cannot be predicted", () => {
    const steps = groupSteps({ runtimes: [] }, { runtimes: [go] });
    expect(linesOf(summaryOf(...steps), "Attestation")[0]).toMatch(/^unknown: What a verifier will see/);
    const launch = { MRTD: now, RTMR0: "not predictable: depends on the VMM" };
    expect(linesOf(summaryOf(runtimeStep({}, { [go.handler]: { launch } }), ...steps), "Attestation")).toEqual([
      `known: \`${go.handler}\`: MRTD \`${now}\`.`,
      `unknown: \`${go.handler}\`: RTMR0 \`not predictable: depends on the VMM\`.`,
    ]);
  });
});
