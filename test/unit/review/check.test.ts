import { describe, expect, test } from "vitest";
import { deriveRuntime } from "../../../node-installer/runtime/render.ts";
import { differences, readApproved } from "../../../review/check.ts";
import { readPreview } from "../../../review/preview.ts";
import { canonical, type Summary, summarize } from "../../../review/summary.ts";
import { fixtureManifest } from "../runtime/fixtures.ts";
import { type DocumentStep, document, groupSteps, image, summaryOf } from "./documents.ts";

const go = deriveRuntime({ platform: "metal-qemu-snp", manifest: fixtureManifest("contrast-go") });
const next = deriveRuntime({ platform: "metal-qemu-snp", manifest: fixtureManifest("contrast-go-next") });
const approve = (summary: Summary) => readApproved(canonical(summary), "approved.json");
const added = groupSteps({ runtimes: [go] }, { runtimes: [go, next] });

describe("check", () => {
  test("the same plan is the approved one, with other nodes in the fleet too", () => {
    const summary = summaryOf(...added);
    const fleets = [{ group: "workers", nodes: 1, outcomes: [], missing: [] }];
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
