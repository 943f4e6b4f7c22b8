/** What can stand at the end of a command line, from the commands' own definitions. */
import type { CommandUnknownOpts, Option } from "@commander-js/extra-typings";

export interface Candidate {
  word: string;
  description: string;
}

/** Pure. The last word is the one that is being typed, maybe empty. Nothing means: a file's name, or a word of the user's. */
export function candidates(program: CommandUnknownOpts, words: readonly string[]): Candidate[] {
  const before = withoutEquals(words);
  const word = before.pop() ?? "";
  let command = program;
  let option: Option | undefined;
  for (const each of before) {
    // Behind "--" come another command's words.
    if (each === "--") return [];
    if (option !== undefined) option = undefined;
    else {
      command = command.commands.find((one) => one.name() === each) ?? command;
      option = command.options.find(({ long, required }) => required && long === each);
    }
  }
  const [, name, value] = /^(--[^=]+)=(.*)$/s.exec(word) ?? [];
  if (name !== undefined) {
    const choices = command.options.find(({ long }) => long === name)?.argChoices ?? [];
    return choices.filter((choice) => choice.startsWith(value ?? "")).map((choice) => plain(`${name}=${choice}`));
  }
  const all = option === undefined ? wordsOf(command, word) : (option.argChoices ?? []).map(plain);
  return all.filter((candidate) => candidate.word.startsWith(word));
}

/** Options only where nothing else can stand, unless one is begun. */
function wordsOf(command: CommandUnknownOpts, word: string): Candidate[] {
  const [argument] = command.registeredArguments;
  if (word.startsWith("-") || (command.commands.length === 0 && argument === undefined)) return optionsOf(command);
  return command.commands.length > 0 ? verbsOf(command) : (argument?.argChoices ?? []).map(plain);
}

const plain = (word: string): Candidate => ({ word, description: "" });

const verbsOf = (command: CommandUnknownOpts): Candidate[] =>
  command
    .createHelp()
    .visibleCommands(command)
    .map((each) => ({ word: each.name(), description: firstLine(each.summary() || each.description()) }));

const optionsOf = (command: CommandUnknownOpts): Candidate[] =>
  command
    .createHelp()
    .visibleOptions(command)
    .flatMap(({ long, description }) => (long ? [{ word: long, description: firstLine(description) }] : []));

const firstLine = (text: string): string => text.split("\n")[0] ?? "";

/** bash takes "--platform=x" for three words; "=" alone is one to be completed after. */
function withoutEquals(words: readonly string[]): string[] {
  const typed = words.at(-1) === "=" ? [...words.slice(0, -1), ""] : words;
  return typed.filter((word) => word !== "=");
}

/**
 * What a shell reads at its start. Each asks the very program that is typed, so its answers are those of that version;
 * where it has none, file names are completed.
 */
export const scripts = {
  bash: `_contrast_runtime() {
  local IFS=$'\\n'
  COMPREPLY=($("$1" complete bash -- "\${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
}
complete -o default -F _contrast_runtime contrast-runtime`,
  zsh: `#compdef contrast-runtime
_contrast_runtime() {
  local -a found
  found=("\${(@f)$("\${words[1]}" complete zsh -- "\${(@)words[2,CURRENT]}" 2>/dev/null)}")
  if [[ -n "\${found[1]}" ]]; then _describe -t words word found; else _files; fi
}
compdef _contrast_runtime contrast-runtime`,
  fish: `function __contrast_runtime
  set -l typed (commandline -opc) (commandline -ct)
  set -l found ($typed[1] complete fish -- $typed[2..] 2>/dev/null)
  if count $found >/dev/null; printf '%s\\n' $found; else; __fish_complete_path (commandline -ct); end
end
complete -c contrast-runtime -f -a '(__contrast_runtime)'`,
};
export type Shell = keyof typeof scripts;

/** A candidate as the shell wants to read it. */
export const line: Record<Shell, (candidate: Candidate) => string> = {
  bash: ({ word }) => word,
  zsh: ({ word, description }) => `${word.replaceAll(":", "\\:")}:${description}`,
  fish: ({ word, description }) => `${word}\t${description}`,
};
