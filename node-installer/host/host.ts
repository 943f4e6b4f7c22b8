/**
 * The host as the installer sees it: every read, write, process and clock that it uses. Paths are absolute paths of the
 * node; an implementation resolves them below its host root and never follows a link out of it. Passed in everywhere, so
 * that tests can make each call fail, or end the process before or after it.
 */
export interface Host {
  readFile(path: string): Promise<Buffer>;
  /** Follows links inside the host root. `undefined` where nothing is. */
  stat(path: string): Promise<FileStat | undefined>;
  readDirectory(path: string): Promise<string[]>;
  /** The path with every link resolved, as the node sees it. */
  realpath(path: string): Promise<string>;
  makeDirectory(path: string, mode: number): Promise<void>;
  /** Creates the file, failing where it exists; writes, fsyncs and closes it. */
  createFile(path: string, content: Buffer | string, attributes: FileAttributes): Promise<void>;
  /** Atomic within one file system. */
  rename(from: string, to: string): Promise<void>;
  syncDirectory(path: string): Promise<void>;
  remove(path: string): Promise<void>;
  removeTree(path: string): Promise<void>;
  freeSpace(path: string): Promise<{ bytes: number; inodes: number }>;
  /**
   * Copies a file from the installer's own file system to the host, verifying size and SHA-256 while the bytes pass
   * (one read per byte), fsynced. Throws `DigestMismatch` and removes the target otherwise.
   */
  copyPayloadFile(source: string, target: string, expected: { size: number; sha256: string; mode: number }): Promise<void>;
  /** Runs a program of the host in the host's mount namespace. Never throws for an exit code. */
  run(command: string, args: string[], options?: { timeoutMs?: number }): Promise<{ code: number; stdout: string; stderr: string }>;
  lock(path: string, timeoutMs: number): Promise<{ release(): Promise<void> }>;
  now(): Date;
  /** Resolves after the time, or at once where a test's clock says so. */
  delay(ms: number): Promise<void>;
}

export interface FileAttributes {
  mode: number;
  uid: number;
  gid: number;
}

export interface FileStat extends FileAttributes {
  kind: "file" | "directory" | "other";
  size: number;
  mtimeNs: bigint;
  ino: bigint;
  dev: bigint;
}
