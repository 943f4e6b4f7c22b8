import { Argument, type CommandUnknownOpts } from "@commander-js/extra-typings";
import { Verb } from "../command.ts";
import { candidates, line, scripts } from "../completion.ts";

const shell = () => new Argument("<shell>", "the shell").choices(["bash", "zsh", "fish"]);

export const verb = () =>
  new Verb("completion")
    .description(
      `Prints what makes a shell complete the words of contrast-runtime. Switch it on in the shell's startup file:

  bash (~/.bashrc)                    source <(contrast-runtime completion bash)
  zsh  (~/.zshrc, after compinit)     source <(contrast-runtime completion zsh)
  fish (~/.config/fish/config.fish)   contrast-runtime completion fish | source`,
    )
    .addArgument(shell())
    .action((name) => console.log(scripts[name]));

/** What those scripts call. `program` has the definitions of the verbs among the words. */
export const complete = (program: (words: readonly string[]) => Promise<CommandUnknownOpts>) =>
  new Verb("complete")
    .description("Prints what can stand at the end of a command line.")
    .addArgument(shell())
    .argument("[words...]", "the words so far, behind --")
    .action(async (name, words) => {
      for (const candidate of candidates(await program(words), words)) console.log(line[name](candidate));
    });
