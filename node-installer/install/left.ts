import { Refusal } from "../../runtime/refusal.ts";
import { editConfiguration, holdsNothing } from "../containerd/edit.ts";
import { digestOf, readIfThere, swapFile } from "../host/files.ts";
import { type Attempt, record } from "./attempt.ts";

/*
 * containerd may come to read another file than the one that holds our tables: a link is flipped, the unit's --config
 * changes, a distribution renders from another template. (While it still reads the old one, that stays the place: see
 * place.ts.) Then the new file is edited as if it were the first, in a transaction of its own, and after the commit our
 * tables are removed from the old one, which needs no restart: nothing reads it. A kill in between leaves tables that
 * nothing reads, and a journal that names their file.
 */

/** Removes what is ours from the files that were left. */
export async function cleanLeft(attempt: Attempt): Promise<void> {
  const { host, log } = attempt.environment;
  for (const { path, backups, created = false } of attempt.journal.left ?? []) {
    try {
      await removeOurs(attempt, path, created);
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      // Nothing reads the file, so that it is no reason to refuse anything.
      log.warn("left-behind", { file: path, reason: error.message });
    }
    for (const backup of backups) await host.remove(backup);
    await record(attempt, { left: (attempt.journal.left ?? []).filter((one) => one.path !== path) });
  }
}

/** One that was not there before us goes, if nobody has written anything into it. */
async function removeOurs(
  { environment: { host }, observation: { located } }: Attempt,
  file: string,
  created: boolean,
): Promise<void> {
  const bytes = await readIfThere(host, file);
  const stat = await host.stat(file);
  if (bytes === undefined || stat === undefined) return;
  // It may hold anything by now: of a template, nothing but the block is looked at.
  const { templateBase, version } = located;
  const rest = editConfiguration(bytes, [], { kind: "template", file, templateBase, containerdVersion: version });
  const next = created && rest !== undefined && isNothing(rest, file) ? undefined : rest;
  const { mode, uid, gid } = stat;
  if (digestOf(next) !== digestOf(bytes)) await swapFile(host, file, digestOf(bytes), next, { mode, uid, gid });
}

function isNothing(bytes: Buffer, file: string): boolean {
  try {
    return holdsNothing(bytes, file);
  } catch (error) {
    // A template need not be TOML, and says something.
    if (error instanceof Refusal) return false;
    throw error;
  }
}
