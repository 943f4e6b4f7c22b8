import { posix } from "node:path";
import type { FileAttributes } from "../../node-installer/host/host.ts";

/** `ctimeNs`, if it is not the time of modification. */
export type Node = FileAttributes & { ino: bigint; mtimeNs: bigint; ctimeNs?: bigint } & (
    | { kind: "file"; content: Buffer }
    | { kind: "directory" }
    | { kind: "link"; target: string }
  );

/** The process was killed here: this and every later call of the process throw it. */
export class Killed extends Error {
  override readonly name = "Killed";
}

export const ioError = (code: string, path: string) => Object.assign(new Error(`${code}: ${path}`), { code, path });

/** A path without any link in it needs no resolving, which takes most of the time of a trial. */
export function isPlain(nodes: ReadonlyMap<string, Node>, path: string): boolean {
  for (let end = path.length; end > 0; end = path.lastIndexOf("/", end - 1))
    if (nodes.get(path.slice(0, end))?.kind === "link") return false;
  return path === posix.resolve("/", path);
}
