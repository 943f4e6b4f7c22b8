import { readFileSync, statSync } from "node:fs";
import { posix } from "node:path";
import {
  DigestMismatch,
  type FileAttributes,
  type FileStat,
  type Host,
  type ReplaceResult,
  type RunResult,
  TooSlow,
} from "../../node-installer/host/host.ts";
import { resolvePath } from "../../node-installer/host/paths.ts";
import { described, type RunningProgram } from "../../node-installer/host/running.ts";
import { sha256 } from "../../runtime/canonical.ts";
import { bringToDisk, ioError, isPlain, Killed, type Node } from "./memory-files.ts";

/** A program of the in-memory host. */
export type FakeProgram = (args: string[], host: MemoryHost) => Partial<RunResult> | Promise<Partial<RunResult>>;

/**
 * A host that is a map. Every call that changes something, or runs a program, is a **point** where a test can make the
 * call fail or end the installer's process (`onPoint`, called before and after). A killed process stays dead: `revive()`
 * starts the next one on the same files.
 */
export class MemoryHost implements Host {
  readonly nodes: Map<string, Node>;
  readonly programs: Map<string, FakeProgram>;
  /** Names of the points passed, in order, such as `rename /etc/containerd/config.toml`. */
  readonly points: string[] = [];
  onPoint: (point: string, when: "before" | "after") => void = () => undefined;
  /** Called before a file, its attributes or a directory are read, with a name such as `stat /etc/containerd`. */
  onRead: (read: string) => void = () => undefined;
  /** Called when an entry of the file system has another content, name or place than before. */
  onChange: (path: string) => void = () => undefined;
  /** A clock that advances by every sleep, and a little with every look. */
  time = Date.UTC(2026, 0, 1);
  /** By how much somebody set the time of day. */
  skew = 0;
  free = { bytes: 1e12, inodes: 1e6 };
  /** What runs on the host, by the path of its program. */
  readonly running: (RunningProgram & { program: string })[] = [];
  private readonly entriesChanged = new Map<string, bigint>();
  private readonly lateWriters = new Map<string, string>();
  private onDisk = new Map<string, Node>();
  readonly locked = new Set<string>();
  private dead = false;
  private nextIno = 1n;

  constructor(options: { files?: Record<string, string | Buffer>; programs?: Record<string, FakeProgram> } = {}) {
    this.nodes = new Map([["/", { kind: "directory", mode: 0o755, uid: 0, gid: 0, ino: 0n, mtimeNs: 0n }]]);
    this.programs = new Map(Object.entries(options.programs ?? {}));
    for (const [path, content] of Object.entries(options.files ?? {})) this.put(path, content);
  }

  /** The same host again, as it is now: what becomes of one does not show in the other. */
  copy(programs: Record<string, FakeProgram>): MemoryHost {
    const twin = new MemoryHost({ programs });
    twin.nodes.clear();
    for (const [path, node] of this.nodes) twin.nodes.set(path, node);
    twin.onDisk = new Map(this.onDisk);
    twin.running.push(...this.running);
    const { time, skew, free, nextIno, entriesChanged } = this;
    Object.assign(twin, { time, skew, free, nextIno, entriesChanged: new Map(entriesChanged) });
    return twin;
  }

  // What tests set up and look at: no points, no faults.

  put(path: string, content: string | Buffer, attributes: FileAttributes = { mode: 0o644, uid: 0, gid: 0 }): void {
    this.parents(path);
    if (!this.nodes.has(path)) this.touch(path);
    this.nodes.set(path, { kind: "file", content: Buffer.from(content), ...attributes, ...this.stamp() });
  }

  delete(path: string): void {
    this.nodes.delete(path);
    this.touch(path);
  }

  link(path: string, target: string): void {
    this.parents(path);
    this.nodes.set(path, { kind: "link", target, mode: 0o777, uid: 0, gid: 0, ...this.stamp() });
  }

