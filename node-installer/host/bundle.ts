import { posix } from "node:path";
import * as z from "zod";
import { Refusal } from "../../runtime/refusal.ts";
import { type FileStat, type Host, type RunResult, TooSlow } from "./host.ts";

const digits = z.string().regex(/^-?\d{1,30}$/);
const size = z.number().nonnegative();
const path = z.string().startsWith("/").max(4096);

/** What each call of a host is answered with, as JSON. */
const answers = {
  /** `omitted`: longer than anything that a plan should have to read. */
  readFile: z.union([
    z.strictObject({ text: z.string() }),
    z.strictObject({ base64: z.base64() }),
    z.strictObject({ omitted: z.literal(true) }),
  ]),
  digest: z.strictObject({ size: z.int().nonnegative(), sha256: z.string().regex(/^[0-9a-f]{64}$/) }),
  stat: z
    .strictObject({
      kind: z.enum(["file", "directory", "other"]),
      size: z.int().nonnegative(),
      mode: z.int(),
      uid: z.int(),
      gid: z.int(),
      mtimeNs: digits,
      ctimeNs: digits,
      ino: digits,
      dev: digits,
    })
    .nullable(),
  /** A name that is given twice, or leads back, would multiply what a pattern stands for. */
  readDirectory: z
    .array(z.string().regex(/^(?!\.{1,2}$)[^/\0]{1,255}$/))
    .refine((names) => new Set(names).size === names.length, { error: "names are given twice" }),
  realpath: path,
  freeSpace: z.strictObject({ bytes: size, inodes: size }),
  run: z.strictObject({ code: z.int(), stdout: z.string(), stderr: z.string() }),
};
type Method = keyof typeof answers;
export type Answer = z.infer<(typeof answers)[Method]>;
/** By `method path`, or `run command arguments`. */
export type Calls = Record<string, Answer>;
export const freeSpaceAnswer = answers.freeSpace;

const calls = z.record(z.string(), z.unknown()).transform((recorded, context): Calls => {
  const read: Calls = Object.create(null);
  for (const [name, answer] of Object.entries(recorded)) {
    const [method = ""] = name.split(" ", 1);
    const parsed = Object.hasOwn(answers, method) ? answers[method as Method].safeParse(answer) : undefined;
    if (parsed?.success) read[name] = parsed.data;
    else context.addIssue({ code: "custom", message: `${name.slice(0, 100)} is not answered as such a call is` });
  }
  return read;
});

const names = z.array(z.string().max(1024)).max(1000);
const servedHandler = z.strictObject({
  runtimeType: z.string(),
  runtimePath: z.string(),
  podAnnotations: names,
  /** Those of earlier versions have none. */
  containerAnnotations: names.default([]),
  privilegedWithoutHostDevices: z.boolean(),
  snapshotter: z.string(),
  options: z.record(z.string(), z.string()),
});
const count = z.record(z.string(), z.int().nonnegative());

/**
 * What a plan reads from a node, recorded call by call, so that the same plan can be made elsewhere. A call that was not
 * recorded is answered as if the node had no such file or program. What a recording leaves out is not decided here.
 */
export const bundleSchema = z.strictObject({
  schemaVersion: z.literal(2),
  takenAt: z.iso.datetime(),
  node: z.string().max(253),
  calls,
  /** What the running daemon served of our handlers (undefined: it did not answer). */
  serving: z.strictObject({ handlers: z.record(z.string(), servedHandler) }).optional(),
  /** Whether its restart loads what others have changed, which is asked on the node: what it is does not leave it. */
  pending: z.boolean().optional(),
  /** By handler that was asked about: how many pods use it. */
  users: count,
  /** By directory that was asked about: how many processes run from it. */
  processes: count,
});
export type Bundle = z.infer<typeof bundleSchema>;

/** Characters of a bundle that is read: twice what an installer lets leave its node. */
export const longestBundle = 8 << 20;

/** The bundle in a text that anybody may have written; undefined: it is none. */
export function parseBundle(text: string): Bundle | undefined {
  if (text.length > longestBundle) return undefined;
  try {
    return bundleSchema.safeParse(JSON.parse(text)).data;
  } catch {
    // Not JSON, or nested more deeply than any.
    return undefined;
  }
}

/** Decides what of an answer leaves the node; undefined: nothing, and the call is not recorded. */
export interface Redaction {
  /** Whether anything about this path does: that it exists, its attributes, the names in it. */
  about(path: string): boolean;
  file(path: string, bytes: Buffer): Buffer | "omitted" | undefined;
  digest(path: string): boolean;
  output(command: string, args: readonly string[], result: RunResult): RunResult | undefined;
}

type Reader = Pick<Host, "readFile" | "digest" | "stat" | "readDirectory" | "realpath" | "freeSpace" | "run">;

const key = (method: Method, ...parts: string[]) => [method, ...parts].join(" ");
/** How earlier versions recorded a program that was ended after its time limit. */
const recordedAsSlow = 124;
const absent = (missing: string) =>
  Object.assign(new Error(`ENOENT: ${missing} is not in the bundle`), { code: "ENOENT" });

