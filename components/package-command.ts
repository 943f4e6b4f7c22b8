import { createRequire } from "node:module";
import { join } from "node:path";
import * as pulumi from "@pulumi/pulumi";
import { binModule, type StackVerb, stackCommand } from "../runtime/stack-commands.ts";

/**
 * The text of a local command that runs this package's bin. The engine runs it in the program's directory, so whether Node
 * finds the package there is known in a preview already.
 *
 * @throws pulumi.RunError if it does not
 */
export function packageCommand(verb: StackVerb, ...words: string[]): string {
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
