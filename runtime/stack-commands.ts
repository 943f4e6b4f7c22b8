import { quote, wordsOf } from "./shell.ts";

/** What a stack has the package's bin do: components make the texts, a review tells them from others'. */
export const stackVerbs = [
  "rollout",
  "uninstall",
  "local-cluster ensure",
  "local-cluster destroy",
  "image push",
] as const;
export type StackVerb = (typeof stackVerbs)[number];

const bin = "contrast-runtime";

/** The bin as a module of its package. */
export const binModule = `${bin}/cli`;

/**
 * Node finds the package from the program's directory, as the program itself does: nothing needs to be on PATH, and the text
 * is the same on every machine. `exec`, because the engine ends a command by killing its shell and nothing that it started.
 */
const start = ["exec", "node", "-e", `import("${binModule}")`];

export const stackCommand = (verb: StackVerb, ...words: string[]): string =>
  [...start, bin, ...verb.split(" "), ...words].map(quote).join(" ");

/** The verb of a text that `stackCommand` may have made, and that a shell makes nothing else of. */
export function stackVerb(text: string): StackVerb | undefined {
  const words = wordsOf(text);
  const startsWith = (...first: string[]) => first.every((word, index) => words?.[index] === word);
  // Stacks of releases before call the bin by its name alone.
  return stackVerbs.find(
    (verb) => startsWith(...start, bin, ...verb.split(" ")) || startsWith(bin, ...verb.split(" ")),
  );
}
