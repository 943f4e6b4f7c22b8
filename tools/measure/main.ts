/** `measure` as a program of its own: dist/measure.mjs. */
import { run } from "../cli/command.ts";
import { verb } from "../cli/verbs/measure.ts";

/** Returns the exit code. */
export const main = (words: readonly string[]): Promise<number> => run(verb(), words);

if (import.meta.main) process.exitCode = await main(process.argv.slice(2));
