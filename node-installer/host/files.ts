import { createHash } from "node:crypto";
import { posix } from "node:path";
import { createLike } from "./access.ts";
import type { FileAttributes, Host } from "./host.ts";

/** Where the installer keeps its own things on a node. */
export const stateDirectory = "/var/lib/contrast-runtime";
export const logPath = "/var/log/contrast-runtime/installer.jsonl";
export const lockPath = "/run/lock/contrast-runtime.lock";

export const sha256 = (bytes: Buffer | string): string => createHash("sha256").update(bytes).digest("hex");
/** `undefined` stands for a file that is not there, here as everywhere in these rooms. */
export const digestOf = (bytes: Buffer | undefined): string | undefined =>
  bytes === undefined ? undefined : sha256(bytes);

export const rootOwned = (mode: number): FileAttributes => ({ mode, uid: 0, gid: 0 });

/** Beside its target, so that the rename stays in one file system; hidden, and matched by no `*.toml`. */
export const stagedPath = (path: string): string =>
  posix.join(posix.dirname(path), `.${posix.basename(path)}.contrast-staged`);

export async function readIfThere(host: Host, path: string): Promise<Buffer | undefined> {
  try {
    return await host.readFile(path);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "ENOENT" || code === "ENOTDIR") return undefined;
    throw error;
  }
}

/** Writes the staged form of `path`, in place of one that a killed run left behind. */
export async function stageFile(
  host: Host,
  path: string,
  content: Buffer | string,
  attributes: FileAttributes,
): Promise<string> {
  const staged = stagedPath(path);
  await host.remove(staged);
  await host.createFile(staged, content, attributes);
  return staged;
}

/** The file holds the old content or the new one, whenever the process or the node dies. */
export async function writeFileAtomically(
  host: Host,
  path: string,
  content: Buffer | string,
  attributes: FileAttributes,
): Promise<void> {
  await host.rename(await stageFile(host, path, content, attributes), path);
  await host.syncDirectory(posix.dirname(path));
}

/** Raised where somebody else changed a file between our reading and our writing of it: the plan is made anew. */
export class FileChanged extends Error {
  override readonly name = "FileChanged";
}

/**
 * Gives the file other content (or removes it), if it still holds what was read. Otherwise, or when a writer that had
 * the file open already wrote into it meanwhile, the foreign bytes stand and `FileChanged` is thrown.
 */
export async function swapFile(
  host: Host,
  path: string,
  expected: string | undefined,
  content: Buffer | undefined,
  attributes: FileAttributes,
): Promise<void> {
  const directory = posix.dirname(path);
  if (content === undefined) {
    await removeExpected(host, path, expected);
    await host.syncDirectory(directory);
    return;
  }
  const staged = stagedPath(path);
  const stage = async (bytes: Buffer) => {
    await host.remove(staged);
    await createLike(host, path, staged, bytes, attributes);
  };
  await stage(content);
  const answer = await host.replaceFile(path, staged, expected);
  if (answer.result === "changed") {
    await host.remove(staged);
    throw new FileChanged(`${path} was changed by another program`);
  }
  if (answer.result === "foreign") {
    await stage(answer.bytes);
    await host.rename(staged, path);
    await host.syncDirectory(directory);
    throw new FileChanged(`${path} was written to by another program`);
  }
  await host.syncDirectory(directory);
}

/** Moves the file aside before looking at it: what was looked at is what is removed. */
async function removeExpected(host: Host, path: string, expected: string | undefined): Promise<void> {
  if (expected === undefined) return;
  const aside = stagedPath(path);
  await host.remove(aside);
  const found = digestOf(await readIfThere(host, path));
  if (found !== expected) throw new FileChanged(`${path} was changed by another program`);
  await host.rename(path, aside);
  if (digestOf(await readIfThere(host, aside)) !== expected) {
    await host.rename(aside, path);
    throw new FileChanged(`${path} was changed by another program`);
  }
  await host.remove(aside);
}
