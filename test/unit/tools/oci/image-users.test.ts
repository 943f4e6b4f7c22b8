import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { buffer } from "node:stream/consumers";
import { gzipSync } from "node:zlib";
import { afterAll, expect, test } from "vitest";
import { imageReference } from "../../../../tools/oci/image-configuration.ts";
import { imageUsers } from "../../../../tools/oci/image-users.ts";
import { type Entry, tar } from "../../../../tools/oci/tar.ts";

const directory = mkdtempSync(join(tmpdir(), "image-users-"));
afterAll(() => rmSync(directory, { recursive: true }));
let count = 0;

const file = (path: string, content = ""): Entry => ({ path, mode: 0o644, type: "file", content });
async function layer(...entries: Entry[]): Promise<() => Promise<string>> {
  count += 1;
  const path = join(directory, `${count}.tar.gz`);
  writeFileSync(path, gzipSync(await buffer(tar(entries))));
  return async () => path;
}
const notAsked = async (): Promise<string> => {
  throw new Error("this layer is not needed");
};
const silent = () => {};

test("the users are those that a container sees, and lower layers are read only as far as they count", async () => {
  const base = await layer(file("etc/passwd", "base"), file("etc/group", "base group"));
  expect(await imageUsers([base, await layer(file("app"))], silent)).toEqual({ passwd: "base", group: "base group" });
  const passwd = await layer(file("./etc/passwd", "mine"));
  expect(await imageUsers([base, passwd], silent)).toEqual({ passwd: "mine", group: "base group" });
  const both = await layer(file("etc/passwd", "a"), file("etc/group", "b"));
  expect(await imageUsers([notAsked, both], silent)).toEqual({ passwd: "a", group: "b" });
});

test("what an upper layer takes away is not there, nor what a link stands in the place of", async () => {
  const base = await layer(file("etc/passwd", "base"), file("etc/group", "base group"));
  expect(await imageUsers([base, await layer(file("etc/.wh.passwd"))], silent)).toEqual({ group: "base group" });
  expect(await imageUsers([base, await layer(file("etc/.wh..wh..opq"))], silent)).toEqual({});
  const link = await layer({ path: "etc/passwd", mode: 0o777, type: "symlink", target: "/nix/passwd" });
  expect(await imageUsers([base, link], silent)).toEqual({ group: "base group" });
  expect(await imageUsers([], silent)).toEqual({});
});

test("a broken layer is named", async () => {
  const path = join(directory, "broken.tar.gz");
  writeFileSync(path, gzipSync(Buffer.alloc(2000, "x")).subarray(0, 20));
  await expect(imageUsers([async () => path], silent)).rejects.toThrow(`${path} is no whole layer: `);
});

test.each([
  ["nginx", "docker.io", "library/nginx", "latest"],
  ["team/app:1.0", "docker.io", "team/app", "1.0"],
  ["registry.example.com/a/b:v1", "registry.example.com", "a/b", "v1"],
  ["localhost:5000/app", "http://localhost:5000", "app", "latest"],
  ["10.0.0.1:5000/app", "http://10.0.0.1:5000", "app", "latest"],
  [`quay.io/app:1@sha256:${"a".repeat(64)}`, "quay.io", "app", `sha256:${"a".repeat(64)}`],
])("%s is an image of a registry, as container runtimes read it", (text, registry, repository, version) => {
  expect(imageReference(text, ["10.0.0.1:5000"])).toEqual({ registry, repository, version });
});

test.each(["", "a b", "app@sha256:12", "app:", "app:tag:tag@x"])("%j is no reference", (text) => {
  expect(() => imageReference(text)).toThrow("is no image's reference: expected registry/repository:tag");
});
