import { Refusal } from "../../../../runtime/refusal.ts";
import type { MemoryNode } from "../../../fakes/memory-node.ts";

/** The code of the refusal that the action ends in; any other end is an error. */
export async function refusalOf(action: Promise<unknown>): Promise<string> {
  const error: unknown = await action.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (!(error instanceof Refusal)) throw new Error(`not refused: ${String(error)}`);
  return error.code;
}

/** What the action says when it fails; "done" if it does not. */
export const messageOf = (action: Promise<unknown>): Promise<string> =>
  action.then(
    () => "done",
    (error: unknown) => (error as Error).message,
  );

export const backupsOn = (node: MemoryNode): string[] =>
  Object.keys(node.host.tree()).filter((path) => path.endsWith(".bak"));

export const guardsFilesOn = (node: MemoryNode): string[] =>
  Object.keys(node.host.tree()).filter((path) => path.includes("guard"));
