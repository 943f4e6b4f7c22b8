import { spawnSync } from "node:child_process";
import { mkdir, mkdtemp, readdir, readFile, rm, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterEach, beforeEach, expect, test } from "vitest";
import { readImageIndex } from "../../../../components/config/image-layout.ts";
import { sha256 } from "../../../../runtime/canonical.ts";
import { buildLayer, type Entry, entriesOfTree } from "../../../../tools/oci/layer.ts";
import { blobPath, readImage, writeImage } from "../../../../tools/oci/layout.ts";
import { buildSimpleImage } from "../../../../tools/oci/one-layer.ts";
import { readChallenges } from "../../../../tools/oci/registry.ts";

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "image-test-"));
});
afterEach(() => rm(directory, { recursive: true, force: true }));

const quiet = () => {};

async function sourceFile(name: string, content: string): Promise<string> {
  const file = join(directory, name);
  await writeFile(file, content);
  return file;
}

const someEntries = (source: string): Entry[] => [
  { path: "bin/program", type: "file", source, mode: 0o755 },
  { path: "etc/name", type: "file", content: "value\n", mode: 0o644 },
  { path: "bin/alias", type: "symlink", target: "program", mode: 0o777 },
  { path: "tmp", type: "directory", mode: 0o1777 },
];

test("the same inputs give the same digest, at another place, time and order", async () => {
  const first = await buildSimpleImage(
    {
      layoutDir: join(directory, "a"),
      entries: someEntries(await sourceFile("one", "bytes")),
      entrypoint: ["/bin/program"],
    },
    quiet,
  );
  const later = await sourceFile("two", "bytes");
  await utimes(later, 1, 1);
  const second = await buildSimpleImage(
    { layoutDir: join(directory, "b"), entries: someEntries(later).toReversed(), entrypoint: ["/bin/program"] },
    quiet,
  );
  expect(second.digest).toBe(first.digest);
  expect(second.layers[0]?.cached).toBe(false);
  expect((await readImageIndex(join(directory, "b"))).digest).toBe(first.digest);
});

test("tar reads a layer back: paths, modes, owners, times, links, parents", async () => {
  const layer = await buildLayer(someEntries(await sourceFile("one", "bytes")), directory, "none");
  const { stdout } = spawnSync("tar", [
    "--utc",
    "--full-time",
    "--numeric-owner",
    "-tvf",
    join(directory, layer.digest.slice(7)),
  ]);
  const lines = stdout.toString().trim().split("\n");
  expect(lines.map((line) => line.split(/\s+/).slice(0, 4).join(" "))).toEqual([
    "drwxr-xr-x 0/0 0 1970-01-01",
    "lrwxrwxrwx 0/0 0 1970-01-01",
    "-rwxr-xr-x 0/0 5 1970-01-01",
    "drwxr-xr-x 0/0 0 1970-01-01",
    "-rw-r--r-- 0/0 6 1970-01-01",
    "drwxrwxrwt 0/0 0 1970-01-01",
  ]);
  expect(lines.map((line) => line.replace(/^.*:\d\d /, ""))).toEqual([
    "bin/",
    "bin/alias -> program",
    "bin/program",
    "etc/",
    "etc/name",
    "tmp/",
  ]);
});

test("a compressed layer holds what the bare one holds, and says so by its diffId", async () => {
  const entries = someEntries(await sourceFile("one", "bytes".repeat(100_000)));
  const bare = await buildLayer(entries, directory, "none");
  const packed = await buildLayer(entries, directory, "zstd");
  expect(packed.diffId).toBe(bare.digest);
  expect(packed.size).toBeLessThan(bare.size / 10);
});

