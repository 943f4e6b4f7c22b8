import { describe, expect, test } from "vitest";
import {
  bareMetalNodesCard,
  confidentialWorkloadCard,
  contrastRuntimeCard,
  localClusterCard,
  nodeInstallerCard,
  runtimeClassesCard,
} from "../../../runtime/cards.ts";
import { go, hostCard, next } from "../review/documents.ts";

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
    const runtime = { ...own, closed: [], settings: [], weakened: [], launch: { MRTD: "00" }, measured: {} };
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

  test("of RuntimeClasses", () => {
    const classes = [go, next].map(({ handler, platform }) => ({
      ...{ handler, platform, overhead: { memory: "1Gi" } },
      ...{ names: ["other"], currentFor: ["contrast-cc"] },
    }));
    const card = runtimeClassesCard.build(classes);
    expect(card).toEqual({ classes: classes.toSorted((a, b) => (a.handler < b.handler ? -1 : 1)) });
    expect(runtimeClassesCard.schema.parse(card)).toEqual(card);
  });

  test("of a workload", () => {
    const initdata = { digest: "d", hostData: "h", mrConfigId: "m" };
    const given = { handler: go.handler, payload: "p", initdata, reference: { snp: {} } };
    const card = printed(confidentialWorkloadCard.build({ ...given, policyDigest: "0", rootHashes: undefined }));
    expect(confidentialWorkloadCard.schema.parse(card)).toEqual({ ...given, policyDigest: "0" });
  });
});

/*
 * What follows is for the compiler. The cards are values with a name, in which it looks for no keys that are too many: so it
 * is the missing key that it finds, as it does where a builder has made the card in parts.
 */
test("a key of another name does not compile, in a card as in the items of its lists", () => {
  const given = { ...group, image: "i", manifestsOnly: false };
  const { onDestroy, ...others } = given;
  // @ts-expect-error: it is called onDestroy
  accepts<typeof nodeInstallerCard.build>({ ...others, onDelete: onDestroy });

  const installed = { handler: "h", platform: "p", payload: "p" };
  accepts<typeof nodeInstallerCard.build>({ ...given, runtimes: [installed] });
  const { platform, ...unnamed } = installed;
  const renamed = { ...unnamed, vmm: platform };
  // @ts-expect-error: it is called platform
  accepts<typeof nodeInstallerCard.build>({ ...given, runtimes: [renamed] });

  const measured = {
    handler: "h",
    payload: "p",
    kata: "k",
    closed: [],
    settings: [],
    weakened: [],
    launch: {},
    measured: {},
  };
  const runtime = { ...measured, kataVersion: "3.28.0", acknowledged: [] };
  accepts<typeof contrastRuntimeCard.build>({ handlers: {}, runtimes: [runtime] });
  const versioned = { ...measured, version: "3.28.0", acknowledged: [] };
  // @ts-expect-error: it is called kataVersion
  accepts<typeof contrastRuntimeCard.build>({ handlers: {}, runtimes: [versioned] });
  const known = { ...measured, kataVersion: "3.28.0", putUpWith: [] };
  // @ts-expect-error: it is called acknowledged
  accepts<typeof contrastRuntimeCard.build>({ handlers: {}, runtimes: [known] });

  const host = { name: "n1", address: "192.0.2.1", hostKey: "ssh-ed25519 AAAA" };
  accepts<typeof bareMetalNodesCard.build>({ hosts: [{ ...host, skipped: undefined }], ...go.host });
  // @ts-expect-error: skipped is not there
  accepts<typeof bareMetalNodesCard.build>({ hosts: [host], ...go.host });

  const named = { handler: "h", platform: "p", overhead: { memory: "1Gi" }, names: [], currentFor: [] };
  accepts<typeof runtimeClassesCard.build>({ classes: [named] });
  const charged = { handler: "h", platform: "p", podFixed: { memory: "1Gi" }, names: [], currentFor: [] };
  // @ts-expect-error: it is called overhead
  accepts<typeof runtimeClassesCard.build>({ classes: [charged] });
  // @ts-expect-error: it is called overhead
  runtimeClassesCard.build([charged]);

  const workload = { handler: "h", payload: "p", initdata: { digest: "d", hostData: "h", mrConfigId: "m" } };
  const seen = { ...workload, rootHashes: undefined, reference: undefined };
  confidentialWorkloadCard.build({ ...seen, policyDigest: "0" });
  const digested = { ...seen, policySha256: "0" };
  // @ts-expect-error: it is called policyDigest
  confidentialWorkloadCard.build(digested);
});

type Card<Build extends (...args: never[]) => unknown> = ReturnType<Build>;
const accepts = <Build extends (...args: never[]) => unknown>(_card: Card<Build>): void => {};
