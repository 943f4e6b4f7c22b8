import { run } from "../../../../tools/cli/command.ts";
import { verb } from "../../../../tools/cli/verbs/lock.ts";
import type { Locked } from "../../../../tools/lock/order.ts";
import type { Progress } from "../../../../tools/process/progress.ts";

/** `contrast-runtime lock WORDS`, with what it locked; a refusal is thrown. */
export async function lock(words: string[], progress: Progress): Promise<Locked> {
  let locked: Locked | undefined;
  const command = verb(progress, (each) => {
    locked = each;
  });
  await command.parseAsync(words, { from: "user" });
  if (locked === undefined) throw new Error(`nothing was locked: ${words.join(" ")}`);
  return locked;
}

/** Its exit code. */
export const main = (words: string[], progress: Progress): Promise<number> => run(verb(progress), words);
