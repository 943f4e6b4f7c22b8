import { mkdir, mkdtemp, open, readdir, readFile, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { replaceFile } from "../../../../tools/files/replace.ts";

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "replace-test-"));
});
afterEach(() => rm(directory, { recursive: true }));

test("a file is made with the directories above it, then replaced, and nothing else is left", async () => {
  const file = join(directory, "a", "b", "file");
  await replaceFile(file, "first");
  const { ino } = await stat(file);
  await replaceFile(file, Buffer.from("second"), { mode: 0o755 });
  expect(await readFile(file, "utf8")).toBe("second");
  const replaced = await stat(file);
  expect(replaced.mode & 0o777).toBe(0o755);
  expect(replaced.ino).not.toBe(ino);
  expect(await readdir(join(directory, "a", "b"))).toEqual(["file"]);
});

test("whoever has the file open reads on in the old one", async () => {
  const file = join(directory, "file");
  await replaceFile(file, "old and long");
  const opened = await open(file);
  await replaceFile(file, "new");
  expect(await opened.readFile("utf8")).toBe("old and long");
  await opened.close();
});

test("if it cannot be put in place, the error says why and no half-made file is left", async () => {
  await mkdir(join(directory, "taken", "below"), { recursive: true });
  await expect(replaceFile(join(directory, "taken"), "text")).rejects.toThrow(/EISDIR|ENOTEMPTY|EEXIST/);
  expect(await readdir(directory)).toEqual(["taken"]);
});
