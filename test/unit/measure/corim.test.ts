import { decode, Tag } from "cbor2";
import { expect, test } from "vitest";
import { sha384 } from "../../../measure/bytes.ts";
import { corim } from "../../../measure/corim.ts";
import { defaultGuestPolicy } from "../../../measure/guest-policy.ts";
import type { SnpReferenceValue } from "../../../measure/reference-values.ts";

// Of the drafts' text; that another implementation reads it so is test/engine/corim.test.ts.

const digest = (text: string) => sha384(Buffer.from(text)).toString("hex");
const milan = { model: "EPYC-Milan", product: "Milan", vcpus: 2, measurement: digest("a") };
const genoa = { model: "EPYC-Genoa", product: "Genoa", vcpus: 2, measurement: digest("b") };
const igvm = { vcpus: 1, measurement: digest("c") };
const tcb = { bootloader: 4, tee: 0, snp: 22, microcode: 213 };
const payload = (...guests: SnpReferenceValue[]) => ({ name: "payload", guests, guestPolicy: defaultGuestPolicy });

/** Members by number, tags as such. */
const read = (bytes: Uint8Array) => decode<Tag>(bytes, { preferMap: true, ignoreGlobalTags: true, tags: new Map() });
const member = (of: unknown, ...keys: number[]): unknown =>
  keys.reduce<unknown>((at, key) => (at instanceof Map ? at.get(key) : Array.isArray(at) ? at[key] : undefined), of);
const comidsOf = (bytes: Uint8Array) => {
  const comids = member(read(bytes).contents, 1);
  if (!Array.isArray(comids)) throw new Error("no tags");
  return comids.map((tag: Tag) => {
    if (tag.tag !== 506 || !(tag.contents instanceof Uint8Array)) throw new Error(`no CoMID: ${tag.tag}`);
    return decode(tag.contents, { preferMap: true, ignoreGlobalTags: true, tags: new Map() });
  });
};
const tripleOf = (comid: unknown, at = 0) => ({
  environment: member(comid, 4, 0, at, 0),
  measurements: member(comid, 4, 0, at, 1),
});
const measurement = (field: number, kind: number, content: unknown) =>
  new Map<number, unknown>([
    [0, field],
    [1, new Map([[kind, content]])],
  ]);
const bytes = (hex: string) => Uint8Array.from(Buffer.from(hex, "hex"));

test("a guest's launch digest and policy stand under the profile's keys, in a tagged CoMID of a tagged CoRIM", () => {
  const made = corim([payload(milan, genoa), { ...payload(igvm), name: "other", guestPolicy: 0x1f0000n }]);
  expect(read(made).tag).toBe(501);
  expect(member(read(made).contents, 3)).toEqual(new Tag(32, "tag:amd.com,2024:snp-corim-profile"));
  const [first, second, third] = comidsOf(made);
  expect(tripleOf(first)).toEqual({
    environment: new Map([[0, new Map([[0, new Tag(111, bytes("2b060104019c780301"))]])]]),
    measurements: [
      measurement(2, 4, new Tag(560, bytes("0000030000000000"))),
      measurement(641, 2, [[7, bytes(milan.measurement)]]),
    ],
  });
  expect(member(tripleOf(second).measurements, 1)).toEqual(measurement(641, 2, [[7, bytes(genoa.measurement)]]));
  expect(member(tripleOf(third).measurements, 0)).toEqual(measurement(2, 4, new Tag(560, bytes("00001f0000000000"))));
});

test("hosts' chips and security versions are alternatives of each guest that can run on them", () => {
  const hosts = {
    chipIds: ["11".repeat(64), "22".repeat(64)],
    snpTcb: [tcb, { ...tcb, product: "Genoa" as const, microcode: 84 }],
  };
  const [first, second] = comidsOf(corim([payload(milan, genoa)], hosts));
  expect(member(first, 4, 0)).toHaveLength(2);
  expect(member(second, 4, 0)).toHaveLength(4);
  expect(member(tripleOf(first, 1).environment, 1)).toEqual(new Tag(560, bytes("22".repeat(64))));
  expect(member(tripleOf(first).measurements, 2)).toEqual(measurement(647, 1, new Tag(552, 0xd516000000000004n)));
  expect(member(tripleOf(second, 1).measurements, 2)).toEqual(measurement(647, 1, new Tag(552, 0x5416000000000004n)));
});

test("a product without security versions is refused where others have them", () => {
  expect(() => corim([payload(milan, genoa)], { snpTcb: [{ ...tcb, product: "Milan" }] })).toThrow(
    "--snp-tcb has no value for Genoa, whose guests are among the values",
  );
});

test("the same values are the same bytes, and an id never stands for others", () => {
  const made = corim([payload(milan, genoa)]);
  expect(corim([payload(milan, genoa)])).toEqual(made);
  const ids = (of: Uint8Array) => [member(read(of).contents, 0), ...comidsOf(of).map((comid) => member(comid, 1, 0))];
  const [id, first, second] = ids(made);
  expect(first).toMatch(/^contrast-runtime\/payload\/EPYC-Milan\/2-vcpus\/[0-9a-f]{64}$/);
  const [otherId, sameFirst, otherSecond] = ids(corim([payload(milan, { ...genoa, measurement: digest("d") })]));
  expect(sameFirst).toBe(first);
  expect([otherId, otherSecond]).not.toContain(id);
  expect(otherSecond).not.toBe(second);
});
