import { posix } from "node:path";
import * as z from "zod";
import { Refusal } from "../../runtime/refusal.ts";
import { type InstallSpec, nodePath, runtimeSpec } from "../../runtime/spec.ts";
import { readIfThere, rootOwned, stateDirectory, writeFileAtomically } from "./files.ts";
import type { Host } from "./host.ts";
import { leniently } from "./lenient.ts";

export const journalPath = posix.join(stateDirectory, "journal.json");
/** containerd's file without our block. */
export const pristinePath = posix.join(stateDirectory, "pristine");

const digest = z.string().regex(/^[0-9a-f]{64}$/);
/** Content of a file; `null` if it is absent. */
const contentDigest = digest.nullable();
const attributes = z.strictObject({ mode: z.int(), uid: z.int(), gid: z.int() });

/** A file as it was placed; later runs compare stat data instead of reading gigabytes. */
const placedFile = z.strictObject({
  path: z.string(),
  size: z.int(),
  mtimeNs: z.string(),
  /** Unlike the time of modification, nobody can set it back. Absent in journals of earlier versions. */
  ctimeNs: z.string().optional(),
  ino: z.string(),
});
export type PlacedFile = z.infer<typeof placedFile>;

/** The full spec of a runtime that we placed here, so that it can be kept or removed when no spec lists it any more. */
const ownedRuntime = z.strictObject({
  runtime: runtimeSpec,
  /** Empty until all files are placed. */
  files: z.array(placedFile),
  /** Whether containerd's file, as committed, has the handler. */
  configured: z.boolean(),
});
export type OwnedRuntime = z.infer<typeof ownedRuntime>;

/**
 * A change of containerd's file that is not committed yet.
 * replacing: the file holds the old bytes or the new ones; nothing is proven yet. rolling-back: the old bytes are being
 * restored, and the daemon must be restarted with them.
 */
const transaction = z.strictObject({
  phase: z.literal(["replacing", "rolling-back"]),
  startedAt: z.iso.datetime(),
  /** Written by earlier versions; nothing reads it. */
  bootId: z.string().optional(),
  specHash: digest,
  before: contentDigest,
  after: contentDigest,
  /** The verified copy of the old bytes; null if there was no file. */
  backup: nodePath.nullable(),
  /** Handlers in the file before and after. */
  handlersBefore: z.array(z.string()),
  handlersAfter: z.array(z.string()),
  /** What the daemon served before, as the gate understands it. */
  servedBefore: z.json(),
  /** Whether Kubernetes reported the node as Ready before; absent if unknown. */
  nodeReadyBefore: z.boolean().optional(),
  /** Why the change is being rolled back, and the code of that reason. */
  reason: z.string().optional(),
  code: z.string().optional(),
});
export type Transaction = z.infer<typeof transaction>;

/**
 * A journal outlives the version that wrote it, in both directions: an image can be rolled back. So there is one rule for
 * `schemaVersion`: it stays 1 as long as a version that does not know a new field may change and uninstall what is there.
 * A field that is added is optional or has a default, none changes its meaning, and none of those here is ever left out.
 * Whoever reads a field that it does not know keeps it and writes it back (`leniently`).
 */
const journalSchema = z.strictObject({
  schemaVersion: z.literal(1),
  group: z.string(),
  /** containerd's file, once we have changed it. */
  file: z
    .strictObject({
      path: nodePath,
      /** The file without our block: digest of `pristinePath`, or null if there was no file. */
      pristine: contentDigest,
      attributes,
      /** What we wrote last: as long as the file holds it, nobody else has edited it. */
      written: contentDigest,
      /** Ours, oldest first; the first one is kept until uninstallation. */
      backups: z.array(nodePath),
    })
    .optional(),
  /** Files that held our tables before containerd read another one; what is ours is removed from them. */
  left: z
    .array(
      z.strictObject({
        path: nodePath,
        backups: z.array(nodePath),
        /** It was not there before us. Absent in journals of earlier versions, and for files that were. */
        created: z.boolean().optional(),
      }),
    )
    .optional(),
  runtimes: z.array(ownedRuntime),
  /** Directories that the installer created, outermost first. */
  createdDirectories: z.array(nodePath),
  transaction: transaction.optional(),
  /**
   * The circuit breaker: content that failed, or whose trial was interrupted. If `final`, it is not tried again until the
   * spec changes or somebody asks for it. `attempts` counts the trials that failed or were interrupted.
   */
  failure: z
    .strictObject({
      content: contentDigest,
      specHash: digest,
      code: z.string(),
      reason: z.string(),
      at: z.iso.datetime(),
      attempts: z.int(),
      final: z.boolean(),
    })
    .optional(),
  /** Digest of the bytes of the spec that the node serves. */
  committed: z.strictObject({ specHash: digest, at: z.iso.datetime() }).optional(),
  /** The last request for another attempt that was acted on. */
  retryToken: z.string().optional(),
});
export type Journal = z.infer<typeof journalSchema>;

