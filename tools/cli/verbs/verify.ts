import { systemNamespace } from "../../../runtime/names.ts";
import { exitWith, Verb } from "../command.ts";
import { clusterHelp } from "../help.ts";

export const verb = () =>
  new Verb("verify")
    .description(
      `Compares what each node says that it serves, its labels and the RuntimeClasses with the group's install spec. Changes
nothing.`,
    )
    .option("--group <name>", "this node group only")
    .option("--namespace <name>", "the installers' namespace", systemNamespace)
    .option(
      "--report <directory>",
      "write report.json, junit.xml and statements.jsonl (in-toto: what each node serves, with digests) into it",
    )
    .addHelpText("after", clusterHelp("some node is not as specified"))
    .action(async (options) => exitWith(await (await import("../../fleet/verify.ts")).verify(options)));
