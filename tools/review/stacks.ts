import { readdir, readFile } from "node:fs/promises";
import { changedStacks, isStackFile, type ListedStack, numbered } from "../../review/changed-stacks.ts";
import { Refusal } from "../../runtime/refusal.ts";
import { run } from "../process/run.ts";

/**
 * Prints the listed stacks that what is checked out here changes, as JSON: all of them where git does not know the commit
 * before the change, which is never known of a branch's first push.
 *
 * @param list a JSON array of stacks
 * @param base the commit before the change
 */
export async function stacks(list: string, base: string): Promise<void> {
  const listed = readList(list);
  const changed = await changedSince(base);
  console.log(JSON.stringify(changed === undefined ? numbered(listed) : await ofFiles(listed, changed)));
}

function readList(text: string): string[] {
  let list: unknown;
  try {
    list = JSON.parse(text);
  } catch {
    // Refused below.
  }
  if (Array.isArray(list) && list.every((stack): stack is string => typeof stack === "string")) return list;
  throw new Refusal("stacks", `--stacks ${text} is not a list of stacks as JSON, such as ["production"].`);
}

async function changedSince(base: string): Promise<string[] | undefined> {
  // Both paths of what moved, and names as they are. What begins with a dash is no option.
  const words = ["diff", "--name-only", "--no-renames", "-z", "--end-of-options", base, "HEAD", "--"];
  const { code, stdout, stderr } = await run("git", words);
  if (code === 0) return stdout.split("\0").filter(Boolean);
  console.error(`What changed since ${base} is not known, so all stacks are listed: ${stderr.split("\n", 1)[0]}`);
  return undefined;
}

async function ofFiles(listed: string[], changed: string[]): Promise<ListedStack[]> {
  const names = (await readdir(".")).filter(isStackFile);
  const texts = await Promise.all(names.map(async (name) => [name, await readFile(name, "utf8")] as const));
  return changedStacks(listed, changed, Object.fromEntries(texts));
}
