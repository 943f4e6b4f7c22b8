import { join, posix } from "node:path";
import { isDeepStrictEqual } from "node:util";
import type { PayloadFile } from "../../runtime/manifest.ts";
import { Refusal } from "../../runtime/refusal.ts";
import { type RuntimeSpec, runtimeDirectory } from "../../runtime/spec.ts";
import { DigestMismatch, type FileStat, type Host } from "../host/host.ts";
import type { Journal, PlacedFile } from "../host/journal.ts";
import { octal } from "../host/owners.ts";

/** The directory that holds the directories of all handlers. */
export const runtimesDirectory = "/opt/edgeless";

/** Beside the handlers' directories, so that a rename is enough to put files in place. */
const stagingDirectory = (handler: string) => posix.join(runtimesDirectory, `.staging-${handler}`);
const targetOf = (handler: string, path: string) => posix.join(runtimeDirectory(handler), path);
const modeOf = (file: PayloadFile) => Number.parseInt(file.mode, 8);

const placedAs = (path: string, stat: FileStat): PlacedFile => ({
  path,
  size: stat.size,
  mtimeNs: String(stat.mtimeNs),
  ctimeNs: String(stat.ctimeNs),
  ino: String(stat.ino),
});

/** Files of a runtime that are missing or wrong on the host. */
export interface PayloadPlan {
  runtime: RuntimeSpec;
  missing: PayloadFile[];
  /** The journal knows all files of the runtime: they need not be read in full, and will be removed with it. */
  recorded: boolean;
  bytes: number;
}

/**
 * Compares each file's stat data with the journal; a file that the journal does not know as it is now is read in full, so
 * that right bytes (whose journal was lost, or whose time of change is another) are not copied again. A file that is not
 * root's is not in place, whatever it holds: its owner can change it at any time.
 */
export async function planPayload(host: Host, runtime: RuntimeSpec, journal: Journal): Promise<PayloadPlan> {
  const known = journal.runtimes.find((owned) => owned.runtime.handler === runtime.handler)?.files ?? [];
  const missing: PayloadFile[] = [];
  let recorded = known.length === runtime.files.length;
  for (const file of runtime.files) {
    const target = targetOf(runtime.handler, file.path);
    const stat = await host.stat(target);
    if (stat === undefined || attributeProblems(target, file, stat).length > 0) missing.push(file);
    else if (
      isDeepStrictEqual(
        known.find(({ path }) => path === file.path),
        placedAs(file.path, stat),
      )
    )
      continue;
    else if ((await host.digest(target)).sha256 !== file.sha256) missing.push(file);
    else recorded = false;
  }
  return { runtime, missing, recorded, bytes: missing.reduce((sum, file) => sum + file.size, 0) };
}

/** What is wrong with a file, apart from its bytes. */
function attributeProblems(target: string, file: PayloadFile, { kind, size, mode, uid, gid }: FileStat): string[] {
  if (kind !== "file") return [`${target} is not a file`];
  return [
    ...(size === file.size ? [] : [`${target} has ${size} bytes instead of ${file.size}`]),
    ...(mode === modeOf(file) ? [] : [`${target} has mode ${octal(mode)} instead of ${file.mode}`]),
    ...(uid === 0 && gid === 0 ? [] : [`${target} belongs to ${uid}:${gid} instead of root (0:0)`]),
  ];
}

/** The directories that decide what a handler's files are; see owners.ts. */
export function payloadDirectories({ handler, files, kataConfig, imagePuller }: RuntimeSpec): string[] {
  const paths = [...files.map(({ path }) => path), kataConfig.path, ...(imagePuller ? [imagePuller] : [])];
  const parents = paths.map((path) => posix.dirname(targetOf(handler, path)));
  return [...new Set([...parents, stagingDirectory(handler)])];
}

/** Reads every byte of the payload again; returns a sentence for each mismatch with the manifest. */
export async function inspectPayload(host: Host, runtime: RuntimeSpec): Promise<string[]> {
  const problems: string[] = [];
  for (const file of runtime.files) {
    const target = targetOf(runtime.handler, file.path);
    const stat = await host.stat(target);
    if (stat === undefined) {
      problems.push(`${target} is missing`);
      continue;
    }
    problems.push(...attributeProblems(target, file, stat));
    if (stat.kind !== "file") continue;
    const { sha256 } = await host.digest(target);
    if (sha256 !== file.sha256) problems.push(`${target} has SHA-256 ${sha256} instead of ${file.sha256}`);
  }
  return problems;
}

/** A missing file, and where the installer's image has it. */
interface Source {
  file: PayloadFile;
  source: string;
}

