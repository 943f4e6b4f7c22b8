import { execFileSync } from "node:child_process";
import { mkdir, mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { gzipSync, zstdCompressSync } from "node:zlib";
import { afterEach, beforeEach, expect, test } from "vitest";
import { type FileTree, openArchives, openFiles } from "../../../../tools/lock/archives.ts";

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "archives-test-"));
});
afterEach(() => rm(directory, { recursive: true }));

const quiet = () => {};

/** Packs a tree with the system's tar, as whoever publishes archives does. */
async function packed(
  name: string,
  files: Record<string, string | { link: string } | { hard: string }>,
): Promise<string> {
  const tree = join(directory, name);
  for (const [path, value] of Object.entries(files)) {
    const file = join(tree, path);
    await mkdir(dirname(file), { recursive: true });
    if (typeof value === "string") await writeFile(file, value);
    else if ("link" in value) await symlink(value.link, file);
    else execFileSync("ln", [join(tree, value.hard), file]);
  }
  execFileSync("tar", ["-C", tree, "-cf", `${tree}.tar`, "."]);
  return `${tree}.tar`;
}

async function contentOf(tree: FileTree, path: string): Promise<string | undefined> {
  const source = tree.resolve(path);
  if (!source) return undefined;
  const target = join(directory, "out");
  await tree.copy([{ path: source, target }]);
  return await readFile(target, "utf8");
}

const linked = {
  "opt/kata/share/vmlinuz-6.18": "kernel",
  "opt/kata/share/vmlinuz.container": { link: "vmlinuz-6.18" },
  "opt/kata/share/absolute": { link: "/opt/kata/share/vmlinuz.container" },
  "opt/kata/hard": { hard: "opt/kata/share/vmlinuz-6.18" },
  "opt/link-to-directory": { link: "kata/share" },
  "opt/dangling": { link: "../nowhere" },
  "opt/loop": { link: "loop" },
};

test("links of every kind lead to their file", async () => {
  const tree = await openArchives([await packed("a", linked)], "archive", quiet);
  for (const path of [
    "opt/kata/share/vmlinuz.container",
    "/opt/kata/share/absolute",
    "opt/kata/hard",
    "./opt/link-to-directory/vmlinuz.container",
  ])
    expect(await contentOf(tree, path)).toBe("kernel");
  for (const path of ["opt/dangling", "opt/loop", "opt/nothing", "opt/kata"])
    expect(tree.resolve(path)).toBeUndefined();
});

test("every compression is told by the bytes, in one or several frames", async () => {
  const tar = await readFile(await packed("a", { "some/file": "content" }));
  const half = tar.length / 2;
  const variants = {
    plain: tar,
    gzip: Buffer.concat([gzipSync(tar.subarray(0, half)), gzipSync(tar.subarray(half))]),
    zstd: Buffer.concat([zstdCompressSync(tar.subarray(0, half)), zstdCompressSync(tar.subarray(half))]),
    xz: execFileSync("xz", ["-c"], { input: tar }),
  };
  for (const [name, bytes] of Object.entries(variants)) {
    const file = join(directory, name);
    await writeFile(file, bytes);
    expect(await contentOf(await openArchives([file], name, quiet), "some/file"), name).toBe("content");
  }
});

test("layers: later ones replace and delete what earlier ones have", async () => {
  const lower = await packed("lower", { "a/replaced": "old", "a/deleted": "x", "b/hidden": "x", "c/kept": "kept" });
  const upper = await packed("upper", {
    "a/replaced": "new",
    "a/.wh.deleted": "",
    "b/.wh..wh..opq": "",
    "b/own": "own",
  });
  const tree = await openArchives([lower, upper], "image", quiet);
  expect(tree.paths.sort()).toEqual(["a/replaced", "b/own", "c/kept"]);
  expect(await contentOf(tree, "a/replaced")).toBe("new");
});

test("a directory takes the place of a link of a lower layer", async () => {
  const lower = await packed("lower", { "etc/real": "a", share: { link: "etc" } });
  const upper = await packed("upper", { "share/own": "b" });
  const tree = await openArchives([lower, upper], "image", quiet);
  expect(await contentOf(tree, "share/own")).toBe("b");
  expect(tree.resolve("share/real")).toBeUndefined();
});

test.each(["gnu", "pax", "pax --sparse-version=0.0"])(
  "a sparse file is refused instead of read as its parts (%s)",
  async (format) => {
    await mkdir(join(directory, "tree"));
    execFileSync("truncate", ["-s", "8M", join(directory, "tree", "rootfs.img")]);
    const archive = join(directory, "sparse.tar");
    execFileSync("sh", ["-c", `tar -C ${directory} --sparse --format=${format} -cf ${archive} tree`]);
    await expect(openArchives([archive], "x", quiet)).rejects.toThrow(
      `${archive} has tree/rootfs.img as a sparse file, which is not read here.`,
    );
  },
);

test("a file or link takes the place of a directory of a lower layer", async () => {
  const lower = await packed("lower", { "opt/a/one": "1", "opt/b/two": "2", "opt/bc": "3", "other/one": "4" });
  const upper = await packed("upper", { "opt/a": "a file", "opt/b": { link: "../other" } });
  const tree = await openArchives([lower, upper], "image", quiet);
  expect(tree.paths.toSorted()).toEqual(["opt/a", "opt/b", "opt/bc", "other/one"]);
  expect(await contentOf(tree, "opt/b/one")).toBe("4");
});

test("an opaque top hides everything below", async () => {
  const lower = await packed("lower", { "a/hidden": "x", hidden: "x" });
  const upper = await packed("upper", { ".wh..wh..opq": "", own: "own" });
  expect((await openArchives([lower, upper], "image", quiet)).paths).toEqual(["own"]);
});

test("no path leads out of the archive", async () => {
  await writeFile(join(directory, "evil"), "evil");
  await mkdir(join(directory, "top"));
  // GNU tar keeps dots when told to.
  execFileSync("tar", ["-C", join(directory, "top"), "-Pcf", join(directory, "evil.tar"), "../evil"]);
  const tree = await openArchives([join(directory, "evil.tar")], "archive", quiet);
  expect(tree.paths).toEqual(["evil"]);
  expect(await contentOf(tree, "../../evil")).toBe("evil");
});

test.each(["plain", "zstd", "gzip", "xz"])("a truncated archive (%s) is refused", async (compression) => {
  const tar = await readFile(await packed("a", { "some/file": "content".repeat(10_000) }));
  const whole =
    { plain: tar, zstd: zstdCompressSync(tar), gzip: gzipSync(tar), xz: execFileSync("xz", ["-c"], { input: tar }) }[
      compression
    ] ?? tar;
  const file = join(directory, "truncated");
  await writeFile(file, whole.subarray(0, Math.floor(whole.length / 2)));
  await expect(openArchives([file], "archive", quiet)).rejects.toThrow(/is no whole tar archive/);
});

test("files of this machine, by directory and one by one", async () => {
  await packed("a", linked);
  const root = join(directory, "a/opt/kata");
  const tree = await openFiles([root, join(directory, "a.tar")]);
  expect(await contentOf(tree, join(root, "share/vmlinuz.container"))).toBe("kernel");
  expect(tree.resolve(join(directory, "a.tar"))).toBeDefined();
  expect(tree.resolve(join(directory, "a/opt/dangling"))).toBeUndefined();
  await expect(openFiles([join(directory, "none")])).rejects.toThrow(/none cannot be read/);
});
