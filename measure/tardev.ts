import { FormatError } from "./bytes.ts";
import { type TarEntry, TarReader } from "./tar-reader.ts";
import { HashTree } from "./verity.ts";

/*
 * What tardev-snapshotter makes of an image layer on AKS (microsoft/kata-containers, src/tardev-snapshotter: tarindex and
 * verity, releases 3.2.0.azl1 to azl5; genpolicy computes the same): the uncompressed tar, directly followed by an index
 * with which the guest's tarfs mounts it, padded to whole blocks of 4096 bytes, and a dm-verity tree over both. The tree's
 * root hash is in the guest's policy. Later releases mount layers as erofs images instead.
 *
 * The index, all little-endian, offsets from the start of the layer:
 *   inodes       u16 mode, u8 flags (1: opaque), u8 bits 32-35 of mtime, u32 owner, u32 group, u32 mtime, u64 size, u64 offset
 *   directories  per entry u64 inode number, u64 offset and u64 length of the name, u8 type as in dirent.h, 7 bytes
 *   texts        targets of symbolic links that the tar's headers do not hold, then names
 *   superblock   512 bytes before the end: u64 offset of the inodes, u64 number of inodes
 * Inodes and directories are in breadth-first order, names in the order of their bytes.
 */

const type = {
  mask: 0o170000n,
  fifo: 0o010000n,
  character: 0o020000n,
  directory: 0o040000n,
  block: 0o060000n,
  file: 0o100000n,
  link: 0o120000n,
};
const typeOf = (node: Node) => node.mode & type.mask;
const opaqueFlag = 1;

/** A path of the layer. If nothing says what it is (a file's directory may be missing), its mode is 0. */
interface Node {
  mode: bigint;
  opaque: boolean;
  owner: bigint;
  group: bigint;
  modified: bigint;
  size: bigint;
  /** Of contents or target; for devices the minor number, and the major one in the upper half. */
  offset: bigint;
  children: Map<string, Node>;
  /** Has several names. */
  linked: boolean;
  /** From 1, in the order of the inode table. */
  number: number;
}

const empty = () => ({
  opaque: false,
  owner: 0n,
  group: 0n,
  modified: 0n,
  size: 0n,
  offset: 0n,
  linked: false,
  number: 0,
});
const newNode = (mode = 0n): Node => ({ ...empty(), mode, children: new Map() });

/** Whether this version of Microsoft's Kata comes with a snapshotter that computes these roots. */
export const computesTardevRoots = (kataVersion: string): boolean => /^3\.2\.0\.azl[1-5]$/.test(kataVersion);

/** The dm-verity parameters of every layer, which the snapshotter's own 16-byte superblock repeats. */
const verity = { algorithm: "sha256", dataBlockSize: 4096, hashBlockSize: 4096, salt: Buffer.alloc(32) } as const;

/** Takes a layer's uncompressed bytes in pieces of any size. Memory grows with the number of its paths, not with its bytes. */
export class TardevLayer {
  readonly #tree = new HashTree(verity);
  readonly #paths = new LayerPaths();
  readonly #reader = new TarReader((entry) => this.#paths.add(entry));
  #size = 0;

  /** @throws FormatError for what is not a tar archive, or contains something whose index is not known */
  update(chunk: Uint8Array): void {
    this.#size += chunk.length;
    this.#tree.update(chunk);
    this.#reader.update(chunk);
  }

  /** The root hash: 32 bytes. */
  finish(): Buffer {
    this.#reader.finish();
    this.#tree.update(this.#paths.index(this.#size));
    return this.#tree.finish();
  }
}

/** The root hash of a whole layer. */
export function tardevRootHash(chunks: Iterable<Uint8Array>): Buffer {
  const layer = new TardevLayer();
  for (const chunk of chunks) layer.update(chunk);
  return layer.finish();
}