/**
 * Finds the missing files in the installer's image, which has them as they are; the lock command writes them beside their
 * manifest. Refuses, before the first byte is copied, if one is not there or cannot be the right one.
 */
export async function findSources(host: Host, { runtime, missing }: PayloadPlan, payloads: string): Promise<Source[]> {
  const found: Source[] = [];
  for (const file of missing) {
    const places = [
      join(payloads, runtime.payload, file.path),
      join(payloads, runtime.payload, "files", file.path),
    ] as const;
    const sizes = [await host.payloadFileSize(places[0]), await host.payloadFileSize(places[1])];
    const place = sizes[0] === undefined ? 1 : 0;
    const [source, size] = [places[place], sizes[place]];
    if (size === undefined) throw notInImage(runtime, places[0]);
    if (size !== file.size)
      throw new DigestMismatch(`${source} has ${size} bytes, but its manifest says ${file.size} bytes`);
    found.push({ file, source });
  }
  // The largest first, so that none is left to be copied alone at the end.
  return found.sort((a, b) => b.file.size - a.file.size);
}

/**
 * While one file is on its way to the disk, another is hashed. Of the four threads that do Node's file I/O, one stays for the
 * reads and writes of the others while each file waits for its fsync.
 */
const copiesAtOnce = 3;

/**
 * Copies what is missing: staged, verified while it is read and synced, then renamed into the runtime's own directory. A
 * program that runs from a replaced file keeps the old one. Returns the stat data of all files for the journal.
 */
export async function placePayload(host: Host, plan: PayloadPlan, payloads: string): Promise<PlacedFile[]> {
  const { runtime, missing } = plan;
  const directory = runtimeDirectory(runtime.handler);
  if (missing.length > 0) {
    const sources = await findSources(host, plan, payloads);
    const staging = stagingDirectory(runtime.handler);
    const stagedAs = ({ path }: PayloadFile) => posix.join(staging, path);
    await host.makeDirectory(staging, 0o755);
    for (const parent of new Set(missing.map((file) => posix.dirname(stagedAs(file)))))
      await host.makeDirectory(parent, 0o755);
    await eachAtOnce(sources, copiesAtOnce, ({ file, source }) =>
      host.copyPayloadFile(source, stagedAs(file), { size: file.size, sha256: file.sha256, mode: modeOf(file) }),
    );
    const directories = new Set<string>();
    for (const file of missing) {
      const target = targetOf(runtime.handler, file.path);
      await host.makeDirectory(posix.dirname(target), 0o755);
      await host.rename(stagedAs(file), target);
      for (let parent = posix.dirname(target); parent.startsWith(directory); parent = posix.dirname(parent)) {
        directories.add(parent);
      }
    }
    await host.removeTree(staging);
    for (const changed of [...directories, runtimesDirectory]) await host.syncDirectory(changed);
  }
  const placed: PlacedFile[] = [];
  for (const file of runtime.files) {
    const stat = await host.stat(targetOf(runtime.handler, file.path));
    if (stat === undefined) throw new Error(`${targetOf(runtime.handler, file.path)} disappeared while it was placed`);
    placed.push(placedAs(file.path, stat));
  }
  return placed;
}

/** After a failure nothing more is begun, and what has begun is awaited: nobody writes any more when it is thrown. */
async function eachAtOnce<T>(items: readonly T[], atOnce: number, action: (item: T) => Promise<void>): Promise<void> {
  const left = items.values();
  const failures: unknown[] = [];
  const takeTurns = async () => {
    for (const item of left) {
      if (failures.length > 0) return;
      await action(item).catch((error) => failures.push(error));
    }
  };
  await Promise.all(Array.from({ length: atOnce }, takeTurns));
  if (failures.length > 0) throw failures[0];
}

const notInImage = ({ payload }: RuntimeSpec, source: string): Refusal =>
  new Refusal(
    "payload-missing",
    `The installer's image does not contain the payload ${payload} (there is no ${source}). ` +
      "Build an image with it (npm run image -- --payload NAME …) and set installerImage to that image's digest.",
  );

/** Removes what an interrupted copy left behind, because it takes the space that the next one needs. */
export async function removeStaged(host: Host, { runtime }: PayloadPlan): Promise<void> {
  const staging = stagingDirectory(runtime.handler);
  if ((await host.stat(staging)) !== undefined) await host.removeTree(staging);
}

/** Removes a runtime's directory, unless a process still runs from it. Returns whether it is gone. */
export async function removePayload(host: Host, handler: string): Promise<boolean> {
  const directory = runtimeDirectory(handler);
  if ((await host.runningBelow(directory)).length > 0) return false;
  await host.removeTree(stagingDirectory(handler));
  await host.removeTree(directory);
  return true;
}
