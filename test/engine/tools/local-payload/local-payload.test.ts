import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { deriveRuntime } from "../../../../measure/runtime.ts";
import { ensureLocalPayload } from "../../../../tools/local-payload/local-payload.ts";
import { check } from "../../../../tools/process/run.ts";
import { requireHostPrograms } from "../../../../tools/programs/host-packages.ts";

let directory: string;
const quiet = () => {};
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "local-payload-"));
});
afterAll(() => rm(directory, { recursive: true }));

const make = (name: string, change?: { path: string; append: string }) =>
  ensureLocalPayload({ directory: join(directory, name), ...(change ? { change } : {}) }, quiet);

test("made twice, it is identical byte for byte; if it exists, nothing is done", async () => {
  const first = await make("first");
  const second = await make("second");
  expect(second.manifest).toEqual(first.manifest);
  expect([first.cached, second.cached, (await make("first")).cached]).toEqual([false, false, true]);
});

test("it has every kind of file that a confidential runtime needs, and derives a runtime", async () => {
  const { manifest } = await make("first");
  expect(manifest.files.map(({ role }) => role).sort()).toEqual([
    "firmware",
    "initrd",
    "kernel",
    "rootfs",
    "shim",
    "vmm",
  ]);
  expect(deriveRuntime({ platform: "local", manifest }).handler).toMatch(/^contrast-insecure-local-[0-9a-f]{8}$/);
});

test("a second runtime differs in one file", async () => {
  const { manifest } = await make("first");
  const changed = (await make("changed", { path: "share/OVMF.fd", append: "" })).manifest;
  expect(changed.files).toEqual(manifest.files);
  const other = (await make("changed", { path: "bin/qemu-system-x86_64", append: "another" })).manifest;
  expect(other.files.filter((file, i) => file.sha256 !== manifest.files[i]?.sha256).map(({ path }) => path)).toEqual([
    "bin/qemu-system-x86_64",
  ]);
  const handler = (each: typeof manifest) => deriveRuntime({ platform: "local", manifest: each }).handler;
  expect(handler(other)).not.toBe(handler(manifest));
});

test("a lost or truncated file is made again", async () => {
  const { manifest } = await make("first");
  await writeFile(join(directory, "first", "files", "share/kata-kernel"), "cut");
  const again = await make("first");
  expect(again.cached).toBe(false);
  expect(again.manifest).toEqual(manifest);
});

test("sfdisk finds the two partitions of the rootfs image", async () => {
  await requireHostPrograms([{ program: "sfdisk", package: "fdisk" }], quiet);
  const { manifest } = await make("first");
  const image = join(directory, "first", "files", "share/kata-containers.img");
  const table = await check("sfdisk", ["--json", image]);
  const { partitions } = JSON.parse(table).partitiontable as {
    partitions: { start: number; size: number; type: string }[];
  };
  expect(partitions.map(({ type }) => type)).toEqual([
    "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709",
    "2C7357ED-EBD2-46D9-AEC1-23D437EC2BF5",
  ]);
  expect(manifest.guest?.kernelVerityParams).toMatch(/^root_hash=[0-9a-f]{64},salt=[0-9a-f]{64},data_blocks=\d+,/);
});
