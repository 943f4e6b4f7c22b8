import {
  type Alias,
  type Document,
  isAlias,
  isMap,
  isScalar,
  isSeq,
  LineCounter,
  type Node,
  parseAllDocuments,
} from "yaml";
import { Refusal } from "../runtime/refusal.ts";

/** A file with YAML documents, or what came by standard input. */
export interface ManifestFile {
  /** As messages name it. */
  name: string;
  text: string;
}

export type Path = readonly (string | number)[];

/** The documents of a file, in which fields can be changed without touching comments, order or what else is there. */
export class Documents {
  readonly name: string;
  readonly #text: string;
  readonly #documents: readonly Document.Parsed[];
  readonly #lines = new LineCounter();
  readonly #changed = new Set<Document.Parsed>();
  readonly #wanted: { index: number; path: Path; after: unknown }[] = [];

  /** @throws Refusal that says the file and line */
  constructor({ name, text }: ManifestFile) {
    this.name = name;
    this.#text = text;
    // Merge keys as kubectl reads them.
    const options = { lineCounter: this.#lines, merge: true, prettyErrors: false, logLevel: "error" } as const;
    const parsed = parseAllDocuments(text, options);
    this.#documents = "empty" in parsed ? [] : parsed;
    const helm = helmLine(text, this.#documents, this.#lines);
    if (helm !== undefined)
      throw new Refusal(
        "no-yaml",
        `${name}:${helm} has Helm's template syntax ({{ … }}): render the chart first, such as helm template CHART | contrast-runtime workload -.`,
      );
    for (const { errors } of this.#documents)
      for (const { message, pos } of errors)
        throw new Refusal("no-yaml", `${name}:${this.#lines.linePos(pos[0]).line} is no YAML: ${message}.`);
  }

  get count(): number {
    return this.#documents.length;
  }

  /** What a document says, aliases and merge keys resolved; null for an empty one. */
  value(index: number): unknown {
    const document = this.#documents[index];
    try {
      return document?.toJS() ?? null;
    } catch (error) {
      throw new Refusal("no-yaml", `${this.name}:${this.line(index, [])} cannot be read: ${(error as Error).message}.`);
    }
  }

  /** The line of a field, or of what is there of the way to it. */
  line(index: number, path: Path): number {
    const document = this.#documents[index];
    let node: unknown = document?.contents;
    let offset = startOf(node) ?? document?.range[0] ?? 0;
    for (const key of path) {
      if (document !== undefined && isAlias(node)) node = node.resolve(document);
      const pair = isMap(node) ? node.items.find((item) => keyOf(item.key) === key) : undefined;
      const next = isSeq(node) ? node.items[Number(key)] : pair?.value;
      const found = startOf(pair?.key) ?? startOf(next);
      if (found === undefined) break;
      offset = found;
      node = next;
    }
    return this.#lines.linePos(offset).line;
  }

  /** Makes a part of a document say what `after` says instead of `before`: only what differs is touched. */
  change(index: number, path: Path, before: unknown, after: unknown): void {
    const document = this.#documents[index];
    if (document === undefined || same(before, after)) return;
    this.#changed.add(document);
    this.#wanted.push({ index, path, after });
    apply(document, [...path], before, after);
  }

  /**
   * The file. Documents that were not changed are byte for byte as they were.
   *
   * @throws Refusal where an anchor stands for several places that must now differ
   */
  toString(): string {
    if (this.#changed.size === 0) return this.#text;
    const values = this.#documents.map((document) => (this.#changed.has(document) ? document.toJS() : undefined));
    for (const { index, path, after } of this.#wanted)
      if (!same(path.reduce(member, values[index]), after))
        throw new Refusal(
          "anchors",
          `${this.name}:${this.line(index, path)} has an anchor (&…) whose aliases must now say different things: write each out.`,
        );
    const parts = this.#documents.map((document, index) => {
      const begin = index === 0 ? 0 : this.#end(index - 1);
      if (!this.#changed.has(document)) return this.#text.slice(begin, this.#end(index));
      const text = document.toString(styleOf(this.#text.slice(begin, this.#end(index))));
      return text.endsWith("\n") ? text : `${text}\n`;
    });
    return parts.join("");
  }

  #end(index: number): number {
    return index === this.#documents.length - 1 ? this.#text.length : (this.#documents[index]?.range[2] ?? 0);
  }
}

/** As its author writes: whether lists are indented, and braces have spaces. Lines are not folded. */
const styleOf = (text: string) => ({
  lineWidth: 0,
  minContentWidth: 0,
  indentSeq: !/^( *)[\w-]+:[^\S\n]*(?:#.*)?\n\1- /m.test(text),
  flowCollectionPadding: !/\{[\w"']/.test(text),
});

const startOf = (node: unknown): number | undefined =>
  typeof node === "object" && node !== null && "range" in node && Array.isArray(node.range) ? node.range[0] : undefined;

const keyOf = (key: unknown): unknown => (isScalar(key) ? key.value : key);

const member = (value: unknown, key: string | number): unknown =>
  typeof value === "object" && value !== null && Object.hasOwn(value, key) ? Reflect.get(value, key) : undefined;

const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);

/** As JSON, in any order of keys; a key without a value counts as absent. */
function same(left: unknown, right: unknown): boolean {
  if (Array.isArray(left) && Array.isArray(right))
    return left.length === right.length && left.every((each, index) => same(each, right[index]));
  if (isRecord(left) && isRecord(right))
    return [...new Set([...Object.keys(left), ...Object.keys(right)])].every((key) =>
      same(member(left, key), member(right, key)),
    );
  return (left ?? undefined) === (right ?? undefined);
}

function apply(document: Document.Parsed, path: (string | number)[], before: unknown, after: unknown): void {
  if (same(before, after)) return;
  const node = own(document, path);
  if (isRecord(before) && isRecord(after) && isMap(node)) {
    for (const key of new Set([...Object.keys(before), ...Object.keys(after)]))
      apply(document, [...path, key], member(before, key), member(after, key));
  } else if (Array.isArray(before) && Array.isArray(after) && before.length === after.length && isSeq(node)) {
    for (const [index, each] of before.entries()) apply(document, [...path, index], each, after[index]);
  } else if (after === undefined) document.deleteIn(path);
  else if (isScalar(node) && !isRecord(after) && !Array.isArray(after)) node.value = after;
  else document.setIn(path, document.createNode(after));
}

/** The node at a path; aliases on the way become copies, so that a change there stays there. */
function own(document: Document.Parsed, path: (string | number)[]): unknown {
  let node: Node | null | undefined = document.contents;
  for (const [depth, key] of path.entries()) {
    let next: unknown = isMap(node) ? node.get(key, true) : isSeq(node) ? node.get(key, true) : undefined;
    if (isAlias(next)) {
      next = copyOf(next, document);
      document.setIn(path.slice(0, depth + 1), next);
    }
    node = isMap(next) || isSeq(next) || isScalar(next) ? next : undefined;
  }
  return node;
}

const copyOf = (alias: Alias, document: Document.Parsed) => document.createNode(alias.toJS(document));

/** The line of what is Helm's and not YAML's: it looks like a map in a map's key, or breaks the document. */
function helmLine(text: string, documents: readonly Document.Parsed[], lines: LineCounter): number | undefined {
  const isBroken = documents.some(({ errors }) => errors.length > 0);
  const found = isBroken ? /^[^#\n]*\{\{/m.exec(text) : undefined;
  if (found) return lines.linePos(found.index).line;
  const search = (node: unknown): number | undefined => {
    if (isSeq(node)) return first(node.items, search);
    if (!isMap(node)) return undefined;
    return first(node.items, ({ key, value }) => (isMap(key) && node.flow ? startOf(node) : search(value)));
  };
  const offset = first(documents, ({ contents }) => search(contents));
  return offset === undefined ? undefined : lines.linePos(offset).line;
}

function first<Item, Found>(items: readonly Item[], find: (item: Item) => Found | undefined): Found | undefined {
  for (const item of items) {
    const found = find(item);
    if (found !== undefined) return found;
  }
  return undefined;
}
