import { createHash } from "node:crypto";
import { createReadStream, existsSync } from "node:fs";
import { chmod, mkdir, open, readdir, rename, rm, stat, writeFile } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import * as z from "zod";
import { type FileRole, type Manifest, manifestSchema, type PayloadFile } from "../../runtime/manifest.ts";
import { Refusal } from "../../runtime/refusal.ts";
import { explainFullDisk } from "../files/full-disk.ts";
import { readManifest } from "../files/manifest.ts";
import { withLock } from "../files/mutex.ts";
import type { Progress } from "../process/progress.ts";

/** A payload on this machine is a directory: `manifest.json`, and below `files/` what it describes. */
export interface PayloadContent {
  /** Everything of the manifest but its files. */
  manifest: Omit<Manifest, "files" | "schemaVersion">;
  files: { role: FileRole; path: string }[];
}

const executable: FileRole[] = ["shim", "vmm", "kata-runtime", "snapshotter"];

/** The manifest's entries of the files below a directory, sorted by path. Reads every byte once. */
export async function describeFiles(directory: string, files: PayloadContent["files"]): Promise<PayloadFile[]> {
  const described = await Promise.all(
    files.map(async ({ role, path }): Promise<PayloadFile> => {
      const hash = createHash("sha256");
      let size = 0;
      for await (const chunk of createReadStream(join(directory, path), { highWaterMark: 1 << 20 })) {
        hash.update(chunk);
        size += chunk.length;
      }
      return { role, path, mode: executable.includes(role) ? "0755" : "0644", size, sha256: hash.digest("hex") };
    }),
  );
  return described.sort((a, b) => (a.path < b.path ? -1 : 1));
}

/**
 * Replaces the payload by a new one as a whole. `fill` writes the files below the directory that it is given and says what
 * they are, `check` throws when they will not do; then, or when the process is killed at any moment, the payload is the one from before.
 */
export async function replacePayload(
  directory: string,
  fill: (files: string) => Promise<PayloadContent>,
  progress: Progress,
  check: (manifest: Manifest) => void = () => {},
): Promise<Manifest> {
  const waiting = (other: string) => progress(`Waiting for ${other}, which is writing ${directory}.`);
  return await withLock(`payload ${directory}`, `process ${process.pid}`, waiting, async () => {
    await removeLeftovers(directory);
    const fresh = join(dirname(directory), `.${basename(directory)}.new`);
    await mkdir(join(fresh, "files"), { recursive: true });
    try {
      const content = await explainFullDisk(directory, fill(join(fresh, "files")));
      const files = await describeFiles(join(fresh, "files"), content.files);
      const manifest = checkedManifest({ schemaVersion: 1, ...content.manifest, files });
      check(manifest);
      for (const { path, mode } of files) await settle(join(fresh, "files", path), Number.parseInt(mode, 8));
      await writeFile(join(fresh, "manifest.json"), `${JSON.stringify(manifest, undefined, 2)}\n`, { flush: true });
      // Between these two renames there is no payload at its place; removeLeftovers puts it back.
      if (existsSync(directory)) await rename(directory, previousOf(directory));
      await rename(fresh, directory);
      await rm(previousOf(directory), { recursive: true, force: true });
      return manifest;
    } catch (error) {
      await rm(fresh, { recursive: true, force: true });
      throw error;
    }
  });
}

const whatAPayloadIs =
  "A payload is a directory with manifest.json and files/, as npx contrast-runtime lock leaves it in .local/payloads/NAME";

/** The manifest of a payload on this machine. @throws Refusal where there is none, or no valid one */
export const manifestOfPayload = (directory: string): Promise<Manifest> =>
  readManifest(join(directory, "manifest.json"), `${whatAPayloadIs}. Lock it again.`);

/** The payload's manifest, or undefined where no whole payload is: every file there, with its size. */
export async function readPayload(directory: string): Promise<Manifest | undefined> {
  return await wholePayload(directory).catch(() => undefined);
}

/** The same, with every file there. @throws Refusal that names what lacks, too */
export async function wholePayload(directory: string): Promise<Manifest> {
  const manifest = await manifestOfPayload(directory);
  for (const { path, size } of manifest.files) {
    const found = await stat(join(directory, "files", path)).catch(() => undefined);
    if (found?.size === size) continue;
    const state = found === undefined ? "is not there" : `has ${found.size} bytes instead of ${size}`;
    throw new Refusal(
      "payload-incomplete",
      `${join(directory, "files", path)} ${state}. ${whatAPayloadIs}. Lock it again, or copy it as a whole.`,
    );
  }
  return manifest;
}

const previousOf = (directory: string) => join(dirname(directory), `.${basename(directory)}.previous`);

/** Ends what a killed process left in the middle. */
async function removeLeftovers(directory: string): Promise<void> {
  const parent = dirname(directory);
  await mkdir(parent, { recursive: true });
  if (!existsSync(directory) && existsSync(previousOf(directory))) await rename(previousOf(directory), directory);
  const leftovers = [`.${basename(directory)}.new`, `.${basename(directory)}.previous`];
  for (const name of await readdir(parent))
    if (leftovers.includes(name)) await rm(join(parent, name), { recursive: true, force: true });
}

function checkedManifest(manifest: Manifest): Manifest {
  const checked = manifestSchema.safeParse(manifest);
  if (checked.success) return checked.data;
  throw new Refusal(
    "manifest-invalid",
    `The manifest of ${manifest.name} would be invalid: ${z.prettifyError(checked.error)}`,
  );
}

async function settle(file: string, mode: number): Promise<void> {
  await chmod(file, mode);
  // Windows writes a file to the disk only for those who may write it.
  const handle = await open(file, "r+");
  await handle.sync();
  await handle.close();
}
