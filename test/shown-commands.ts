import { readFileSync } from "node:fs";
import { join } from "node:path";
import { packageRoot } from "../tools/files/project.ts";
import { fences } from "./markdown.ts";

/** Each command of a script, without comments, variables before it and redirections behind it. */
export function commandsOf(script: string): string[] {
  return script
    .replaceAll("\\\n", " ")
    .split("\n")
    .map((line) => line.replace(/(^|\s+)#.*$/, "").trim())
    .filter(Boolean)
    .flatMap((line) => {
      const [, inner, then] = /^\w+=\$\((.*)\) && (.*)$/.exec(line) ?? [];
      return inner === undefined || then === undefined ? [line] : [inner, then];
    })
    .map((line) => line.replace(/ [<>] ?\S+$/, "").replace(/^([A-Z_]+=\S+ )+/, ""));
}

export const wordsOf = (command: string): string[] =>
  [...command.matchAll(/"((?:[^"\\]|\\.)*)"|'([^']*)'|([^\s"']+)/g)].map(
    ([, double, single, bare]) => double ?? single ?? bare ?? "",
  );

/**
 * The words behind the program's name of the one command that a document shows with this beginning, for the test that runs
 * them: documented-commands.test.ts counts a command by the calls of this function. So give it plain strings.
 *
 * @param given what stands for the placeholders in it, such as <URN of the provider>
 */
export function shownWords(document: string, beginning: string, given: Record<string, string> = {}): string[] {
  const shown = fences(readFileSync(join(packageRoot, document), "utf8"))
    .filter(({ language }) => language === "sh")
    .flatMap(({ text }) => commandsOf(text))
    .filter((command) => command.startsWith(beginning));
  const [command, another] = shown;
  if (command === undefined || another !== undefined)
    throw new Error(`${document} shows ${shown.length} commands that begin with ${beginning}, and one is asked for`);
  let filled = command;
  for (const [placeholder, value] of Object.entries(given)) {
    if (!filled.includes(placeholder)) throw new Error(`${document}: there is no ${placeholder} in ${command}`);
    filled = filled.replaceAll(placeholder, value);
  }
  return wordsOf(filled).slice(1);
}
