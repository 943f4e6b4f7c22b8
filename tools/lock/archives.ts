import { spawn } from "node:child_process";
import { once } from "node:events";
import { createReadStream, createWriteStream } from "node:fs";
import { copyFile, mkdir, open, readdir, stat } from "node:fs/promises";
import { dirname, join, posix, resolve as resolvePath } from "node:path";
import { PassThrough, type Readable, type Writable } from "node:stream";
import { pipeline } from "node:stream/promises";
import zlib from "node:zlib"; // by name, zstd would keep everything that imports this from running on Node 20
import { extract, type Header } from "tar-stream";
import { Refusal } from "../../runtime/refusal.ts";
import { cannotBeRead } from "../../runtime/unreadable.ts";
import { explainFullDisk } from "../files/full-disk.ts";
import type { Progress } from "../process/progress.ts";
import { requireHostPrograms } from "../programs/host-packages.ts";

/** Files that were fetched, by their path without a leading slash. */
export interface FileTree {
  /** For messages: what this is. */
  readonly name: string;
  /** For messages: where the paths are a machine's own, what they begin with. */
  readonly top?: "/";
  /** The paths of all files and links. */
  readonly paths: string[];
  /** The path of the regular file behind a path, links followed; undefined where none is. */
  resolve(path: string): string | undefined;
  /** Bytes of a regular file. */
  size(path: string): number | undefined;
  /** Copies regular files (resolved paths) to targets on this machine, in one pass. */
  copy(files: { path: string; target: string }[]): Promise<void>;
}

interface Node {
  kind: "file" | "link";
  size: number;
  /** A link's target, as a path of the tree. */
  target: string;
  archive: number;
}

/** Where a path leads when the archive's top is the root directory: nothing leads out of that. */
const normalized = (path: string) => posix.resolve("/", path).slice(1);

/**
 * Archives laid over each other, as image layers are: what a later one has hides what an earlier one has. Each is read
 * twice, once for the index and once for the files; nothing is unpacked that nobody asked for.
 */
export async function openArchives(files: string[], name: string, progress: Progress): Promise<FileTree> {
  const nodes = new Map<string, Node>();
  const forget = (path: string, below: boolean) => {
    for (const known of [...nodes.keys()])
      if ((!below && known === path) || path === "." || known.startsWith(`${path}/`)) nodes.delete(known);
  };
  for (const [archive, file] of files.entries()) {
    const found = new Map<string, Node>();
    await readArchive(file, progress, async (header) => {
      refuseSparse(header, file);
      const path = normalized(header.name);
      const base = posix.basename(path);
      // Whiteouts of the OCI image specification.
      if (base === ".wh..wh..opq") forget(posix.dirname(path), true);
      else if (base.startsWith(".wh.")) forget(join(posix.dirname(path), base.slice(4)), false);
      else if (header.type === "file" || header.type === "contiguous-file")
        found.set(path, { kind: "file", size: header.size, target: "", archive });
      // Targets of hard links are paths of the archive, those of symbolic links are relative to their directory.
      else if (header.type === "link")
        found.set(path, { kind: "link", size: 0, target: normalized(header.linkname), archive });
      else if (header.type === "symlink")
        found.set(path, {
          kind: "link",
          size: 0,
          target: normalized(posix.resolve("/", posix.dirname(path), header.linkname)),
          archive,
        });
      // A directory takes the place of a link or file of a lower layer.
      else if (header.type === "directory") nodes.delete(path);
    });
    // A file or link takes the place of a directory of a lower layer.
    const directories = new Set([...nodes.keys()].flatMap(directoriesAbove));
    for (const path of found.keys()) if (directories.has(path)) forget(path, true);
    for (const [path, node] of found) nodes.set(path, node);
  }
  const resolve = (path: string) => resolveIn(nodes, normalized(path));
  return {
    name,
    paths: [...nodes.keys()],
    resolve,
    size: (path) => nodes.get(path)?.size,
    copy: async (wanted) => {
      for (const [archive, file] of files.entries()) {
        const targets = new Map<string, string[]>();
        for (const { path, target } of wanted)
          if (nodes.get(path)?.archive === archive) targets.set(path, [...(targets.get(path) ?? []), target]);
        if (targets.size === 0) continue;
        await readArchive(file, progress, async (header, content) => {
          if (header.type !== "file" && header.type !== "contiguous-file") return;
          const [target, ...more] = targets.get(normalized(header.name)) ?? [];
          if (!target) return;
          await writeFile(content, target);
          for (const other of more) await copyTo(target, other);
        });
      }
    },
  };
}

const directoriesAbove = (path: string): string[] => {
  const segments = path.split("/");
  return segments.slice(1).map((_, index) => segments.slice(0, index + 1).join("/"));
};

