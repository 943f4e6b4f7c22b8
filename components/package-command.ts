import { createRequire } from "node:module";
import { join } from "node:path";
import * as pulumi from "@pulumi/pulumi";
import {
  binModule,
  pluginInterpreter,
  type StackVerb,
  stackCommand,
  stackInterpreter,
} from "../runtime/stack-commands.ts";

let asPlugin = false;

/** From now on components are constructed for programs in other languages, beside which no node_modules has the package. */
export function runAsPlugin(): void {
  asPlugin = true;
}

/** What runs the commands' texts. */
export const commandInterpreter = (): string[] => (asPlugin ? pluginInterpreter : stackInterpreter);

/**
 * The text of a local command that runs this package's bin, with `commandInterpreter` as its interpreter. The engine runs it
 * in the program's directory, so whether Node finds the package there is known in a preview already.
 *
 * @throws pulumi.RunError if it does not
 */
export function packageCommand(verb: StackVerb, ...words: string[]): string {
  if (asPlugin) return stackCommand(verb, ...words);
  const directory = process.cwd();
  try {
    createRequire(join(directory, "program.js")).resolve(binModule);
  } catch (error) {
    throw new pulumi.RunError(
      `The stack's commands (${verb} is one) would not run: Node finds no package contrast-runtime from ${directory}, where ` +
        `the engine starts them (${(error as Error).message.split("\n")[0]}). Install contrast-runtime into the node_modules of ` +
        "that directory, or of one above it.",
    );
  }
  return stackCommand(verb, ...words);
}