  text(path: string): string | undefined {
    const node = this.nodes.get(path);
    if (node?.kind === "link") return this.text(posix.resolve(posix.dirname(path), node.target));
    return node?.kind === "file" ? node.content.toString() : undefined;
  }

  /** A program has the file open, and writes this into it just when another file takes its place. */
  writeDuringReplacement(path: string, text: string): void {
    this.lateWriters.set(path, text);
  }

  /** Every file with its text and mode, for comparing whole hosts. */
  tree(): Record<string, string> {
    const files = [...this.nodes].flatMap(([path, node]) =>
      node.kind === "file" ? [[path, `${node.mode.toString(8)} ${node.content.toString("latin1")}`] as const] : [],
    );
    return Object.fromEntries(files.sort(([a], [b]) => (a < b ? -1 : 1)));
  }

  /** The next process on this host: the kernel has released the lock of the one that died. */
  revive(): void {
    this.dead = false;
    this.locked.clear();
    this.onPoint = () => undefined;
    this.onRead = () => undefined;
  }

  /** From here on, the disk's content is tracked apart from what is only in memory. */
  settle(): void {
    this.onDisk = new Map(this.nodes);
  }

  /** What no sync of its directory has covered: entries that are new, changed or gone, each with all below it. */
  unsynced(): string[] {
    const paths = new Set([...this.onDisk.keys(), ...this.nodes.keys()]);
    const changed = [...paths].filter((path) => this.onDisk.get(path) !== this.nodes.get(path));
    return changed.filter((path) => !changed.some((other) => path.startsWith(`${other}/`)));
  }

  /** A power loss. Of what was not synced, these entries are on the disk as they were before; the others had luck. */
  losePower(lost: readonly string[] = this.unsynced()): void {
    for (const path of lost) {
      const isIn = (each: string) => each === path || each.startsWith(`${path}/`);
      for (const each of [...this.nodes.keys()].filter(isIn)) this.nodes.delete(each);
      for (const [each, node] of this.onDisk) if (isIn(each)) this.nodes.set(each, node);
    }
  }

  kill(): never {
    this.dead = true;
    throw new Killed("the process was killed");
  }

  get alive(): boolean {
    return !this.dead;
  }

  /** A place outside the host's files where a fault can happen, such as a CRI call. */
  async point<T>(name: string, action: () => T | Promise<T>): Promise<T> {
    if (this.dead) throw new Killed("the process was killed");
    this.points.push(name);
    this.onPoint(name, "before");
    const result = await action();
    this.onPoint(name, "after");
    return result;
  }

  // Host

  async readFile(path: string): Promise<Buffer> {
    this.reading("read", path);
    return Buffer.from((await this.file(path)).content);
  }

  async digest(path: string): Promise<{ size: number; sha256: string }> {
    this.reading("read", path);
    const { content } = await this.file(path);
    return { size: content.length, sha256: sha256(content) };
  }

  async stat(path: string): Promise<FileStat | undefined> {
    this.reading("stat", path);
    const node = this.nodes.get(await this.realpath(path));
    if (node === undefined || node.kind === "link") return undefined;
    const { kind, mode, uid, gid, ino, mtimeNs: own, ctimeNs = own } = node;
    const mtimeNs = (kind === "directory" ? this.entriesChanged.get(await this.realpath(path)) : undefined) ?? own;
    const size = kind === "file" ? node.content.length : 0;
    return { kind, mode, uid, gid, ino, mtimeNs, ctimeNs, size, dev: 1n };
  }

  async linkedAt(path: string): Promise<bigint | undefined> {
    this.reading("stat", path);
    const node = this.nodes.get(resolvePath(path, this.readLink, false));
    return node?.kind === "link" ? (node.ctimeNs ?? node.mtimeNs) : undefined;
  }

  async readDirectory(path: string): Promise<string[]> {
    this.reading("list", path);
    const directory = await this.realpath(path);
    return [...this.nodes.keys()]
      .filter((name) => name !== "/" && posix.dirname(name) === directory)
      .map((name) => posix.basename(name))
      .sort();
  }