/** The same host, with what may leave it of every answer recorded in `calls`. */
export function recordingHost(host: Host, calls: Calls, redaction: Redaction): Host {
  const recorded = async <T>(name: string, call: Promise<T>, encode: (value: T) => Answer | undefined): Promise<T> => {
    const value = await call;
    const answer = encode(value);
    if (answer !== undefined) calls[name] = answer;
    return value;
  };
  const about = <T>(method: Method, path: string, call: Promise<T>, encode: (value: T) => Answer): Promise<T> =>
    recorded(key(method, path), call, (value) => (redaction.about(path) ? encode(value) : undefined));
  const reader: Reader = {
    readFile: (path) =>
      recorded(key("readFile", path), host.readFile(path), (bytes) => {
        const left = redaction.file(path, bytes);
        if (left === "omitted") return { omitted: true };
        return left && encodeBytes(left);
      }),
    digest: (path) =>
      recorded(key("digest", path), host.digest(path), ({ size, sha256 }) =>
        redaction.digest(path) ? { size, sha256 } : undefined,
      ),
    stat: (path) => about("stat", path, host.stat(path), encodeStat),
    readDirectory: (path) => about("readDirectory", path, host.readDirectory(path), (names) => names),
    realpath: (path) => about("realpath", path, host.realpath(path), (target) => target),
    freeSpace: (path) =>
      about("freeSpace", path, host.freeSpace(path), ({ bytes, inodes }) => ({
        bytes,
        inodes: Math.min(inodes, 1e15),
      })),
    run: (command, args, options) =>
      recorded(key("run", command, ...args), host.run(command, args, options), (result) =>
        redaction.output(command, args, result),
      ),
  };
  return { ...host, ...reader };
}

/** A read-only host that answers from a bundle. */
export function bundleHost(bundle: Bundle): Host {
  const find = <M extends Method>(method: M, ...parts: string[]) => {
    const name = key(method, ...parts);
    return Object.hasOwn(bundle.calls, name) ? (bundle.calls[name] as z.infer<(typeof answers)[M]>) : undefined;
  };
  /** What is not there is below the directory that is, wherever links lead. */
  const realpath = async (path: string): Promise<string> => {
    const parent = posix.dirname(path);
    return (
      find("realpath", path) ?? (parent === path ? path : posix.join(await realpath(parent), posix.basename(path)))
    );
  };
  /** Throws if another answer says that there is something: it came or went meanwhile, and a plan would be a guess. */
  const mustBeAbsent = (path: string, kind: FileStat["kind"]): void => {
    if (find("stat", path)?.kind !== kind) return;
    throw new Refusal(
      "bundle-incomplete",
      `The bundle says that ${path} is there, and not what is in it: collect it again.`,
    );
  };
  /** A file's answer to one of its calls. */
  const ofFile = <M extends "readFile" | "digest">(method: M, path: string) => {
    const found = find(method, path);
    if (found !== undefined) return found;
    mustBeAbsent(path, "file");
    throw absent(path);
  };
  const readOnly = (): never => {
    throw new Error("a bundle can only be read");
  };
  return {
    async readFile(path) {
      const found = ofFile("readFile", path);
      if ("text" in found) return Buffer.from(found.text);
      if ("base64" in found) return Buffer.from(found.base64, "base64");
      throw new Refusal(
        "bundle-incomplete",
        `The bundle does not hold ${path}, which is too long for it: run "node-installer plan" on the node itself.`,
      );
    },
    digest: async (path) => ofFile("digest", path),
    stat: async (path) => decodeStat(find("stat", path)),
    // Only what has changed since a daemon's start asks for it, which a bundle answers as a whole.
    linkedAt: async () => undefined,
    async readDirectory(path) {
      const names = find("readDirectory", path);
      if (names === undefined) mustBeAbsent(path, "directory");
      return names ?? [];
    },
    realpath,
    localPath: realpath,
    freeSpace: async (path) => find("freeSpace", path) ?? { bytes: 0, inodes: 0 },
    run: async (command, args) => {
      const found = find("run", command, ...args) ?? { code: 127, stdout: "", stderr: "not in the bundle" };
      if (found.code === recordedAsSlow) throw new TooSlow(command, args, 60_000);
      return found;
    },
    runningBelow: async (directory) => named(bundle.processes, directory, "process"),
    makeDirectory: readOnly,
    createFile: readOnly,
    appendFile: readOnly,
    rename: readOnly,
    replaceFile: readOnly,
    syncDirectory: readOnly,
    remove: readOnly,
    removeTree: readOnly,
    payloadFileSize: readOnly,
    copyPayloadFile: readOnly,
    lock: readOnly,
    now: () => new Date(bundle.takenAt),
    uptime: () => 0,
    delay: async () => undefined,
  };
}

/** What stands in for names that stay on the node: their number. */
export function named(counts: Record<string, number>, of: string, what: "pod" | "process"): string[] {
  const number = Object.hasOwn(counts, of) ? (counts[of] ?? 0) : 0;
  return number === 0 ? [] : [`${number} ${what}${number === 1 ? "" : what === "pod" ? "s" : "es"}`];
}

function encodeBytes(bytes: Buffer): Answer {
  const text = bytes.toString("utf8");
  return Buffer.from(text).equals(bytes) ? { text } : { base64: bytes.toString("base64") };
}

function encodeStat(stat: FileStat | undefined): Answer {
  if (stat === undefined) return null;
  const { kind, size, mode, uid, gid, mtimeNs, ctimeNs, ino, dev } = stat;
  const times = { mtimeNs: String(mtimeNs), ctimeNs: String(ctimeNs), ino: String(ino), dev: String(dev) };
  return { kind, size, mode, uid, gid, ...times };
}

function decodeStat(stat: z.infer<typeof answers.stat> | undefined): FileStat | undefined {
  if (stat === undefined || stat === null) return undefined;
  const { mtimeNs, ctimeNs, ino, dev } = stat;
  return { ...stat, mtimeNs: BigInt(mtimeNs), ctimeNs: BigInt(ctimeNs), ino: BigInt(ino), dev: BigInt(dev) };
}
