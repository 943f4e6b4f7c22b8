import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { CommandUnknownOpts, Option } from "@commander-js/extra-typings";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { pathOf, run } from "../../../../tools/cli/command.ts";
import { program } from "../../../../tools/cli/main.ts";
import { packageRoot } from "../../../../tools/files/project.ts";
import { anyValue, commands, enough, root, takingValues, wordsOf } from "./command-lines.ts";

/* What each command says when it is asked for help and when it is used wrongly: a file for each verb, to be read. */

const directory = join(packageRoot, "test/golden/cli");
const update = process.env.GOLDEN === "update";

let said = "";
beforeEach(() => {
  for (const method of ["log", "error"] as const)
    vi.spyOn(console, method).mockImplementation((text) => {
      said += `${text}\n`;
    });
});
afterEach(() => vi.restoreAllMocks());

/** A call as in a terminal: the line, what is printed, the exit code. */
async function call(words: readonly string[]): Promise<string> {
  said = "";
  const asked = await program(words);
  asked.hook("preAction", () => {
    throw new Error("this would be carried out");
  });
  const code = await run(asked, words);
  const line = words.map((word) => (/^[\w.,=/-]+$/.test(word) ? word : `'${word}'`)).join(" ");
  return `$ contrast-runtime ${line}\n${said}exit code ${code}\n`;
}

/** A value that the option does not take; undefined if it takes every text. */
const refused = ({ argChoices, parseArg }: Option): string | undefined =>
  argChoices !== undefined || parseArg !== undefined ? "?" : undefined;

/** The usual mistakes with a command, each where it can be made. */
function* mistakes(command: CommandUnknownOpts): Generator<string[]> {
  const options = takingValues(command);
  const [first] = options;
  const others = (option: Option) => enough(command).filter((word) => !word.startsWith(`${option.long}=`));
  if (command.commands.length > 0) yield ["nothing"];
  yield ["--nothing"];
  if (first !== undefined) {
    yield [`${first.long}s=x`];
    yield [`${first.long}`];
    yield [`${first.long}`, "--help-me"];
    const single = options.find(({ defaultValue }) => !Array.isArray(defaultValue));
    if (single !== undefined) {
      const word = `${single.long}=${anyValue(single)}`;
      yield [word, ...others(single), word];
    }
  }
  for (const option of options.filter(({ mandatory }) => mandatory)) yield others(option);
  for (const option of options) {
    const value = refused(option);
    // A list takes what it is given, and judges it later.
    if (value !== undefined && !isList(option)) yield [...others(option), `${option.long}=${value}`];
  }
  if (command.registeredArguments.some(({ required }) => required)) yield [];
  if (command.commands.length + command.registeredArguments.length === 0) yield [...enough(command), "more"];
}
const isList = ({ defaultValue }: Option): boolean => Array.isArray(defaultValue);

async function record(of: readonly CommandUnknownOpts[]): Promise<string> {
  const calls: string[] = [];
  for (const command of of) {
    calls.push(await call([...wordsOf(command), "--help"]));
    for (const words of mistakes(command)) calls.push(await call([...wordsOf(command), ...words]));
  }
  return calls.join("\n");
}

const verbs = [root, ...root.commands];
const own = (verb: CommandUnknownOpts) =>
  verb === root ? [root] : commands.filter((command) => `${pathOf(command)} `.startsWith(`${pathOf(verb)} `));

test.each(verbs.map((verb) => [verb.name(), verb] as const))("%s", async (name, verb) => {
  const text = await record(own(verb));
  // What would be carried out is no mistake, and is not carried out here.
  expect(text.match(/^exit code \d+$/gm)?.filter((code) => !/ [02]$/.test(code))).toEqual([]);
  const file = join(directory, `${name}.txt`);
  mkdirSync(directory, { recursive: true });
  if (update) writeFileSync(file, text);
  expect(readFileSync(file, "utf8"), "run with GOLDEN=update and review the diff").toBe(text);
});

test("there is a file for each verb, and for nothing else", () => {
  expect(readdirSync(directory).sort()).toEqual(verbs.map((verb) => `${verb.name()}.txt`).sort());
});
