import { posix } from "node:path";
import * as z from "zod";
import { Refusal } from "../runtime/refusal.ts";
import { nodePath, runtimeSpec } from "../runtime/spec.ts";
import { readIfThere, rootOwned, stateDirectory, writeFileAtomically } from "./files.ts";
import type { Host } from "./host.ts";

export const journalPath = posix.join(stateDirectory, "journal.json");
/** containerd's file as it is without us. */
export const pristinePath = posix.join(stateDirectory, "pristine");

const digest = z.string().regex(/^[0-9a-f]{64}$/);
/** Content of a file that may be absent (`null`). */
const contentDigest = digest.nullable();
const attributes = z.strictObject({ mode: z.int(), uid: z.int(), gid: z.int() });

/** A file as it was placed; later runs compare stat data with it instead of reading gigabytes. */
const placedFile = z.strictObject({ path: z.string(), size: z.int(), mtimeNs: z.string(), ino: z.string() });
export type PlacedFile = z.infer<typeof placedFile>;

/** A runtime that we placed on this node, whole, so that it can be kept or removed when no spec lists it any more. */
const ownedRuntime = z.strictObject({
  runtime: runtimeSpec,
  /** Empty until all of them are placed. */
  files: z.array(placedFile),
  /** Whether containerd's file, as committed, has the handler. */
  configured: z.boolean(),
});
export type OwnedRuntime = z.infer<typeof ownedRuntime>;

/**
 * A change of containerd's file that is not committed yet.
 * replacing: the file holds the old bytes or the new ones; nothing is proven. rolling-back: the old bytes are on their
 * way back, and the daemon has to be restarted with them.
 */
const transaction = z.strictObject({
  phase: z.enum(["replacing", "rolling-back"]),
  startedAt: z.iso.datetime(),
  bootId: z.string(),
  specHash: digest,
  before: contentDigest,
  after: contentDigest,
  /** The verified copy of the old bytes; null where there was no file. */
  backup: nodePath.nullable(),
  /** Handlers in the file before and after. */
  handlersBefore: z.array(z.string()),
  handlersAfter: z.array(z.string()),
  /** What the daemon served before, as the gate understands it. */
  servedBefore: z.json(),
  /** Whether Kubernetes called the node ready before; absent where that could not be told. */
  nodeReadyBefore: z.boolean().optional(),
  /** Why the change is being rolled back, and the code of that. */
  reason: z.string().optional(),
  code: z.string().optional(),
});
export type Transaction = z.infer<typeof transaction>;

const journalSchema = z.strictObject({
  schemaVersion: z.literal(1),
  group: z.string(),
  /** Containerd's file, once we changed it. */
  file: z
    .strictObject({
      path: nodePath,
      /** The file without us: digest of `pristinePath`, or null where there was no file. */
      pristine: contentDigest,
      attributes,
      /** What we wrote last: as long as the file holds it, nobody else edited it. */
      written: contentDigest,
      /** Ours, oldest first; the first one is kept for ever. */
      backups: z.array(nodePath),
    })
    .optional(),
  runtimes: z.array(ownedRuntime),
  /** Directories that did not exist before us, outermost first. */
  createdDirectories: z.array(nodePath),
  transaction: transaction.optional(),
  /**
   * The circuit breaker: content that failed, or whose trial ended twice without an answer. It is not tried again by
   * itself. `attempts` counts trials that were cut off before the gate could speak.
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
  /** Digest of the spec's bytes that the node serves. */
  committed: z.strictObject({ specHash: digest, at: z.iso.datetime() }).optional(),
  /** The last request for another attempt that was acted upon. */
  retryToken: z.string().optional(),
});
export type Journal = z.infer<typeof journalSchema>;

export const emptyJournal = (group: string): Journal => ({
  schemaVersion: 1,
  group,
  runtimes: [],
  createdDirectories: [],
});

/** The journal of this node's group, or an empty one. Refuses one of another group, and one that it cannot read. */
export async function readJournal(host: Host, group: string): Promise<Journal> {
  const bytes = await readIfThere(host, journalPath);
  if (bytes === undefined) return emptyJournal(group);
  let journal: Journal;
  try {
    journal = journalSchema.parse(JSON.parse(bytes.toString()));
  } catch (error) {
    throw new Refusal(
      "journal-unreadable",
      `${journalPath} on this node is not a journal that this version understands (${firstLine(error)}). ` +
        "Install again with the version that wrote it, or look at the node before you delete the file.",
      { cause: error },
    );
  }
  if (journal.group !== group) {
    throw new Refusal(
      "other-group",
      `This node belongs to the node group "${journal.group}" (${journalPath}), not to "${group}". ` +
        `A node can be in one group only: make the groups' node selectors disjoint, or uninstall "${journal.group}" from this node first.`,
    );
  }
  return journal;
}

const firstLine = (error: unknown): string => {
  if (error instanceof z.ZodError) {
    const [issue] = error.issues;
    return `${issue?.path.join(".") ?? ""}: ${issue?.message ?? ""}`;
  }
  return String((error as Error).message).split("\n")[0] ?? "";
};

export async function writeJournal(host: Host, journal: Journal): Promise<void> {
  await host.makeDirectory(stateDirectory, 0o700);
  await writeFileAtomically(host, journalPath, `${JSON.stringify(journal, null, 1)}\n`, rootOwned(0o600));
}
