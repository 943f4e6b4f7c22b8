import * as z from "zod";
import type { FileStat, Host, RunningProgram, RunResult } from "./host.ts";
import { withoutSecrets } from "./secrets.ts";

/**
 * What a plan reads from a node, recorded call by call, so that the same plan can be made elsewhere. A call that was not
 * recorded is answered as if the node had no such file or program.
 */
export const bundleSchema = z.strictObject({
  schemaVersion: z.literal(1),
  takenAt: z.iso.datetime(),
  node: z.string(),
  /** `method path` or `run command arguments`, and the answer. */
  calls: z.record(z.string(), z.json()),
  /** What the running daemon served (undefined: it did not answer), and the pods of each handler that was asked about. */
  serving: z.json().optional(),
  users: z.record(z.string(), z.array(z.string())),
});
export type Bundle = z.infer<typeof bundleSchema>;
type Json = z.infer<ReturnType<typeof z.json>>;

type Reader = Pick<
  Host,
  "readFile" | "digest" | "stat" | "readDirectory" | "runningBelow" | "realpath" | "freeSpace" | "run"
>;

const key = (method: string, ...parts: string[]) => [method, ...parts].join(" ");
const absent = (path: string) => Object.assign(new Error(`ENOENT: ${path} is not in the bundle`), { code: "ENOENT" });

/** The same host, with every answer that it gives recorded in `calls`, secrets redacted. */
export function recordingHost(host: Host, calls: Record<string, Json>): Host {
  const recorded = async <T>(name: string, call: Promise<T>, encode: (value: T) => Json): Promise<T> => {
    const value = await call;
    calls[name] = encode(value);
    return value;
  };
  const reader: Reader = {
    readFile: (path) => recorded(key("readFile", path), host.readFile(path), encodeBytes),
    digest: (path) => recorded(key("digest", path), host.digest(path), (value) => ({ ...value })),
    stat: (path) => recorded(key("stat", path), host.stat(path), encodeStat),
    readDirectory: (path) => recorded(key("readDirectory", path), host.readDirectory(path), (names) => names),
    runningBelow: (path) =>
      recorded(key("runningBelow", path), host.runningBelow(path), (running) =>
        running.map(({ pid, name }) => ({ pid, name })),
      ),
    realpath: (path) => recorded(key("realpath", path), host.realpath(path), (target) => target),
    freeSpace: (path) =>
      recorded(key("freeSpace", path), host.freeSpace(path), ({ bytes, inodes }) => ({
        bytes,
        inodes: Math.min(inodes, 1e15),
      })),
    run: (command, args, options) =>
      recorded(key("run", command, ...args), host.run(command, args, options), ({ code, stdout, stderr }) => ({
        code,
        stdout: withoutSecrets(stdout),
        stderr: withoutSecrets(stderr),
      })),
  };
  return { ...host, ...reader };
}

/** A read-only host that answers from a bundle. */
export function bundleHost(bundle: Bundle): Host {
  const find = (method: string, ...parts: string[]): Json | undefined => bundle.calls[key(method, ...parts)];
  const readOnly = (): never => {
    throw new Error("a bundle can only be read");
  };
  return {
    async readFile(path) {
      const found = find("readFile", path);
      if (found === undefined) throw absent(path);
      return decodeBytes(found);
    },
    async digest(path) {
      const found = find("digest", path);
      if (found === undefined) throw absent(path);
      return found as { size: number; sha256: string };
    },
    stat: async (path) => decodeStat(find("stat", path)),
    readDirectory: async (path) => (find("readDirectory", path) ?? []) as string[],
    runningBelow: async (path) => (find("runningBelow", path) ?? []) as unknown as RunningProgram[],
    realpath: async (path) => (find("realpath", path) ?? path) as string,
    localPath: async (path) => (find("realpath", path) ?? path) as string,
    freeSpace: async (path) =>
      (find("freeSpace", path) ?? { bytes: 0, inodes: 0 }) as { bytes: number; inodes: number },
    run: async (command, args) =>
      (find("run", command, ...args) ?? { code: 127, stdout: "", stderr: "not in the bundle" }) as unknown as RunResult,
    makeDirectory: readOnly,
    createFile: readOnly,
    appendFile: readOnly,
    rename: readOnly,
    replaceFile: readOnly,
    syncDirectory: readOnly,
    remove: readOnly,
    removeTree: readOnly,
    copyPayloadFile: readOnly,
    lock: readOnly,
    now: () => new Date(bundle.takenAt),
    uptime: () => 0,
    delay: async () => undefined,
  };
}

function encodeBytes(bytes: Buffer): Json {
  const text = bytes.toString("utf8");
  if (Buffer.from(text).equals(bytes)) return { text: withoutSecrets(text) };
  // Byte for byte in any encoding: the names and marks by which secrets are found are ASCII.
  return { base64: Buffer.from(withoutSecrets(bytes.toString("latin1")), "latin1").toString("base64") };
}

function decodeBytes(value: Json): Buffer {
  const { text, base64 } = value as { text?: string; base64?: string };
  return text === undefined ? Buffer.from(base64 ?? "", "base64") : Buffer.from(text);
}

function encodeStat(stat: FileStat | undefined): Json {
  if (stat === undefined) return null;
  const { mtimeNs, ctimeNs, ino, dev, ...rest } = stat;
  return { ...rest, mtimeNs: String(mtimeNs), ctimeNs: String(ctimeNs), ino: String(ino), dev: String(dev) };
}

function decodeStat(value: Json | undefined): FileStat | undefined {
  if (value === undefined || value === null) return undefined;
  const stat = value as unknown as Record<"mtimeNs" | "ctimeNs" | "ino" | "dev", string> & FileStat;
  const big = {
    mtimeNs: BigInt(stat.mtimeNs),
    ctimeNs: BigInt(stat.ctimeNs),
    ino: BigInt(stat.ino),
    dev: BigInt(stat.dev),
  };
  return { ...stat, ...big };
}