  async runningBelow(directory: string): Promise<string[]> {
    const below = `${await this.realpath(directory)}/`;
    return this.running.filter(({ program }) => program.startsWith(below)).map(described);
  }

  async realpath(path: string): Promise<string> {
    return isPlain(this.nodes, path) ? path : resolvePath(path, this.readLink);
  }

  localPath(path: string): Promise<string> {
    return this.realpath(path);
  }

  async makeDirectory(path: string, mode: number): Promise<void> {
    const target = await this.realpath(path);
    if (this.nodes.has(target)) return;
    await this.point(`mkdir ${target}`, () => {
      this.parents(target);
      this.nodes.set(target, { kind: "directory", mode, uid: 0, gid: 0, ...this.stamp() });
    });
  }

  async createFile(path: string, content: Buffer | string, attributes: FileAttributes): Promise<void> {
    const target = await this.entry(path);
    const node = { kind: "file" as const, ...attributes, ...this.stamp() };
    await this.point(`write ${target}`, () => {
      if (this.nodes.has(target)) throw ioError("EEXIST", target);
      if (!this.nodes.has(posix.dirname(target))) throw ioError("ENOENT", target);
      this.touch(target);
      const bytes = Buffer.from(content);
      // If killed here, the file exists with half of its bytes.
      this.nodes.set(target, { ...node, content: bytes.subarray(0, bytes.length >> 1) });
    });
    try {
      await this.point(`fsync ${target}`, () => {
        this.nodes.set(target, { ...node, content: Buffer.from(content) });
      });
    } catch (error) {
      // As the node's host does, unless it was killed.
      if (this.alive) this.nodes.delete(target);
      throw error;
    }
  }

  async appendFile(path: string, content: string): Promise<void> {
    const target = await this.realpath(path);
    await this.point(`append ${target}`, () => {
      this.put(target, `${this.text(target) ?? ""}${content}`, { mode: 0o640, uid: 0, gid: 0 });
    });
  }

  async rename(from: string, to: string): Promise<void> {
    const [source, target] = [await this.entry(from), await this.entry(to)];
    await this.point(`rename ${target}`, () => this.move(source, target));
  }

  async replaceFile(path: string, staged: string, expected: string | undefined): Promise<ReplaceResult> {
    const [target, source] = [await this.entry(path), await this.entry(staged)];
    return this.point<ReplaceResult>(`rename ${target}`, () => {
      const node = this.nodes.get(target);
      const found = node?.kind === "file" ? sha256(node.content) : undefined;
      if (found !== expected) return { result: "changed" };
      this.move(source, target);
      const late = node === undefined ? undefined : this.lateWriters.get(target);
      this.lateWriters.delete(target);
      return late === undefined ? { result: "replaced" } : { result: "foreign", bytes: Buffer.from(late) };
    });
  }

  async syncDirectory(path: string): Promise<void> {
    const target = await this.realpath(path);
    await this.point(`fsync ${target}/`, () => {
      if (!this.nodes.has(target)) throw ioError("ENOENT", target);
      bringToDisk(this.nodes, this.onDisk, target);
    });
  }

  async remove(path: string): Promise<void> {
    const target = await this.entry(path);
    const node = this.nodes.get(target);
    if (node === undefined) return;
    await this.point(`remove ${target}`, async () => {
      if (node.kind === "directory" && [...this.nodes.keys()].some((each) => each.startsWith(`${target}/`)))
        throw ioError("ENOTEMPTY", target);
      this.delete(target);
      this.onChange(target);
    });
  }

  async removeTree(path: string): Promise<void> {
    const target = await this.entry(path);
    if (!this.nodes.has(target)) return;
    await this.point(`remove ${target}/`, () => {
      for (const name of this.nodes.keys()) {
        if (name === target || name.startsWith(`${target}/`)) this.nodes.delete(name);
      }
    });
  }

