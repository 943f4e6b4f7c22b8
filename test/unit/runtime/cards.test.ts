import { describe, expect, test } from "vitest";
import {
  bareMetalNodesCard,
  contrastRuntimeCard,
  localClusterCard,
  nodeInstallerCard,
} from "../../../runtime/cards.ts";
import { go, groupSteps, hostCard, linesOf, next, runtimeStep, summaryOf } from "../review/documents.ts";

/** As the engine stores and prints them: without what is undefined. */
const printed = (card: object) => JSON.parse(JSON.stringify(card)) as object;
const runtimes = [go, next]
  .map(({ handler, platform, payload }) => ({ handler, platform, payload }))
  .sort((a, b) => (a.handler < b.handler ? -1 : 1));
const group = { group: "workers", distribution: "containerd", nodes: ["n1"], runtimes, atOnce: 1, onDestroy: "leave" };

describe("what components write is what a review reads", () => {
  test("of a node group", () => {
    const given = { ...group, runtimes: runtimes.toReversed(), manifestsOnly: false, image: "i" };
    const card = printed(nodeInstallerCard.build(given));
    expect(card).toEqual({ ...group, image: "i" });
    expect(nodeInstallerCard.schema.parse(card)).toEqual({ ...group, image: "i", manifestsOnly: false });
  });

  test("of runtimes, each once, whatever groups have it", () => {
    const own = { handler: go.handler, payload: "p", kata: "Contrast's", kataVersion: "3.28.0", acknowledged: ["a"] };
    const runtime = { ...own, closed: [], launch: { MRTD: "00" }, measured: {} };
    const handlers = { a: [go.handler], b: [go.handler] };
    const card = printed(contrastRuntimeCard.build({ handlers, runtimes: [runtime, runtime] }));
    expect(card).toEqual({ handlers, runtimes: [{ ...own, launch: { MRTD: "00" }, measured: {} }] });
    expect(contrastRuntimeCard.schema.parse(card).runtimes).toEqual([runtime]);
  });

  test("of hosts", () => {
    const card = printed(hostCard([{ name: "a" }, { name: "b" }], ["b"]));
    const host = { address: "192.0.2.1", hostKey: "ssh-ed25519 AAAA" };
    expect(bareMetalNodesCard.schema.parse(card).hosts).toEqual([
      { name: "a", ...host },
      { name: "b", ...host, skipped: "named in ignoreNodes" },
    ]);
  });

  test("of a local cluster, which has one node where none is listed", () => {
    expect(localClusterCard.schema.parse(printed(localClusterCard.build({ name: "dev" }))).nodes).toEqual([
      { name: "node-1" },
    ]);
  });

  test("a key of another name does not compile", () => {
    // @ts-expect-error: it is called onDestroy
    nodeInstallerCard.build({ ...group, image: "i", onDelete: "leave" });
    // @ts-expect-error: it is called platform
    nodeInstallerCard.build({ ...group, image: "i", runtimes: [{ handler: "h", payload: "p", vmm: "v" }] });
    const runtime = { handler: "h", acknowledged: [], closed: [], launch: {}, measured: {} };
    // @ts-expect-error: it is called kataVersion
    contrastRuntimeCard.build({ runtimes: [{ ...runtime, version: "3.28.0" }] });
  });
});

describe("cards that earlier versions left in a stack's state", () => {
  test("a group's, from before manifests could be written instead", () => {
    const [card, ...specs] = groupSteps({ runtimes: [go] }, { runtimes: [go, next] });
    if (card === undefined) throw new Error("no card");
    const { handler, platform, payload } = go;
    const image = `registry.example.com/installer@sha256:${"a".repeat(64)}`;
    const old = { ...group, nodes: "all", onDestroy: "uninstall", image, runtimes: [{ handler, platform, payload }] };
    const summary = summaryOf({ ...card, before: old }, ...specs);
    expect(linesOf(summary, "Runtimes")).toEqual([expect.stringContaining(`gets \`${next.handler}\``)]);
    expect(linesOf(summary, "Nodes")).toEqual([]);
    expect(linesOf(summary, "Not explained here")).toEqual([]);
  });

  test("runtimes', from before measured inputs and known holes were on it", () => {
    const launch = (digit: string) => ({ "EPYC-Milan launch digest": digit.repeat(96) });
    const runtime = { handler: go.handler, payload: "p", kata: "k", kataVersion: "v", launch: launch("a") };
    const old = { handlers: { workers: [go.handler] }, runtimes: [runtime] };
    const summary = summaryOf({ ...runtimeStep({}, { [go.handler]: { launch: launch("b") } }), before: old });
    expect(linesOf(summary, "Attestation")[0]).toContain(`\`${"a".repeat(96)}\` → \`${"b".repeat(96)}\``);
    expect(linesOf(summary, "Not explained here")).toEqual([]);
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
