import { describe, expect, test } from "vitest";
import { deriveRuntime } from "../../../../measure/runtime.ts";
import { differences } from "../../../../review/approval/compare.ts";
import { canonical, readApproved } from "../../../../review/approval/form.ts";
import { readPreview } from "../../../../review/preview/preview.ts";
import { type Summary, summarize } from "../../../../review/summary/summary.ts";
import { fixtureManifest } from "../../runtime/fixtures.ts";
import { type DocumentStep, document, groupSteps, image, summaryOf } from "../documents.ts";

const go = deriveRuntime({ platform: "metal-qemu-snp", manifest: fixtureManifest("contrast-go") });
const next = deriveRuntime({ platform: "metal-qemu-snp", manifest: fixtureManifest("contrast-go-next") });
const approve = (summary: Summary) => readApproved(canonical(summary), "approved.json");
const added = groupSteps({ runtimes: [go] }, { runtimes: [go, next] });

describe("check", () => {
  test("the same plan is the approved one, with other nodes in the fleet too", () => {
    const summary = summaryOf(...added);
    const fleets = [{ group: "workers", nodes: 1, outcomes: [], notices: [], missing: [] }];
    expect(differences(approve(summary), { ...summary, fleets } as Summary)).toEqual([]);
  });

  test("each difference is a sentence", () => {
    const extra: DocumentStep = { op: "delete", type: "kubernetes:core/v1:Namespace", name: "n", before: {} };
    const fresh = summaryOf(
      ...groupSteps({ runtimes: [go], image: image("a") }, { runtimes: [go, next], image: image("b") }),
      extra,
    );
    expect(differences(approve(summaryOf(...added)), fresh)).toEqual([
      "`NodeInstaller` `workers` now gets inputs that differ from the approved ones.",
      "Not approved: delete of `Namespace` `n`.",
      `Now says, under Security: Group \`workers\`: the installer, which is root on its nodes, is \`${image("a")}\` → \`${image("b")}\`. (known)`,
      "Now says, under Security: Namespace `n` is deleted with everything in it. (known)",
    ]);
  });

  test("an update that became a replacement, and one that is not planned any more", () => {
    const step = {
      type: "azure-native:containerservice:AgentPool",
      name: "cc",
      before: { count: 1 },
      after: { count: 2 },
    };
    const [update, replace] = ["update", "replace"].map((op) => summaryOf({ ...step, op }));
    if (!update || !replace) throw new Error("two summaries");
    expect(differences(approve(update), replace)[0]).toBe(
      "`AgentPool` `cc`: approved as update, now planned as replace.",
    );
    expect(differences(approve(update), summaryOf())[0]).toBe(
      "Approved, but no longer planned: update of `AgentPool` `cc`.",
    );
  });

  test("the same change from another starting point is not the approved one", () => {
    const [a, b] = [["count"], ["count", "vmSize"]].map((paths) =>
      summaryOf({ op: "update", type: "aws:a:B", name: "x", before: {}, after: {}, paths }),
    );
    if (!a || !b) throw new Error("two summaries");
    expect(differences(approve(a), b)).toContain(
      "`B` `x`: approved with a change of `count`; now it changes `count`, `vmSize`.",
    );
  });

  test("a resource under another parent, or made by another provider, is not the approved one", () => {
    const step = { op: "update", type: "kubernetes:core/v1:Namespace", name: "n", before: {}, after: { a: 1 } };
    const side = (state: Record<string, unknown>) => summaryOf({ ...step, options: { before: state, after: state } });
    const provider = (name: string, id: string) => ({
      provider: `urn:pulumi:s::p::pulumi:providers:kubernetes::${name}::${id}`,
    });
    expect(differences(approve(side(provider("one", "id"))), side(provider("one", "another")))).toEqual([]);
    expect(differences(approve(side(provider("one", "id"))), side(provider("two", "id")))).toContain(
      "`Namespace` `n` is made by `pulumi:providers:kubernetes::two`, approved as made by `pulumi:providers:kubernetes::one`.",
    );
    const parent = (name: string) => ({ parent: `urn:pulumi:s::p::contrast-runtime:index:NodeInstaller::${name}` });
    expect(differences(approve(side(parent("one"))), side(parent("two")))).toContain(
      "`Namespace` `n` is below `contrast-runtime:index:NodeInstaller::two`, approved as below `contrast-runtime:index:NodeInstaller::one`.",
    );
    // The chain of types alone, as where a program makes it itself.
    expect(differences(approve(summaryOf(step)), summaryOf({ ...step, foreign: true }))[0]).toContain(
      "has another URN",
    );
  });

  test("settings of the provider that are not those of the approved preview are a difference", () => {
    const made = (kubeconfig: string) => {
      const urn = "urn:pulumi:production::contrast-runtime::pulumi:providers:kubernetes::k";
      const { steps } = JSON.parse(
        document([
          {
            ...{ op: "create", type: "kubernetes:core/v1:Namespace", name: "n", after: {} },
            options: { after: { provider: `${urn}::id` } },
          },
        ]),
      );
      const same = { op: "same", urn, oldState: { inputs: { kubeconfig } }, newState: { inputs: { kubeconfig } } };
      return summarize(readPreview(JSON.stringify({ steps: [...steps, same] })));
    };
    expect(differences(approve(made("a")), made("a"))).toEqual([]);
    expect(differences(approve(made("a")), made("b"))).toEqual([
      "`Namespace` `n` is made by `pulumi:providers:kubernetes::k`, whose settings differ from those of the approved preview.",
    ]);
  });

  test("an approval of before parents and providers were noted down says so", () => {
    const old = JSON.stringify({ ...JSON.parse(canonical(summaryOf(...added))), schemaVersion: 1 });
    expect(() => readApproved(old, "approved.json")).toThrow(
      /approved\.json was written by an earlier version.*Preview again/s,
    );
  });

  test("a second operation under one name does not hide behind the first", () => {
    const step: DocumentStep = { op: "delete", type: "aws:a:B", name: "x", before: {} };
    const one = summaryOf(step);
    expect(differences(approve(one), summaryOf({ ...step, before: { left: "behind" } }, step))).toContain(
      "Not approved: delete of `B` `x`.",
    );
  });

  test("an approval of another stack is none", () => {
    const other = summarize(readPreview(document(added, "staging")));
    expect(differences(approve(other), summaryOf(...added))).toEqual([
      "The approval is for stack `contrast-runtime/staging`, not for `contrast-runtime/production`.",
    ]);
  });

  test("a preview that fails is never the approved one, nor does it approve", () => {
    const failed = summarize(
      readPreview(JSON.stringify({ diagnostics: [{ severity: "error", message: "no cluster" }] })),
    );
    expect(differences(approve(summaryOf()), failed)).toEqual(["The preview fails now: no cluster"]);
    expect(differences(approve(failed), summaryOf())).toEqual([
      "The approved preview had failed: it approves nothing.",
    ]);
  });

  test("a file that is no approval is named", () => {
    for (const text of ["", "{}", "## Markdown"])
      expect(() => readApproved(text, "x.json")).toThrow("x.json is not an approved summary");
  });
});
