import { posix } from "node:path";
import { Refusal } from "../../runtime/refusal.ts";
import { stateDirectory } from "../host/files.ts";
import type { Host } from "../host/host.ts";
import { type PayloadPlan, runtimesDirectory } from "./payload.ts";

interface Need {
  directory: string;
  /** What needs the space, at the start of a sentence: "The payload". */
  what: string;
  bytes: number;
  files: number;
}

const mebibytes = (bytes: number) => `${Math.ceil(bytes / (1 << 20))} MiB`;

async function requireFree(host: Host, { directory, what, bytes, files }: Need): Promise<void> {
  const free = await host.freeSpace(directory);
  if (free.bytes < bytes) {
    throw new Refusal(
      "no-space",
      `${what} needs ${mebibytes(bytes)} on the file system of ${directory}, which has ${mebibytes(free.bytes)} free. ` +
        "Free some space on the node or give it a larger disk.",
    );
  }
  if (free.inodes < files) {
    throw new Refusal(
      "no-inodes",
      `${what} needs ${files} files on the file system of ${directory}, which has ${free.inodes} inodes free. ` +
        "Remove small files on the node or give it another file system.",
    );
  }
}

/** Refuses before the first byte is copied. A tenth more than needed stays free, and at least 64 MiB. */
export async function requireRoomForPayloads(host: Host, plans: PayloadPlan[]): Promise<void> {
  const bytes = plans.reduce((sum, plan) => sum + plan.bytes, 0);
  const files = plans.reduce((sum, plan) => sum + plan.missing.length, 0);
  if (files === 0) return;
  // Each file, the directories of its staged form, and a margin.
  const inodes = files * 2 + 100;
  await requireFree(host, {
    directory: runtimesDirectory,
    what: "The payload",
    bytes: bytes + Math.max(bytes / 10, 64 << 20),
    files: inodes,
  });
}

/** Refuses, before anything is changed, if journal and guard, or containerd's file and its copies, would not fit. */
export async function requireRoomForChange(host: Host, file: string): Promise<void> {
  const size = (await host.stat(file))?.size ?? 0;
  await requireFree(host, { directory: stateDirectory, what: "The installer's journal", bytes: 1 << 20, files: 20 });
  // Its backup, its candidate, its staged form and that of a rollback.
  const bytes = (1 << 20) + 4 * size;
  await requireFree(host, {
    directory: posix.dirname(file),
    what: "The change of containerd's file",
    bytes,
    files: 20,
  });
}
