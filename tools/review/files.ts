import { readFile } from "node:fs/promises";
import { type Approved, readApproved } from "../../review/approval/form.ts";
import { Refusal } from "../../runtime/refusal.ts";

/** "-" is standard input. */
export const readText = async (file: string): Promise<string> => (await readBytes(file)).toString("utf8");

export async function readBytes(file: string): Promise<Buffer> {
  try {
    return await readFile(file === "-" ? "/dev/stdin" : file);
  } catch (error) {
    throw new Refusal("unreadable", `${file} cannot be read: ${(error as Error).message}.`);
  }
}

export const approvedIn = async (file: string): Promise<Approved> => readApproved(await readText(file), file);
