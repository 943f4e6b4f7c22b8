import { exitWith, run, Verb } from "../cli/command.ts";
import { report } from "../process/exit-codes.ts";

/** Runs an npm script that has no options, and sets the exit code. */
export async function runScript(name: string, description: string, body: () => Promise<number>): Promise<void> {
  const script = new Verb(name).description(description).action(async () => exitWith(await body()));
  process.exitCode = await run(script, process.argv.slice(2));
}

/** Runs an npm script that hands its words to another program. */
export async function passThrough(body: (words: string[]) => Promise<number>): Promise<void> {
  process.exitCode = await body(process.argv.slice(2)).catch(report);
}
