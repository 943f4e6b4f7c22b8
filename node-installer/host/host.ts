/**
 * The host as the installer sees it: every read, write, process and clock that it uses. Paths are absolute paths of the
 * node; an implementation resolves them below its host root and never follows a link out of it. Passed in everywhere, so
 * that tests can make each call fail, or end the process before or after it.
 */
export interface Host {
  readFile(path: string): Promise<Buffer>;
  /** Follows links inside the host root. `undefined` where nothing is. */
  stat(path: string): Promise<FileStat | undefined>;
  /** Size and SHA-256 of a file, in constant memory. */
  digest(path: string): Promise<{ size: number; sha256: string }>;
  /** Names, sorted; none where no directory is. */
  readDirectory(path: string): Promise<string[]>;
  /** The path with every link resolved, as the node sees it. What does not exist resolves to itself. */
  realpath(path: string): Promise<string>;
  /** Where this process finds the node's path, every link resolved below the host root: for a unix socket, say. */
  localPath(path: string): Promise<string>;
  /** With its parents; one that exists stays as it is. */
  makeDirectory(path: string, mode: number): Promise<void>;
  /** Creates the file, failing where it exists; writes, fsyncs and closes it. */
  createFile(path: string, content: Buffer | string, attributes: FileAttributes): Promise<void>;
  /** For logs: no fsync. Creates the file with mode 0640. */
  appendFile(path: string, content: string): Promise<void>;
  /** Atomic within one file system. Links are not followed: the entry itself is renamed. */
  rename(from: string, to: string): Promise<void>;
  /**
   * Compare and swap: renames `staged` over `path` if `path` holds the expected bytes (SHA-256; `undefined`: is absent),
   * else changes nothing and removes nothing. `foreign`: a program that had the old file open wrote into it meanwhile;
   * its bytes are handed over, so that nothing is lost. Neither path may be a link.
   */
  replaceFile(path: string, staged: string, expected: string | undefined): Promise<ReplaceResult>;
  syncDirectory(path: string): Promise<void>;
  /** A file or an empty directory; absent is fine. */
  remove(path: string): Promise<void>;
  removeTree(path: string): Promise<void>;
  /** Of the file system that holds the path, or its nearest parent that exists. */
  freeSpace(path: string): Promise<{ bytes: number; inodes: number }>;
  /**
   * Copies a file from the installer's own file system to the host, verifying size and SHA-256 while the bytes pass
   * (one read per byte), fsynced. Throws `DigestMismatch` and removes the target otherwise.
   */
  copyPayloadFile(
    source: string,
    target: string,
    expected: { size: number; sha256: string; mode: number },
  ): Promise<void>;
  /**
   * Runs a program of the host in the host's file system. Never throws for an exit code: 127 where the program is not
   * there, 124 after the time limit.
   */
  run(command: string, args: string[], options?: { timeoutMs?: number }): Promise<RunResult>;
  /** Exclusive, freed by the kernel when the holder dies, seen by other pods and by `flock` on the host. */
  lock(path: string, timeoutMs: number): Promise<Lock>;
  /** The time of day, which somebody may set meanwhile: for what is written down and compared with others' times. */
  now(): Date;
  /** Milliseconds of a clock that nobody sets: for how long something takes. */
  uptime(): number;
  /** Resolves after the time, or at once where a test's clock says so. */
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

/** A payload file whose bytes are not those of its manifest. */
export class DigestMismatch extends Error {
  override readonly name = "DigestMismatch";
}
