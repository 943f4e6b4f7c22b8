import { expect, test } from "vitest";
import { confidentialWorkloadCard } from "../../../../runtime/cards.ts";
import { policyDigest } from "../../../../workload/initdata.ts";
import { type DocumentStep, summaryOf } from "../documents.ts";

/** As ConfidentialWorkload registers it, of a pod with this policy. */
const card = (rego: string, handler = "contrast-cc-metal-qemu-snp-00000001") => {
  const digest = policyDigest(`initdata with ${rego}`);
  return {
    ...{ handler, payload: "kata", policyDigest: policyDigest(rego) },
    initdata: { digest, hostData: digest, mrConfigId: digest },
  };
};
const linesOf = (step: Omit<DocumentStep, "type" | "name">): string[] =>
  summaryOf({ ...step, type: confidentialWorkloadCard.type, name: "web" })
    .sections.filter(({ title }) => title === "Workloads")
    .flatMap(({ lines }) => lines.map(({ text }) => text));

test("another policy, such as that of another image, is told with both digests and what follows", () => {
  const [before, after] = [card("image a"), card("image b")];
  expect(linesOf({ op: "update", before, after })).toEqual([
    `Pods of the workload \`web\`: policy \`${before.policyDigest}\` → \`${after.policyDigest}\`.`,
    `Pods of the workload \`web\`: initdata \`${before.initdata.digest}\` → \`${after.initdata.digest}\`.`,
    "Verifiers that know only the values before refuse pods of `web`.",
  ]);
});

test("a workload that moves to another runtime is told; one that stays as it is, is not", () => {
  const [before, after] = [card("a"), card("a", "contrast-cc-metal-qemu-snp-00000002")];
  expect(linesOf({ op: "update", before, after })).toEqual([
    `Pods of the workload \`web\` move: \`${before.handler}\` → \`${after.handler}\`.`,
    "Verifiers that know only the values before refuse pods of `web`.",
  ]);
  expect(linesOf({ op: "same", before, after: before })).toEqual([]);
  expect(linesOf({ op: "create", after })).toEqual([
    `Pods of the workload \`web\`: policy \`${after.policyDigest}\`.`,
    `Pods of the workload \`web\`: initdata \`${after.initdata.digest}\`.`,
  ]);
});