class LayerPaths {
  readonly #root = newNode(type.directory | 0o555n);
  /** Targets that do not fit in their headers, in archive order, including those whose link was replaced later. */
  readonly #longTargets: string[] = [];

  /** Leaves out members of other kinds, or without what their kind needs, as the snapshotter does. */
  add(entry: TarEntry): void {
    if (entry.mode === undefined) return;
    if (entry.type === "1") this.#link(entry);
    else {
      const content = this.#contentOf(entry);
      if (content !== undefined) this.#place(entry, { ...content, mode: content.mode | (entry.mode & 0o777n) });
    }
  }

  #contentOf(entry: TarEntry): Pick<Node, "mode" | "size" | "offset"> | undefined {
    const { target, targetInHeader, headerOffset, contentOffset, deviceMajor, deviceMinor } = entry;
    switch (entry.type) {
      case "0":
        return { mode: type.file, size: BigInt(entry.size), offset: BigInt(contentOffset) };
      case "5":
        return { mode: type.directory, size: 0n, offset: 0n };
      case "6":
        return { mode: type.fifo, size: 0n, offset: 0n };
      case "2": {
        if (target === undefined) return undefined;
        const whole = target === targetInHeader;
        if (!whole) this.#longTargets.push(target);
        return { mode: type.link, size: BigInt(target.length), offset: whole ? BigInt(headerOffset + 157) : 0n };
      }
      case "3":
      case "4": {
        if (deviceMajor === undefined || deviceMinor === undefined) return undefined;
        const mode = entry.type === "3" ? type.character : type.block;
        return { mode, size: 0n, offset: (deviceMajor << 32n) | deviceMinor };
      }
      default:
        return undefined;
    }
  }

  #place(entry: TarEntry, content: Pick<Node, "mode" | "size" | "offset">): void {
    const path = segments(entry.path);
    if (path === undefined) return;
    const name = path.at(-1);
    // Whiteouts of the OCI image specification become those of overlayfs.
    if (name === ".wh..wh..opq") this.#find(path.slice(0, -1), entry).opaque = true;
    else if (name?.startsWith(".wh.")) {
      const node = this.#find([...path.slice(0, -1), name.slice(4)], entry);
      replace(node, { mode: (node.mode & ~type.mask) | type.character, size: 0n, offset: 0n }, entry);
    } else {
      const { owner = 0n, group = 0n, modified = 0n } = entry;
      const wide = { owner: BigInt.asUintN(32, owner), group: BigInt.asUintN(32, group), modified };
      replace(this.#find(path, entry), { ...empty(), ...wide, ...content }, entry);
    }
  }

  #link(entry: TarEntry): void {
    const from = entry.target === undefined ? undefined : segments(entry.target);
    if (from === undefined) return;
    const existing = this.#find(from, entry);
    const path = segments(entry.path);
    if (typeOf(existing) !== type.file || path === undefined) return;
    const name = path.at(-1);
    if (name === undefined) throw odd(entry, "a link in the place of the root directory");
    const directory = this.#find(path.slice(0, -1), entry);
    if (typeOf(directory) === type.file) throw odd(entry, "a path below a file");
    existing.linked = true;
    directory.children.set(name, existing);
  }

  /** Creates what is missing on the way. */
  #find(path: string[], entry: TarEntry): Node {
    let node = this.#root;
    for (const name of path) {
      let child = node.children.get(name);
      if (child === undefined) {
        if (typeOf(node) === type.file) throw odd(entry, "a path below a file");
        child = newNode();
        node.children.set(name, child);
      }
      node = child;
    }
    return node;
  }

  /** What is appended to a layer of this many bytes. */
  index(size: number): Buffer {
    const { nodes, directories } = this.#inOrder();
    const names = directories.flatMap(({ entries }) => entries.map(([name]) => name));
    const lengthOf = (texts: string[]) => texts.reduce((sum, { length }) => sum + length, 0);
    const bodies = size + 32 * nodes.length;
    const texts = bodies + 32 * names.length;
    let targetOffset = texts;
    let bodyOffset = bodies;
    for (const { node, entries } of directories) {
      node.offset = BigInt(bodyOffset);
      node.size = BigInt(32 * entries.length);
      bodyOffset += 32 * entries.length;
    }
    for (const node of nodes) {
      if (typeOf(node) !== type.link || node.offset !== 0n) continue;
      node.offset = BigInt(targetOffset);
      targetOffset += Number(node.size);
    }
    // The snapshotter counts every name and target twice here: the space between the last name and the superblock is zero.
    const end = targetOffset + lengthOf(names) + lengthOf(this.#longTargets) + lengthOf(names);
    const superblock = Math.ceil(end / 4096) * 4096 + 4096 - 512;
    const index = Buffer.alloc(superblock + 512 - size);
    for (const node of nodes) writeInode(index, 32 * (node.number - 1), node);
    let at = bodies - size;
    let nameOffset = targetOffset;
    for (const { entries } of directories) {
      for (const [name, node] of entries) {
        index.writeBigUInt64LE(BigInt(node.number), at);
        index.writeBigUInt64LE(BigInt(nameOffset), at + 8);
        index.writeBigUInt64LE(BigInt(name.length), at + 16);
        index[at + 24] = Number(typeOf(node) >> 12n);
        at += 32;
        nameOffset += name.length;
      }
    }
    for (const text of [...this.#longTargets, ...names]) at += index.write(text, at, "latin1");
    index.writeBigUInt64LE(BigInt(size), superblock - size);
    index.writeBigUInt64LE(BigInt(nodes.length), superblock - size + 8);
    return index;
  }

  /** Breadth first, including below what is not a directory: inodes exist there, but nothing names them. */
  #inOrder() {
    const nodes: Node[] = [];
    const directories: { node: Node; entries: [name: string, node: Node][] }[] = [];
    const meet = (node: Node) => {
      if (node.number === 0) node.number = nodes.push(node);
    };
    meet(this.#root);
    for (let at = 0; at < nodes.length; at += 1) {
      const node = nodes[at];
      if (node === undefined) break;
      const entries = [...node.children].sort(([left], [right]) => (left < right ? -1 : 1));
      for (const [, child] of entries) meet(child);
      if (typeOf(node) === type.directory) directories.push({ node, entries });
    }
    return { nodes, directories };
  }
}

function writeInode(index: Buffer, at: number, node: Node): void {
  index.writeUInt16LE(Number(node.mode), at);
  index[at + 2] = node.opaque ? opaqueFlag : 0;
  index[at + 3] = Number((node.modified >> 32n) & 0xfn);
  index.writeUInt32LE(Number(node.owner), at + 4);
  index.writeUInt32LE(Number(node.group), at + 8);
  index.writeUInt32LE(Number(node.modified & 0xffffffffn), at + 12);
  index.writeBigUInt64LE(node.size, at + 16);
  index.writeBigUInt64LE(node.offset, at + 24);
}

function replace(node: Node, by: Partial<Node>, entry: TarEntry): void {
  if (node.linked) throw odd(entry, "another member for a file that has several names");
  Object.assign(node, by, { children: new Map() });
}

/** Undefined for a path that leads out of the layer. */
function segments(path: string): string[] | undefined {
  const found: string[] = [];
  for (const name of path.split("/")) {
    if (name === "" || name === ".") continue;
    if (name !== "..") found.push(name);
    else if (found.pop() === undefined) return undefined;
  }
  return found;
}

/** No program that builds images writes these; the snapshotter turns them into what its guest cannot mount. */
const odd = (entry: TarEntry, what: string) =>
  new FormatError(
    "image layer",
    entry.headerOffset,
    `"${Buffer.from(entry.path, "latin1")}" is ${what}, which no layer should have`,
  );