/** As it is read: of any version, with all that it holds. */
const anyVersion = leniently(journalSchema);
/** As it leaves the node: nothing but what is known here. */
const outlined = leniently(journalSchema, "drop");

const emptyJournal = (group: string): Journal => ({
  schemaVersion: 1,
  group,
  runtimes: [],
  createdDirectories: [],
});

/** The name of a group, and the one that it had before. */
export type GroupNames = Pick<InstallSpec, "group" | "formerly">;

/**
 * The journal of this node's group, or an empty one; it may still have the group's former name (`takeOver`). Refuses one of
 * another group, and one that it cannot read.
 */
export async function readJournal(host: Host, { group, formerly }: GroupNames): Promise<Journal> {
  const bytes = await readIfThere(host, journalPath);
  if (bytes === undefined) return emptyJournal(group);
  let journal: Journal;
  try {
    journal = anyVersion.parse(JSON.parse(bytes.toString()));
  } catch (error) {
    throw new Refusal(
      "journal-unreadable",
      `${journalPath} on this node is not a journal that this version understands (${firstLine(error)}). ` +
        "Install again with the version that wrote it, or look at the node before you delete the file.",
      { cause: error },
    );
  }
  if (journal.group !== group && journal.group !== formerly) throw new OtherGroup(journal.group, group);
  return journal;
}

/** Nothing on the node is this group's: neither what is installed nor its labels. */
export class OtherGroup extends Refusal {
  constructor(owner: string, group: string) {
    super(
      "other-group",
      `This node belongs to the node group "${owner}" (${journalPath}), not to "${group}", and a node is in one group only. ` +
        `If "${group}" is the new name of "${owner}": set formerly: ${owner} for "${group}" and remove "${owner}" from the stack. ` +
        `If both are there: let the nodes of "${group}" not include this node, or take it out of "${owner}" and then run: ` +
        `npx contrast-runtime uninstall --group ${owner} --nodes with this node's name.`,
    );
  }
}

/** With the lock held: gives a node that the group has under its former name the new one. */
export async function takeOver(host: Host, { group }: GroupNames, journal: Journal): Promise<Journal> {
  if (journal.group === group) return journal;
  const own = { ...journal, group };
  await writeJournal(host, own);
  return own;
}

const firstLine = (error: unknown): string => {
  const [issue] = error instanceof z.ZodError ? error.issues : [];
  if (issue !== undefined) return `${issue.path.join(".")}: ${issue.message}`;
  return (error instanceof Error ? error.message : String(error)).replace(/\n.*/s, "");
};

export async function writeJournal(host: Host, journal: Journal): Promise<void> {
  await host.makeDirectory(stateDirectory, 0o700);
  await writeFileAtomically(host, journalPath, `${JSON.stringify(journal, null, 1)}\n`, rootOwned(0o600));
}

/**
 * Of a journal only what a plan reads; the digests of containerd's file are replaced by those of the forms in which it
 * leaves the node, and by one of nothing where it does not. A journal that cannot be read leaves as another such one.
 */
export function outlineJournal(text: string, digestOf: (digest: string) => string | undefined): string {
  const journal = parseJournal(text, outlined);
  if (journal === undefined) return "not a journal that this version understands";
  const { schemaVersion, group, file, runtimes } = journal;
  const redacted = (digest: string | null) => (digest === null ? null : (digestOf(digest) ?? "0".repeat(64)));
  const kept: Journal = {
    schemaVersion,
    group,
    ...(file && {
      file: {
        path: file.path,
        pristine: redacted(file.pristine),
        attributes: file.attributes,
        written: redacted(file.written),
        backups: [],
      },
    }),
    runtimes: runtimes.map((owned) => ({
      ...owned,
      runtime: { ...owned.runtime, kataConfig: { ...owned.runtime.kataConfig, content: "" } },
    })),
    createdDirectories: [],
  };
  return `${JSON.stringify(kept, null, 1)}\n`;
}

/** undefined: not one that this version understands. */
export function parseJournal(text: string, schema = anyVersion): Journal | undefined {
  try {
    return schema.safeParse(JSON.parse(text)).data;
  } catch {
    return undefined;
  }
}