  freeSpace = async () => this.free;
  payloadFileSize = async (source: string) => statSync(source, { throwIfNoEntry: false })?.size;

  async copyPayloadFile(
    source: string,
    target: string,
    expected: { size: number; sha256: string; mode: number },
  ): Promise<void> {
    const to = await this.entry(target);
    await this.point(`copy ${to}`, () => {
      const content = readFileSync(source);
      if (content.length !== expected.size || sha256(content) !== expected.sha256) throw new DigestMismatch(source);
      if (this.nodes.has(to)) throw ioError("EEXIST", to);
      this.put(to, content, { mode: expected.mode, uid: 0, gid: 0 });
    });
  }

  async run(command: string, args: string[]): Promise<RunResult> {
    const program = this.programs.get(posix.basename(command));
    if (program === undefined) return { code: 127, stdout: "", stderr: `${command}: not found` };
    const name = `run ${[posix.basename(command), ...args].join(" ")}`;
    try {
      return await this.point(name, async () => ({ code: 0, stdout: "", stderr: "", ...(await program(args, this)) }));
    } catch (error) {
      if (error instanceof Killed || error instanceof TooSlow) throw error;
      return { code: 1, stdout: "", stderr: (error as Error).message };
    }
  }

  async lock(path: string): Promise<{ release(): Promise<void> }> {
    return this.point(`lock ${path}`, () => {
      if (this.locked.has(path)) throw ioError("EWOULDBLOCK", path);
      this.locked.add(path);
      return {
        release: async () => {
          this.locked.delete(path);
        },
      };
    });
  }

  now(): Date {
    this.time += 1;
    return new Date(this.time + this.skew);
  }

  uptime(): number {
    this.time += 1;
    return this.time;
  }

  async delay(ms: number): Promise<void> {
    if (this.dead) throw new Killed("the process was killed");
    this.time += Math.round(ms);
    // Lets other promises of the test run.
    await new Promise((resolve) => setImmediate(resolve));
  }

  private reading(how: string, path: string): void {
    if (this.dead) throw new Killed("the process was killed");
    this.onRead(`${how} ${path}`);
  }

  private readonly readLink = (path: string): string | undefined => {
    const node = this.nodes.get(path);
    return node?.kind === "link" ? node.target : undefined;
  };

  private async entry(path: string): Promise<string> {
    return isPlain(this.nodes, path) ? path : resolvePath(path, this.readLink, false);
  }

  private async file(path: string): Promise<Node & { kind: "file" }> {
    if (this.dead) throw new Killed("the process was killed");
    const target = await this.realpath(path);
    const node = this.nodes.get(target);
    if (node === undefined) throw ioError("ENOENT", target);
    if (node.kind !== "file") throw ioError("EISDIR", target);
    return node;
  }

  private touch(path: string): void {
    this.entriesChanged.set(posix.dirname(path), this.stamp().mtimeNs);
  }

  private stamp(): { ino: bigint; mtimeNs: bigint } {
    this.nextIno += 1n;
    return { ino: this.nextIno, mtimeNs: BigInt(Math.round(this.time * 1_000_000)) };
  }

  private parents(path: string): void {
    for (let parent = posix.dirname(path); !this.nodes.has(parent); parent = posix.dirname(parent)) {
      this.nodes.set(parent, { kind: "directory", mode: 0o755, uid: 0, gid: 0, ...this.stamp() });
    }
  }

  private move(source: string, target: string): void {
    const node = this.nodes.get(source);
    if (node === undefined) throw ioError("ENOENT", source);
    for (const [name, child] of [...this.nodes]) {
      if (!name.startsWith(`${source}/`)) continue;
      this.nodes.delete(name);
      this.nodes.set(`${target}${name.slice(source.length)}`, child);
    }
    this.delete(source);
    this.nodes.set(target, node);
    this.onChange(source);
    this.onChange(target);
  }
}
