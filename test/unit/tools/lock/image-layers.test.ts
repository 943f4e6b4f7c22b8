import { mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { afterAll, beforeAll, expect, test } from "vitest";
import { tardevRootHash } from "../../../../measure/tardev.ts";
import { Refusal } from "../../../../runtime/refusal.ts";
import { type ImageLayers, imageLayers } from "../../../../tools/lock/image-layers.ts";
import { blobPath, readImage, writeImage } from "../../../../tools/oci/layout.ts";
import { type Entry, tar } from "../../../../tools/oci/tar.ts";
import { sum } from "../../measure/vectors.ts";

const directory = await mkdtemp(join(tmpdir(), "image-layers-"));
afterAll(() => rm(directory, { recursive: true }));
const silent = () => {};

async function bytesOf(entries: Entry[]): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of tar(entries)) chunks.push(chunk);
  return Buffer.concat(chunks);
}

const contents: Entry[][] = [
  [
    { path: "bin", mode: 0o755, type: "directory" },
    { path: "bin/app", mode: 0o755, type: "file", content: "one".repeat(5000) },
  ],
  [
    { path: "bin", mode: 0o755, type: "directory" },
    { path: "bin/alias", mode: 0o777, type: "symlink", target: "app" },
  ],
];
const layout = join(directory, "layout");
let tars: Buffer[] = [];
let expected: ImageLayers["layers"] = [];

beforeAll(async () => {
  tars = await Promise.all(contents.map(async (entries) => await bytesOf(entries)));
  expected = tars.map((bytes) => ({
    diffId: `sha256:${sum(bytes)}`,
    rootHash: tardevRootHash([bytes]).toString("hex"),
  }));
  const layers = contents.map(
    (entries, at) => ({ name: `${at}`, entries, compression: at === 0 ? "none" : "zstd" }) as const,
  );
  await writeImage(layout, { layers, config: {} }, silent);
});

/** An archive of the directory's files. */
async function pack(from: string, name: string): Promise<string> {
  const paths = (await readdir(from, { recursive: true, withFileTypes: true })).filter((entry) => entry.isFile());
  const entries = paths.map(({ parentPath, name }): Entry => {
    const source = join(parentPath, name);
    return { path: source.slice(from.length + 1), mode: 0o644, type: "file", source };
  });
  const file = join(directory, name);
  await writeFile(file, await bytesOf(entries));
  return file;
}

const layersOf = async (image: string) => (await imageLayers(image, {}, silent)).layers;

test("an OCI layout and its archive have the roots of their layers' tars, lowest first", async () => {
  expect(await layersOf(layout)).toEqual(expected);
  expect(await layersOf(await pack(layout, "oci.tar"))).toEqual(expected);
});

test("so has what docker save wrote", async () => {
  const saved = join(directory, "saved");
  const config = JSON.stringify({ rootfs: { type: "layers", diff_ids: expected.map(({ diffId }) => diffId) } });
  await mkdir(join(saved, "a"), { recursive: true });
  await mkdir(join(saved, "b"));
  await writeFile(join(saved, "a/layer.tar"), tars[0] ?? "");
  await writeFile(join(saved, "b/layer.tar"), gzipSync(tars[1] ?? ""));
  await writeFile(join(saved, "config.json"), config);
  const manifest = [{ Config: "config.json", RepoTags: null, Layers: ["a/layer.tar", "b/layer.tar"] }];
  await writeFile(join(saved, "manifest.json"), JSON.stringify(manifest));
  expect(await layersOf(await pack(saved, "docker.tar"))).toEqual(expected);
  // Layers that are not those of the configuration are no layers of this image.
  await rename(join(saved, "a/layer.tar"), join(saved, "layer.tar"));
  await rename(join(saved, "b/layer.tar"), join(saved, "a/layer.tar"));
  await rename(join(saved, "layer.tar"), join(saved, "b/layer.tar"));
  await expect(layersOf(saved)).rejects.toThrow(/is damaged: layer 1 of 2 has the diff ID sha256:/);
});

test("an index names the image for the nodes' platform", async () => {
  const { manifest } = await readImage(layout);
  const file = join(layout, "index.json");
  const before = await readFile(file, "utf8");
  const arm = { ...manifest, digest: `sha256:${"0".repeat(64)}`, platform: { os: "linux", architecture: "arm64" } };
  const index = (...manifests: object[]) => writeFile(file, JSON.stringify({ schemaVersion: 2, manifests }));
  await index(arm, { ...manifest, platform: { os: "linux", architecture: "amd64" } });
  expect(await layersOf(layout)).toEqual(expected);
  await index(arm);
  await expect(layersOf(layout)).rejects.toThrow(`${layout} has no image for linux/amd64.`);
  await writeFile(file, before);
});

test("damage is said as such, whatever it hits", async () => {
  const { manifest, blobs } = await readImage(layout);
  const damaged: [digest: string, bytes: string | Buffer, message: RegExp][] = [
    [
      manifest.digest,
      JSON.stringify({ manifests: [manifest] }),
      /is damaged: the bytes of sha256:\w+ have another digest/,
    ],
    [blobs[0]?.digest ?? "", "{}", /is damaged: the bytes of sha256:\w+ have another digest/],
    [blobs[2]?.digest ?? "", Buffer.from("28b52ffd00000000", "hex"), /is no whole layer: /],
  ];
  for (const [digest, bytes, message] of damaged) {
    const file = blobPath(layout, digest);
    const before = await readFile(file);
    await writeFile(file, bytes);
    await expect(layersOf(layout)).rejects.toThrow(message);
    await expect(layersOf(layout)).rejects.toThrow(Refusal);
    await writeFile(file, before);
  }
  const other = await mkdtemp(join(directory, "other-"));
  await writeFile(join(other, "index.json"), "none");
  await expect(layersOf(other)).rejects.toThrow(`${other} is no image: Unexpected token`);
});

test("what is no image is refused", async () => {
  const empty = await mkdtemp(join(directory, "empty-"));
  await expect(layersOf(empty)).rejects.toThrow(`${empty} is no image: it has neither index.json`);
  await expect(layersOf("./none.tar")).rejects.toThrow(
    "There is no file or directory ./none.tar; an image of a registry is",
  );
  await expect(layersOf("registry.example/app@sha256:1")).rejects.toThrow(/must be registry\/repository@sha256/);
});
