import { posix } from "node:path";
import { Refusal } from "../../runtime/refusal.ts";
import type { FileStat, Host } from "./host.ts";

/*
 * Root's containerd runs what lies in these directories, and root's installer and guard believe what they find in them. So
 * nobody else may write there, nor in any directory above: whoever may write to a directory decides what its names mean.
 */

const writableByOthers = 0o022;

/** A mode as chmod takes it. */
export const octal = (mode: number): string => mode.toString(8).padStart(4, "0");

/** Whether only root can change it. */
const isRoots = ({ uid, mode }: Pick<FileStat, "uid" | "mode">): boolean =>
  uid === 0 && (mode & writableByOthers) === 0;

async function isLink(host: Host, path: string): Promise<boolean> {
  if (path === "/") return false;
  const place = posix.join(await host.realpath(posix.dirname(path)), posix.basename(path));
  return (await host.realpath(path)) !== place;
}

/** Whether a directory is there in which only root writes. What is above it may be others'. */
export async function isRootsDirectory(host: Host, path: string): Promise<boolean> {
  const stat = await host.stat(path);
  return stat?.kind === "directory" && isRoots(stat) && !(await isLink(host, path));
}

/** The directory and all above it, outermost first. */
const withParents = (directory: string): string[] =>
  directory === "/" ? ["/"] : [...withParents(posix.dirname(directory)), directory];

/**
 * A sentence with its remedy for each of the directories, and of those above them, that somebody but root can change. What
 * does not exist is nobody's.
 * @param own the installer's topmost directory: from there on, nothing is a link, because nobody but us makes anything there
 */
export async function distrusted(host: Host, directories: string[], own: string): Promise<string[]> {
  const sentences: string[] = [];
  const seen = new Set<string>();
  const look = async (directory: string): Promise<void> => {
    for (const path of withParents(directory)) {
      if (seen.has(path)) continue;
      seen.add(path);
      if (await isLink(host, path)) {
        const target = await host.realpath(path);
        if (path !== own && !path.startsWith(`${own}/`)) await look(target);
        else
          sentences.push(`${path} is a symbolic link to ${target}, and not a directory of the installer's: remove it.`);
        continue;
      }
      const stat = await host.stat(path);
      const problem = stat && problemOf(path, stat);
      if (problem !== undefined) sentences.push(problem);
    }
  };
  for (const directory of directories) await look(directory);
  return sentences;
}

function problemOf(path: string, { kind, uid, gid, mode }: FileStat): string | undefined {
  if (kind !== "directory") return `${path} is not a directory: remove it.`;
  if (isRoots({ uid, mode })) return undefined;
  return (
    `${path} belongs to ${uid}:${gid} with mode ${octal(mode)}, so others than root can replace what root runs from it. ` +
    `Find out who wrote there and whether what it holds is right, then run: chown root:root ${path} && chmod go-w ${path}.`
  );
}

/** Refuses if somebody but root can change one of the directories, or one above them. */
export async function requireRoots(host: Host, directories: string[], own: string): Promise<void> {
  const sentences = await distrusted(host, directories, own);
  if (sentences.length > 0) throw notRoots(sentences);
}

export const notRoots = (sentences: string[]): Refusal =>
  new Refusal("not-roots", `Nothing was changed on this node: ${sentences.join(" ")}`);
