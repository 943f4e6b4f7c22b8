/** What all commands of this repository share, beyond what commander does by itself. */
import { Command, CommanderError, type CommandUnknownOpts, Help, type Option } from "@commander-js/extra-typings";
import { didYouMean } from "../../runtime/nearest.ts";
import { Refusal } from "../../runtime/refusal.ts";
import { exitCodes, failWithoutOutput, report } from "../process/exit-codes.ts";

class UsageError extends Refusal {
  readonly command: CommandUnknownOpts;

  constructor(command: CommandUnknownOpts, message: string) {
    super("usage", message);
    this.command = command;
  }
}

/** A command. Its mistakes are Refusals; it exits only by `run`, so that it can be called from a test, too. */
export class Verb extends Command {
  constructor(name: string) {
    super(name);
    this.exitOverride()
      .enablePositionalOptions()
      .configureHelp({
        commandUsage: (command) => `${pathOf(command)} ${command.usage()}`,
        subcommandTerm: (command) => command.name(),
        commandDescription: (command) => oneLine(command.description()),
        subcommandDescription: (command) => oneLine(command.summary() || command.description()),
        optionDescription,
      })
      .configureOutput({
        writeOut: (text) => console.log(text.trimEnd()),
        writeErr: (text) => console.error(text.trimEnd()),
      })
      .helpOption("-h, --help", "show this help");
  }

  override error(message: string): never {
    throw new UsageError(
      this,
      message.replace(/^error: /, "").replace(/^[a-z]/, (first) => first.toUpperCase()),
    );
  }

  /** Commander would take the next option for a forgotten value, and the last of two values. */
  override parseOptions(args: string[]) {
    const seen = new Set<Option>();
    for (const [option, value, attached] of this.#given(args)) {
      const { long } = option;
      if (!attached && value?.startsWith("-") && value !== "-")
        this.error(`${long} has no value: "${value}" follows. A value that begins so is written ${long}=${value}.`);
      if (option.mandatory && value === "") this.error(`The value of ${long} is empty.`);
      if (seen.has(option) && !isList(option)) this.error(`${long} is given twice.`);
      seen.add(option);
    }
    const parsed = super.parseOptions(args);
    this.#refuseUnknown(parsed.operands, parsed.unknown);
    return parsed;
  }

  /** Commander would first say what is missing, which is often what was only misspelt. */
  #refuseUnknown([word]: string[], unknown: string[]): void {
    if (this.commands.some((command) => command.name() === word)) return;
    const [option = ""] = unknown;
    const helps = unknown.some((each) => each === "--help" || each === "-h");
    if (option.startsWith("-") && !helps) {
      const name = option.replace(/=.*/s, "");
      const owners = this.commands.filter(({ options }) => options.some(({ long }) => long === name));
      if (owners.length > 0)
        this.error(
          `${name} is an option of ${owners.map((owner) => owner.name()).join(", ")}, and stands behind that.`,
        );
      const known = this.options.map(({ long = "" }) => long);
      this.error(`Unknown option '${name}'${didYouMean(name, known)}`);
    }
    if (word === undefined || word === "help" || this.commands.length === 0) return;
    this.error(unknownCommand(this, word));
  }

  /** This command's options; of those that take a value also the value, and whether it stands in the same word. */
  *#given(args: string[]): Generator<[option: Option, value: string | undefined, attached: boolean]> {
    const words = args.values();
    for (const word of words) {
      if (word === "--" || this.commands.some((command) => command.name() === word)) return;
      const [, name, attached] = /^(--[^=]+)(?:=(.*))?$/s.exec(word) ?? [];
      const option = this.options.find(({ long }) => long === name);
      if (option === undefined) continue;
      if (!option.required || attached !== undefined) yield [option, attached, true];
      else yield [option, words.next().value, false];
    }
  }
}

function optionDescription(option: Option): string {
  const text = oneLine(isList(option) ? option.description : new Help().optionDescription(option));
  return text + (isList(option) ? " (repeatable)" : "") + (option.mandatory ? " (required)" : "");
}

/** The terminal's width decides where lines end, but for what is indented. */
const oneLine = (text: string): string => text.replaceAll(/\n(?=\S)/g, " ");

/** Options that may be repeated begin with an empty list. */
const isList = ({ defaultValue }: Option): boolean => Array.isArray(defaultValue);

/** Ends a command with this exit code. */
export function exitWith(code: number): void {
  if (code !== exitCodes.done) throw new CommanderError(code, "contrast-runtime.exit", "");
}

/** Runs a command with these words; returns the exit code. */
export async function run(command: CommandUnknownOpts, words: readonly string[]): Promise<number> {
  failWithoutOutput();
  let acting = command;
  command.hook("preAction", (_, action) => {
    acting = action;
  });
  try {
    const asked = helped(command, words);
    if (asked === undefined) await command.parseAsync(words, { from: "user" });
    else asked.outputHelp();
    return exitCodes.done;
  } catch (error) {
    if (error instanceof CommanderError) {
      // Where a subcommand is missing, commander prints the help as an error.
      const unasked = error.code === "commander.help" && error.exitCode !== exitCodes.done;
      return unasked ? exitCodes.usage : error.exitCode;
    }
    const code = report(error);
    if (code === exitCodes.usage)
      console.error(`See: ${pathOf(error instanceof UsageError ? error.command : acting)} --help`);
    return code;
  }
}

/** The command that "help lock files" or "lock help files" asks about. Commander's own looks at one word only. */
function helped(command: CommandUnknownOpts, words: readonly string[]): CommandUnknownOpts | undefined {
  let [at, asks] = [command, false];
  for (const word of words) {
    const next = at.commands.find((sub) => sub.name() === word);
    if (next !== undefined) at = next;
    else if (word === "help" && at.commands.length > 0) asks = true;
    else if (!asks) return undefined;
    // Of help nobody needs help.
    else if (word !== "--help" && word !== "-h" && word !== "help") at.error(unknownCommand(at, word));
  }
  return asks ? at : undefined;
}

const unknownCommand = ({ commands }: CommandUnknownOpts, word: string): string =>
  `Unknown command '${word}'${didYouMean(
    word,
    commands.map((command) => command.name()),
  )}`;

const typed = new WeakMap<CommandUnknownOpts, string>();

/** From now on the command is called by these words, such as those of an npm script that stands for it. */
export const callIt = (command: CommandUnknownOpts, words: string): unknown => typed.set(command, words);

/** What the user typed: "contrast-runtime review check", "npm run lock -- files". */
export const pathOf = (command: CommandUnknownOpts): string =>
  typed.get(command) ?? (command.parent === null ? command.name() : `${pathOf(command.parent)} ${command.name()}`);
