import { describe, expect, test } from "vitest";
import { deriveRuntime } from "../../../../measure/runtime.ts";
import { judgeSettings, type RuntimeSettings } from "../../../../runtime/kata-overrides.ts";
import type { RuntimeSpec } from "../../../../runtime/spec.ts";
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

describe("the Kata of a runtime", () => {
  const hole = "GHSA-fmg6-v47x-52wr (CVE-2026-77176): The host mounts `this`\u202e.";
  const old = { kata: "Contrast's", kataVersion: "3.28.0", acknowledged: [hole] };
  const fresh = {
    kata: "upstream Kata's Go runtime",
    kataVersion: "4.1.0",
    closed: ["CVE-1: that is off.", "CVE-2: so is that."],
  };
  const kataLines = (...steps: Parameters<typeof summaryOf>) =>
    linesOf(summaryOf(...steps), "Runtimes").filter((line) => /Kata|hole/.test(line));

  test("a new one: version, build, and what is known of it; one that stays: what the stack still puts up with", () => {
    const states = runtimeStep({ [go.handler]: old }, { [go.handler]: old, [next.handler]: fresh });
    expect(kataLines(...groupSteps({ runtimes: [go] }, { runtimes: [go, next] }), states).toSorted()).toEqual(
      [
        `known: \`${go.handler}\` still has a known hole that the stack acknowledges: \`GHSA-fmg6-v47x-52wr (CVE-2026-77176): The host mounts  this \\u{202e}.\``,
        `known: \`${next.handler}\` holds Kata \`4.1.0\` (\`upstream Kata's Go runtime\`).`,
        `known: Of the known holes of its Kata, \`${next.handler}\` leaves no way to use these: \`CVE-1: that is off.\` \`CVE-2: so is that.\``,
      ].toSorted(), // their order is that of the handlers, whose digests change
    );
  });

  test("an acknowledgement that comes with a new runtime", () => {
    const states = runtimeStep({}, { [go.handler]: old });
    expect(kataLines(...groupSteps({ runtimes: [] }, { runtimes: [go] }), states)).toEqual([
      `known: \`${go.handler}\` holds Kata \`3.28.0\` (\`Contrast's\`).`,
      expect.stringContaining(`known: \`${go.handler}\` has a known hole that the stack acknowledges:`),
    ]);
  });

  test("a Kata that is newer than those that are known", () => {
    const states = runtimeStep({}, { [next.handler]: { ...fresh, kataVersion: "5.0.0" } });
    const steps = groupSteps({ runtimes: [] }, { runtimes: [next] });
    expect(linesOf(summaryOf(...steps, states), "Runtimes").join()).toContain(
      "known: That is newer than 4.3.0, the newest",
    );
  });

  test("of what goes there is nothing to say", () => {
    expect(kataLines(runtimeStep({ [go.handler]: old }, undefined))).toEqual([]);
  });
});

describe("what the stack sets of a Kata", () => {
  const cards = (handler: string, state: object) => ({
    [handler]: { kata: "upstream Kata", kataVersion: "4.1.0", ...state },
  });
  const set = (settings: RuntimeSettings): RuntimeSpec => {
    const chosen = { platform: "metal-qemu-snp" as const, manifest: fixtureManifest("contrast-go") };
    return deriveRuntime({ ...chosen, changes: judgeSettings(chosen, settings).changes });
  };
  const lines = (added: RuntimeSpec, state: object) =>
    linesOf(
      summaryOf(...groupSteps({ runtimes: [] }, { runtimes: [added] }), runtimeStep({}, cards(added.handler, state))),
      "Runtimes",
    ).join("\n");

  test("is told of a runtime that is added, and what weakens guests of one that stays, too", () => {
    const state = {
      settings: ["agent.dial_timeout is 300: how long."],
      weakened: ["hypervisor.enable_debug is true: logs."],
    };
    const text = lines(go, state);
    expect(text).toContain(`\`${go.handler}\` sets of its Kata: \`agent.dial_timeout is 300: how long.\``);
    expect(text).toContain(
      `\`${go.handler}\` sets what weakens its guests, as the stack says: \`hypervisor.enable_debug is true: logs.\``,
    );
    const both = groupSteps({ runtimes: [go] }, { runtimes: [go, next] });
    const stays = linesOf(
      summaryOf(
        ...both,
        runtimeStep(cards(go.handler, state), { ...cards(go.handler, state), ...cards(next.handler, {}) }),
      ),
      "Runtimes",
    ).join("\n");
    expect(stays).toContain(`\`${go.handler}\` still sets what weakens its guests`);
    expect(stays).not.toContain("dial_timeout");
  });

  test("a runtime for debugging is called so, and one whose name says insecure is told to who answers for security", () => {
    const debug = set({ debug: true });
    expect(lines(debug, {})).toContain(`\`${debug.handler}\` is for debugging: Kata logs everything on the host.`);
    const insecure = set({
      kata: { agent: { debug_console_enabled: true } },
      acknowledgedWeakenings: ["agent.debug_console_enabled"],
    });
    const summary = summaryOf(...groupSteps({ runtimes: [] }, { runtimes: [insecure] }));
    expect(linesOf(summary, "Security").join("\n")).toContain(
      `\`${insecure.handler}\` is insecure: the stack sets of its Kata what weakens its guests.`,
    );
  });

  test("a further name of a class is told where it leads, when it comes and when it goes", () => {
    const step = (op: "create" | "delete", inputs: object) => ({
      op,
      type: "kubernetes:node.k8s.io/v1:RuntimeClass",
      name: "runtime-classes-cc",
      [op === "create" ? "after" : "before"]: inputs,
    });
    const further = { metadata: { name: "cc" }, handler: go.handler };
    const told = (op: "create" | "delete", inputs: object = further) =>
      linesOf(summaryOf(step(op, inputs)), "Runtimes").join("\n");
    expect(told("create")).toContain(
      `known: RuntimeClass \`cc\`, a further name of \`${go.handler}\`, is new: pods that say it run with that handler.`,
    );
    expect(told("delete")).toContain(`goes: no pod that says it starts any more; running ones stay.`);
    expect(told("create", { ...further, metadata: { name: go.handler } })).toBe("");
  });
});
