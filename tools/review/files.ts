import { readFile } from "node:fs/promises";
import { type Approved, readApproved } from "../../review/approval/form.ts";
import { Refusal } from "../../runtime/refusal.ts";
import { cannotBeRead } from "../../runtime/unreadable.ts";

/** "-" is standard input. */
export const readText = async (file: string): Promise<string> => (await readBytes(file)).toString("utf8");

export async function readBytes(file: string): Promise<Buffer> {
  const path = file === "-" ? "/dev/stdin" : file;
  try {
    return await readFile(path);
  } catch (error) {
    throw new Refusal("unreadable", `${cannotBeRead(path, error)}.`);
  }
}

export const approvedIn = async (file: string): Promise<Approved> => readApproved(await readText(file), file);
