import { describe, expect, test } from "vitest";
import {
  bareMetalNodesCard,
  contrastRuntimeCard,
  localClusterCard,
  nodeInstallerCard,
} from "../../../runtime/cards.ts";
import { go, groupSteps, image, linesOf, next, runtimeStep, summaryOf } from "./documents.ts";

describe("cards that earlier versions left in a stack's state", () => {
  test("a group's, from before manifests could be written instead", () => {
    const [card, ...specs] = groupSteps({ runtimes: [go] }, { runtimes: [go, next] });
    if (card === undefined) throw new Error("no card");
    const { handler, platform, payload } = go;
    const runtimes = [{ handler, platform, payload }];
    const group = { group: "workers", distribution: "containerd", nodes: "all", atOnce: 1, onDestroy: "uninstall" };
    const old = { ...group, image: image("a"), runtimes };
    const summary = summaryOf({ ...card, before: old }, ...specs);
    expect(linesOf(summary, "Runtimes")).toEqual([expect.stringContaining(`gets \`${next.handler}\``)]);
    expect(linesOf(summary, "Nodes")).toEqual([]);
    expect(linesOf(summary, "Not explained here")).toEqual([]);
  });

  test("runtimes', from before measured inputs and known holes were on it", () => {
    const launch = (digit: string) => ({ MRTD: digit.repeat(96) });
    const runtime = { handler: go.handler, payload: "p", kata: "k", kataVersion: "v", launch: launch("a") };
    const old = { handlers: { workers: [go.handler] }, runtimes: [runtime] };
    const summary = summaryOf({ ...runtimeStep({}, { [go.handler]: { launch: launch("b") } }), before: old });
    expect(linesOf(summary, "Attestation")[0]).toContain(`\`${"a".repeat(96)}\` → \`${"b".repeat(96)}\``);
    expect(linesOf(summary, "Not explained here")).toEqual([]);
  });

  test("runtimes', from when they had the values of one vCPU: those of two are no other values of the same guests", () => {
    const [of1, of2] = [
      { "EPYC-Milan launch digest": "a".repeat(96) },
      { "EPYC-Milan launch digest, 2 vCPUs": "b".repeat(96) },
    ];
    const runtime = { handler: go.handler, payload: "p", kata: "k", kataVersion: "v", launch: of1 };
    const old = { handlers: { workers: [go.handler] }, runtimes: [runtime] };
    const summary = summaryOf({ ...runtimeStep({}, { [go.handler]: { launch: of2 } }), before: old });
    expect(linesOf(summary, "Attestation")).toEqual([
      `known: \`${go.handler}\`: EPYC-Milan launch digest, 2 vCPUs \`${"b".repeat(96)}\`.`,
    ]);
  });

  test.each([nodeInstallerCard, contrastRuntimeCard, bareMetalNodesCard, localClusterCard])(
    "one of $type that this version cannot read is said to be",
    ({ type }) => {
      for (const before of [
        { runtimes: {}, hosts: {}, nodes: {} },
        { runtimes: null, hosts: [null], nodes: [3] },
      ])
        expect(
          linesOf(summaryOf({ op: "update", type, name: "it", before, after: before }), "Not explained here"),
        ).toContain(`unknown: What changes in \`it\` (\`${type}\`): this summary cannot read what it holds.`);
    },
  );
});
