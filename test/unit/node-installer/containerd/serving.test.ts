import { describe, expect, test } from "vitest";
import { readServing, type ServingState, serves } from "../../../../node-installer/containerd/serving.ts";
import { aks, snp } from "./entries.ts";
import { nodeWith } from "./fake-daemon.ts";

describe("what a daemon serves", () => {
  test("is read alike from 1.7 and 2.x, and survives the journal", async () => {
    const { cri } = await nodeWith({ handlers: [aks], runcOptions: null });
    const state = await readServing(cri, 1000);
    expect(JSON.parse(JSON.stringify(state))).toEqual(state);
    expect(serves(state, [aks])).toEqual([]);
    expect(serves(state, [aks, snp])).toHaveLength(1);
    const full = await readServing(
      (await nodeWith({ runcOptions: { Root: "", IoUid: 0, NoNewKeyring: false } })).cri,
      1000,
    );
    expect(full.handlers.runc).toEqual(state.handlers.runc satisfies ServingState["handlers"][string] | undefined);
  });
});
