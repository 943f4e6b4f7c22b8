/**
 * The host as the installer sees it: every read, write, process and clock that it uses. Paths are absolute paths on the
 * node; an implementation resolves them below its host root and never follows a link out of it. Passed in everywhere, so
 * that tests can make each call fail, or end the process before or after it.
 */
export interface Host {
  readFile(path: string): Promise<Buffer>;
  /** Follows links inside the host root. `undefined` if nothing exists there. */
  stat(path: string): Promise<FileStat | undefined>;
  /** When the link of this name was made, in nanoseconds since 1970; `undefined`: there is none. */
  linkedAt(path: string): Promise<bigint | undefined>;
  /** Size and SHA-256 of a file, in constant memory. */
  digest(path: string): Promise<{ size: number; sha256: string }>;
  /** Sorted names; empty if there is no such directory. */
  readDirectory(path: string): Promise<string[]>;
  /**
   * The processes that execute a file below the directory, as the kernel says (see running.ts), for people:
   * `process NAME (PID)`. A node's bundle knows only how many there were. Throws `Refusal` if it cannot be told.
   */
  runningBelow(directory: string): Promise<string[]>;
  /** The path with every link resolved, as the node sees it. A missing path resolves to itself. */
  realpath(path: string): Promise<string>;
  /** Where this process finds the node's path, with every link resolved below the host root; used for sockets. */
  localPath(path: string): Promise<string>;
  /** Also creates its parents; an existing directory stays as it is. */
  makeDirectory(path: string, mode: number): Promise<void>;
  /** Creates the file and fsyncs it; fails if it exists. What cannot be written or fsynced is not left. */
  createFile(path: string, content: Buffer | string, attributes: FileAttributes): Promise<void>;
  /** For logs: no fsync. Creates the file with mode 0640. */
  appendFile(path: string, content: string): Promise<void>;
  /** Atomic within one file system. Links are not followed: the entry itself is renamed. */
  rename(from: string, to: string): Promise<void>;
  /**
   * Compare and swap: renames `staged` over `path` if `path` holds the expected bytes (SHA-256; `undefined`: is absent),
   * else changes and removes nothing. `foreign`: a program that had the old file open wrote into it meanwhile; its bytes
   * are returned, so that nothing is lost. Neither path may be a link.
   */
  replaceFile(path: string, staged: string, expected: string | undefined): Promise<ReplaceResult>;
  syncDirectory(path: string): Promise<void>;
  /** A file or an empty directory; a missing one is no error. */
  remove(path: string): Promise<void>;
  removeTree(path: string): Promise<void>;
  /** Of the file system that holds the path, or its nearest parent that exists. */
  freeSpace(path: string): Promise<{ bytes: number; inodes: number }>;
  /** Size of a file on the installer's own file system; `undefined` if there is none. */
  payloadFileSize(source: string): Promise<number | undefined>;
  /**
   * Copies a file from the installer's own file system to the host and fsyncs it, with size and SHA-256 verified in one
   * read per byte. On a mismatch, throws `DigestMismatch` and removes the target.
   */
  copyPayloadFile(
    source: string,
    target: string,
    expected: { size: number; sha256: string; mode: number },
  ): Promise<void>;
  /**
   * Runs a program of the host in the host's file system. Never throws because of an exit code: 127 if there is no such
   * program. Throws `TooSlow` after the time limit, by default a minute: what only answers takes seconds on a node without
   * a free CPU.
   */
  run(command: string, args: string[], options?: { timeoutMs?: number }): Promise<RunResult>;
  /** Exclusive, released by the kernel when the holder dies, visible to other pods and to `flock` on the host. */
  lock(path: string, timeoutMs: number): Promise<Lock>;
  /** The time of day, which somebody may change: for what is recorded or compared with other clocks. */
  now(): Date;
  /** Milliseconds of the machine's monotonic clock, by which systemd dates units, too: for measuring durations. */
  uptime(): number;
  /** Resolves after the time, or at once if a test's clock says so. */
  delay(ms: number): Promise<void>;
}

export interface Lock {
  release(): Promise<void>;
}

export interface RunResult {
  code: number;
  stdout: string;
  stderr: string;
}

export type ReplaceResult = { result: "replaced" } | { result: "changed" } | { result: "foreign"; bytes: Buffer };

export interface FileAttributes {
  mode: number;
  uid: number;
  gid: number;
}

export interface FileStat extends FileAttributes {
  kind: "file" | "directory" | "other";
  size: number;
  mtimeNs: bigint;
  ctimeNs: bigint;
  ino: bigint;
  dev: bigint;
}

/**
 * A program of the host was ended after its time limit. That is no answer: nothing is absent, wrong or inactive because of
 * it. No refusal either, because nothing has to be changed: the next run may find the node less busy.
 */
export class TooSlow extends Error {
  override readonly name = "TooSlow";

  constructor(command: string, args: readonly string[], timeoutMs: number) {
    super(
      `${[command, ...args].join(" ")} has not answered within ${timeoutMs / 1000} s: this node has no free CPU, or its disk hangs. Look at its load and its kernel's log.`,
    );
  }
}

/** For a program whose outcome is looked at in another way. undefined: it was too slow. */
export async function ifInTime<T>(run: Promise<T>): Promise<T | undefined> {
  try {
    return await run;
  } catch (error) {
    if (error instanceof TooSlow) return undefined;
    throw error;
  }
}

/** For what may fail, in which case nothing is known; but what is slow did not fail. */
export function unlessSlow(error: unknown): undefined {
  if (error instanceof TooSlow) throw error;
}

/** A payload file's bytes do not match its manifest. */
export class DigestMismatch extends Error {
  override readonly name = "DigestMismatch";
}