test("property: any tree survives the way through a layer and tar", async () => {
  const segment = fc.stringMatching(/^[a-z0-9][a-zA-Z0-9._+@-]{0,40}$/);
  const paths = fc.uniqueArray(
    fc.array(segment, { minLength: 1, maxLength: 5 }).map((segments) => segments.join("/")),
    { minLength: 1, maxLength: 8 },
  );
  let round = 0;
  await fc.assert(
    fc.asyncProperty(paths, fc.string(), async (all, content) => {
      // No path may be a directory of another one.
      const files = all.filter((path) => !all.some((other) => other.startsWith(`${path}/`)));
      const entries = files.map((path): Entry => ({ path, type: "file", content, mode: 0o644 }));
      const target = join(directory, `tree-${round++}`);
      await mkdir(target);
      const layer = await buildLayer(entries, directory, "none");
      expect(spawnSync("tar", ["-xf", join(directory, layer.digest.slice(7)), "-C", target]).status).toBe(0);
      const back = (await entriesOfTree(target)).filter(({ type }) => type === "file");
      expect(back.map(({ path }) => path).sort()).toEqual(files.toSorted());
      for (const path of files)
        expect(await readFile(join(target, path), "utf8")).toBe(Buffer.from(content).toString());
    }),
    { numRuns: 25 },
  );
});

test("only layers whose files changed are built again, and the old blobs go", async () => {
  const stable = await sourceFile("stable", "payload");
  const changing = await sourceFile("changing", "program 1");
  const layoutDir = join(directory, "layout");
  const build = () =>
    writeImage(
      layoutDir,
      {
        layers: [
          { name: "stable", entries: [{ path: "p", type: "file", source: stable, mode: 0o644 }], compression: "zstd" },
          {
            name: "changing",
            entries: [{ path: "c", type: "file", source: changing, mode: 0o644 }],
            compression: "zstd",
          },
        ],
        config: {},
      },
      quiet,
    );
  const first = await build();
  expect(first.layers.map(({ cached }) => cached)).toEqual([false, false]);
  const second = await build();
  expect(second).toEqual({ ...first, layers: first.layers.map((layer) => ({ ...layer, cached: true })) });
  await writeFile(changing, "program 2");
  const third = await build();
  expect(third.layers.map(({ cached }) => cached)).toEqual([true, false]);
  expect(third.digest).not.toBe(first.digest);
  expect(await readdir(join(layoutDir, "blobs", "sha256"))).toHaveLength(4);
});

test("a blob that was damaged or lost is built again", async () => {
  const layoutDir = join(directory, "layout");
  const entries: Entry[] = [{ path: "p", type: "file", source: await sourceFile("f", "payload"), mode: 0o644 }];
  const { digest, layers } = await buildSimpleImage({ layoutDir, entries }, quiet);
  await writeFile(blobPath(layoutDir, layers[0]?.digest ?? ""), "short");
  await expect(readImage(layoutDir)).rejects.toThrow(/the blob sha256:[0-9a-f]{64} is not whole/);
  const again = await buildSimpleImage({ layoutDir, entries }, quiet);
  expect(again.digest).toBe(digest);
  await readImage(layoutDir);
});

test("a file with other bytes than its manifest says is refused, and no layer is left", async () => {
  const source = await sourceFile("f", "tampered");
  const blobs = join(directory, "blobs");
  const entry: Entry = { path: "p", type: "file", source, mode: 0o644, sha256: "0".repeat(64) };
  await expect(buildLayer([entry], blobs, "zstd")).rejects.toThrow(
    `${source} has the SHA-256 ${sha256("tampered")}, but its manifest says ${entry.sha256}. The file changed after it was locked`,
  );
  expect(await readdir(blobs)).toEqual([]);
});

test("without an image the digest's reader says what to do", async () => {
  await expect(readImageIndex(join(directory, "none"))).rejects.toThrow(
    /There is no image at .*none. Build it with: npx contrast-runtime image/,
  );
});

test.each([
  [
    'Bearer realm="https://auth.example.com/token",service="registry",scope="repository:a/b:pull,push"',
    { realm: "https://auth.example.com/token", service: "registry", scope: "repository:a/b:pull,push" },
    false,
  ],
  ['Basic realm="registry"', undefined, true],
  [
    'basic realm="registry", Bearer realm="https://auth.example.com/token"',
    { realm: "https://auth.example.com/token" },
    true,
  ],
  ['Bearer realm="https://a.example.com", Basic realm="registry"', { realm: "https://a.example.com" }, true],
  ["Negotiate", undefined, false],
  ["Basic", undefined, true],
])("the challenges of a registry: %s", (header, bearer, isBasic) => {
  expect(readChallenges(header)).toEqual({ bearer, isBasic });
});
