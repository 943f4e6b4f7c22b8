import { resolve } from "node:path";
import { getSystemErrorMap } from "node:util";

/**
 * What to say of a file or directory that cannot be read: where it is, as an absolute path, and why, in the system's words. For
 * the beginning or the middle of a sentence.
 *
 * @example "/home/me/Pulumi.prod.yaml cannot be read: no such file or directory"
 */
export const cannotBeRead = (path: string, error: unknown): string =>
  `${resolve(path)} cannot be read: ${whyNot(error)}`;

/** Why something cannot be done, in the operating system's words where it is the one that says so. */
export function whyNot(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const [code, words] = getSystemErrorMap().get("errno" in error ? Number(error.errno) : 0) ?? [];
  return code === "EISDIR" ? "it is a directory, expected a file" : (words ?? error.message);
}