/** Their bytes in the archive are not the file's: only parts of it, with a map of where they belong. */
function refuseSparse({ name, type, pax }: Header, file: string): void {
  const records = (pax ?? {}) as Record<string, string>;
  // GNU's own kind of header for them is none that this reader knows.
  if (type !== null && !Object.keys(records).some((key) => key.startsWith("GNU.sparse."))) return;
  throw new Refusal(
    "archive-sparse",
    `${file} has ${records["GNU.sparse.name"] ?? name} as a sparse file, which is not read here. Pack it without --sparse (bsdtar: with --no-read-sparse).`,
  );
}

/** Follows links of the last and of every other segment, at most as often as Linux does. */
function resolveIn(nodes: Map<string, Node>, path: string): string | undefined {
  for (let step = 0, at = path; step < 40; step++) {
    const node = nodes.get(at);
    if (node?.kind === "file") return at;
    if (node) at = node.target;
    else {
      const segments = at.split("/");
      const nodeAt = (end: number) => nodes.get(segments.slice(0, end).join("/"));
      const linked = segments.findIndex((_, end) => nodeAt(end)?.kind === "link");
      const link = nodeAt(linked);
      if (linked < 0 || link?.kind !== "link") return undefined;
      at = normalized(join(link.target, ...segments.slice(linked)));
    }
  }
  return undefined;
}

/** Files of this machine, and everything below directories, by their absolute paths. */
export async function openFiles(places: string[]): Promise<FileTree> {
  const paths = new Map<string, number>();
  for (const place of places.map((path) => resolvePath(path))) {
    const status = await stat(place).catch((error: unknown) => {
      throw new Refusal("no-file", `${cannotBeRead(place, error)}.`);
    });
    const names = status.isDirectory() ? await readdir(place, { recursive: true }) : [""];
    for (const name of names) {
      const path = join(place, name);
      const found = await stat(path).catch(() => undefined);
      if (found?.isFile()) paths.set(normalized(path), found.size);
    }
  }
  return {
    name: places.join(" and "),
    top: "/",
    paths: [...paths.keys()],
    size: (path) => paths.get(path),
    resolve: (path) => (paths.has(normalized(path)) ? normalized(path) : undefined),
    copy: async (wanted) => {
      for (const { path, target } of wanted) await copyTo(`/${path}`, target);
    },
  };
}

async function copyTo(source: string, target: string): Promise<void> {
  await mkdir(dirname(target), { recursive: true });
  await explainFullDisk(dirname(target), copyFile(source, target));
}

async function writeFile(content: Readable, target: string): Promise<void> {
  await mkdir(dirname(target), { recursive: true });
  await explainFullDisk(dirname(target), pipeline(content, createWriteStream(target)));
}

/** Calls `entry` for every header of the archive, whatever compresses it; content that it does not read is skipped. */
async function readArchive(
  file: string,
  progress: Progress,
  entry: (header: Header, content: Readable) => Promise<void>,
): Promise<void> {
  const archive = extract();
  archive.on("error", () => {}); // reported by the pipeline and the loop below
  const { source, finished } = await decompressed(file, progress);
  const consume = async () => {
    for await (const content of archive) {
      await entry(content.header, content as unknown as Readable);
      content.resume();
    }
  };
  const ends = await Promise.allSettled([pipeline(source, archive as unknown as Writable), consume(), finished]);
  const failures = ends.filter((end) => end.status === "rejected").map(({ reason }) => reason as Error);
  // One failure ends the other parts too: what the caller said of its own is the cause.
  const failure = failures.find((each) => each instanceof Refusal) ?? failures[0];
  if (!failure) return;
  if (failure instanceof Refusal) throw failure;
  throw new Refusal(
    "archive-broken",
    `${file} is no whole tar archive: ${failure.message}. Delete it and run the command again.`,
    { cause: failure },
  );
}

/** A file's bytes without their compression, and when that ended; what it starts with tells how it is compressed. */
export async function decompressed(
  file: string,
  progress: Progress,
): Promise<{ source: Readable; finished: Promise<unknown> }> {
  const handle = await open(file);
  const { buffer } = await handle.read(Buffer.alloc(6), 0, 6, 0);
  await handle.close();
  if (buffer.toString("latin1") === "\xfd7zXZ\0") return await unxz(file, progress);
  const raw = createReadStream(file, { highWaterMark: 1 << 20 });
  const through =
    buffer.readUInt32LE(0) === 0xfd2fb528
      ? zlib.createZstdDecompress()
      : buffer.readUInt16BE(0) === 0x1f8b
        ? zlib.createGunzip()
        : new PassThrough();
  return { source: through, finished: pipeline(raw, through) };
}

async function unxz(file: string, progress: Progress): Promise<{ source: Readable; finished: Promise<unknown> }> {
  await requireHostPrograms([{ program: "xz", package: "xz-utils" }], progress);
  const child = spawn("xz", ["-dc", "-T0", file], { stdio: ["ignore", "pipe", "pipe"] });
  let said = "";
  child.stderr.on("data", (chunk) => {
    said += chunk;
  });
  const finished = once(child, "close").then(([code]) => {
    if (code !== 0) throw new Error(said.trim() || `xz ended with ${code}`);
  });
  return { source: child.stdout, finished };
}
