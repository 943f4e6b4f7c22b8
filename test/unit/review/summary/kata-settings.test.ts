import { describe, expect, test } from "vitest";
import { classResolution } from "../../../../components/manifests/class-resolution.ts";
import { deriveRuntime } from "../../../../measure/runtime.ts";
import { mutatingPolicyType } from "../../../../review/summary/resolved-names.ts";
import { judgeSettings, type RuntimeSettings } from "../../../../runtime/kata-overrides.ts";
import { unresolvedHandler } from "../../../../runtime/names.ts";
import type { RuntimeSpec } from "../../../../runtime/spec.ts";
import { fixtureManifest } from "../../runtime/fixtures.ts";
import { go, groupSteps, linesOf, next, runtimeStep, summaryOf } from "../documents.ts";

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

  test.each(["4.2.0", "5.0.0"])("a Kata whose sources nobody has read: %s", (kataVersion) => {
    const states = runtimeStep({}, { [next.handler]: { ...fresh, kataVersion } });
    const steps = groupSteps({ runtimes: [] }, { runtimes: [next] });
    expect(linesOf(summaryOf(...steps, states), "Runtimes").join()).toContain(
      "known: That is newer than 4.1.0, the newest whose sources were read here",
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

  test("a runtime that becomes current for a name: what new pods get, and what running ones keep", () => {
    const inputs = (handler: string) => classResolution("contrast-cc", handler).policy;
    const step = (op: string, before?: object, after?: object) => ({
      ...{ op, type: mutatingPolicyType, name: "runtime-classes-contrast-cc" },
      ...(before && { before }),
      ...(after && { after }),
    });
    const told = (...args: Parameters<typeof step>) => summaryOf(step(...args));
    const [old, now] = [inputs(go.handler), inputs(next.handler)];
    expect(linesOf(told("create", undefined, old), "Runtimes")).toEqual([
      `known: New pods that say \`contrast-cc\` get \`${go.handler}\` from now on.`,
    ]);
    const switched = told("update", old, now);
    expect(linesOf(switched, "Runtimes")).toEqual([
      `known: New pods that say \`contrast-cc\` get \`${next.handler}\` from now on, instead of \`${go.handler}\`.`,
      expect.stringMatching(
        `^predicted: Running pods keep \`${go.handler}\`, also when they start again on their node`,
      ),
    ]);
    expect(linesOf(switched, "Security")).toEqual([]);
    expect(linesOf(switched, "Not explained here")).toEqual([]);
    expect(linesOf(told("delete", old), "Runtimes")).toEqual([
      `known: Pods that say \`contrast-cc\` are refused from now on; running ones keep \`${go.handler}\`.`,
    ]);
    const conditions = [{ name: "class", expression: "true" }];
    const wider = { ...old, spec: { ...old.spec, matchConditions: conditions } };
    expect(linesOf(told("update", old, wider), "Security").join("\n")).toContain("matchConditions[0].expression");
  });

  test("a class in use that becomes a resolved name leaves running pods without a handler", () => {
    const inputs = (handler: string) => ({ metadata: { name: "cc" }, handler });
    const step = { op: "replace", type: "kubernetes:node.k8s.io/v1:RuntimeClass", name: "cc" };
    const summary = summaryOf({ ...step, before: inputs(go.handler), after: inputs(unresolvedHandler) });
    expect(linesOf(summary, "Runtimes").at(-1)).toMatch(/^predicted: Running pods that say `cc` find no handler/);
  });
});
