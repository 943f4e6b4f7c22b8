import { defaults } from "../../../components/config/defaults.ts";
import { systemNamespace } from "../../../runtime/names.ts";
import { exitWith, Verb } from "../command.ts";
import { clusterHelp } from "../help.ts";
import { hexDigits, names, wholeNumber } from "../values.ts";

export const verb = () =>
  new Verb("rollout")
    .description("Waits until every node of a group serves the runtimes of the spec with this hash.")
    .requiredOption("--group <name>", "the node group")
    .option("--formerly <name>", "its former name, of which nothing is left on nodes in the end")
    .requiredOption("--spec-hash <sha256>", "of the group's install spec", hexDigits(64))
    .option("--namespace <name>", "the installers' namespace", systemNamespace)
    .option("--minimum-nodes <number>", "fail if fewer nodes match", wholeNumber, defaults.minimumNodes)
    .option("--skip-nodes <a,b>", "dead nodes not to wait for", names, [])
    .option(
      "--nodes-may-leave",
      "name nodes that left the group with runtimes installed, but do not fail because of them",
    )
    .option(
      "--stall-timeout <seconds>",
      "give up when nothing has changed for this long",
      wholeNumber,
      defaults.stallTimeout,
    )
    .option("--json", "the outcome as one line of JSON: {group, done, failures, nodes}")
    .addHelpText("after", clusterHelp("nodes failed or are missing"))
    .action(async (options) => exitWith(await (await import("../../fleet/rollout.ts")).rollout(options)));
