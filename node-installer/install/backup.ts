import { posix } from "node:path";
import { sha256 } from "../../runtime/canonical.ts";
import { createLike } from "../host/access.ts";
import { leavingNothing, readIfThere } from "../host/files.ts";
import type { FileAttributes, Host } from "../host/host.ts";

/** In addition to the first one, which is the file as the administrator left it. */
const keptBackups = 4;

/** `20260822T100414.123Z`: sorts by time; `.bak` follows it, so that no `*.toml` matches. */
const timestamp = (date: Date): string => date.toISOString().replaceAll(/[-:]/g, "");

/** Copies the bytes to `<config-name>.<time>.bak` beside their file, never over another backup, and verifies the copy. */
export async function backUp(host: Host, file: string, bytes: Buffer, attributes: FileAttributes): Promise<string> {
  for (;;) {
    const backup = `${file}.${timestamp(host.now())}.bak`;
    try {
      await createLike(host, file, backup, bytes, attributes);
    } catch (error) {
      // There is another backup of this very millisecond.
      if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
      await host.delay(1);
      continue;
    }
    // Of a file that others change meanwhile, nobody could say later that it holds nothing new.
    await leavingNothing(host, backup, async () => {
      await host.syncDirectory(posix.dirname(backup));
      if (sha256(await host.readFile(backup)) !== sha256(bytes))
        throw new Error(`the backup ${backup} does not hold what was written to it`);
    });
    return backup;
  }
}

/**
 * Backups that no journal knows: an installer was killed between a backup and its record, or the journal was lost. What
 * holds no more than the file has now is removed; the others are the caller's to know from now on.
 *
 * @param known those in the journal
 */
export async function adoptBackups(host: Host, file: string, known: readonly string[]): Promise<string[]> {
  const content = await readIfThere(host, file);
  const adopted: string[] = [];
  for (const path of await backupsOf(host, file)) {
    if (known.includes(path)) continue;
    const bytes = await host.readFile(path);
    // Also one that was being written when the installer was killed.
    if (content?.subarray(0, bytes.length).equals(bytes)) await host.remove(path);
    else adopted.push(path);
  }
  return adopted;
}

/** By their names, oldest first. */
async function backupsOf(host: Host, file: string): Promise<string[]> {
  const begin = `${posix.basename(file)}.`;
  const names = await host.readDirectory(posix.dirname(file));
  return names
    .filter((name) => name.startsWith(begin) && /^\d{8}T\d{6}\.\d{3}Z\.bak$/.test(name.slice(begin.length)))
    .map((name) => posix.join(posix.dirname(file), name));
}

/** Which backups are kept and which are removed. */
export function rotate(backups: string[]): { keep: string[]; remove: string[] } {
  const [first, ...others] = backups;
  if (first === undefined) return { keep: [], remove: [] };
  const remove = others.slice(0, Math.max(0, others.length - keptBackups));
  return { keep: [first, ...others.slice(remove.length)], remove };
}
