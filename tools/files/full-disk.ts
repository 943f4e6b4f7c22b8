import { Refusal } from "../../runtime/refusal.ts";

/** Waits for the writing; a full disk becomes a sentence, all other failures stay what they are. */
export async function explainFullDisk<T>(place: string, writing: Promise<T>): Promise<T> {
  try {
    return await writing;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOSPC") throw error;
    throw new Refusal("disk-full", `The disk is full at ${place}. Make room there and run the same command again.`, {
      cause: error,
    });
  }
}
