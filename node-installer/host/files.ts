import { posix } from "node:path";
import { sha256 } from "../../runtime/canonical.ts";
import { createLike } from "./access.ts";
import type { FileAttributes, Host } from "./host.ts";

/** Where the installer keeps its own files on a node. */
export const stateDirectory = "/var/lib/contrast-runtime";
export const logPath = "/var/log/contrast-runtime/installer.jsonl";
export const lockPath = "/run/contrast-runtime/lock";

/** `undefined` stands for a missing file, here and throughout the installer. */
export const digestOf = (bytes: Buffer | undefined): string | undefined =>
  bytes === undefined ? undefined : sha256(bytes);

export const rootOwned = (mode: number): FileAttributes => ({ mode, uid: 0, gid: 0 });

/** Beside its target, so that the rename stays within one file system; hidden, and not matched by `*.toml`. */
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

/** Writes the staged form of `path`, replacing one that a killed run left behind. */
async function stageFile(
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

/** Whenever the process or the node dies, the file holds either the old content or the new. */
export async function writeFileAtomically(
  host: Host,
  path: string,
  content: Buffer | string,
  attributes: FileAttributes,
): Promise<void> {
  const staged = await stageFile(host, path, content, attributes);
  await leavingNothing(host, staged, () => host.rename(staged, path));
  await host.syncDirectory(posix.dirname(path));
}

/** What cannot be finished (a mount, an immutable file, a sick disk) is no reason to leave the file behind that it begins with. */
export async function leavingNothing<T>(host: Host, begun: string, finish: () => Promise<T>): Promise<T> {
  try {
    return await finish();
  } catch (error) {
    await host.remove(begun).catch(() => undefined);
    throw error;
  }
}

/** Somebody else changed a file between our reading and our writing it, so the change must be planned anew. */
export class FileChanged extends Error {
  override readonly name = "FileChanged";
}

/**
 * Gives the file new content (or removes it) if it still holds what was read. If it does not, or if a program that had it
 * open wrote into it meanwhile, the foreign bytes stay and `FileChanged` is thrown.
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
  const answer = await leavingNothing(host, staged, () => host.replaceFile(path, staged, expected));
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

/** Moves the file aside before the last check, so that exactly what was checked is removed. */
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
