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

/** The bin is called by name, so that the command is the same on every machine. */
export const stackCommand = (verb: StackVerb, ...words: string[]): string =>
  [bin, ...verb.split(" "), ...words].map(quote).join(" ");

/** The verb of a text that `stackCommand` may have made, and that a shell makes nothing else of. */
export function stackVerb(text: string): StackVerb | undefined {
  const words = wordsOf(text);
  return stackVerbs.find((verb) => [bin, ...verb.split(" ")].every((word, index) => words?.[index] === word));
}
