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

/** What an fsync of a directory does: its entries, new and gone, are on the disk as they are now. */
export function bringToDisk(nodes: Map<string, Node>, onDisk: Map<string, Node>, directory: string): void {
  const isBelow = (path: string, parent: string) => path.startsWith(parent === "/" ? "/" : `${parent}/`);
  const isEntry = (path: string) => path !== directory && posix.dirname(path) === directory;
  for (const path of [...onDisk.keys()].filter((each) => isEntry(each) && !nodes.has(each))) {
    for (const gone of [...onDisk.keys()]) if (gone === path || isBelow(gone, path)) onDisk.delete(gone);
  }
  // Includes the path to it, as on Linux file systems.
  const isOnDisk = (path: string) => isEntry(path) || path === directory || isBelow(directory, path);
  for (const [path, node] of nodes) if (isOnDisk(path)) onDisk.set(path, node);
}
