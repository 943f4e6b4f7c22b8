import { expect, test } from "vitest";
import { onlyFile } from "../../../../review/forge/zip.ts";
import { zipOf } from "./zip-of.ts";

test("gives its one file", () => {
  expect(onlyFile(zipOf("a.json", "text"), "a.json")).toBe("text");
});
test.each<[string, Buffer, string]>([
  ["nothing", Buffer.alloc(0), "exactly one file"],
  ["another file", zipOf("b.json", "text"), 'its file is "b.json"'],
  ["half of it", zipOf("a.json", "text").subarray(20), "no zip of a.json alone"],
])("of %s is refused", (_name, zip, sentence) => {
  expect(() => onlyFile(zip, "a.json")).toThrow(sentence);
});
test("that unpacks to more than there is memory for is refused", () => {
  expect(() => onlyFile(zipOf("a.json", "0".repeat(65 << 20)), "a.json")).toThrow("no zip of a.json alone");
});
