import { Option } from "@commander-js/extra-typings";
import { defaults } from "../../../components/config/defaults.ts";
import { systemNamespace } from "../../../runtime/names.ts";
import { exitWith, Verb } from "../command.ts";
import { clusterHelp } from "../help.ts";
import { names, someNames, wholeNumber } from "../values.ts";

export const verb = () =>
  new Verb("uninstall")
    .description(
      `Empties the group's spec and waits until every node has uninstalled its runtimes. Fails without changing anything if
pods use one of the runtimes, or if nodes are NotReady that are not named as dead.`,
    )
    .requiredOption("--group <name>", "the node group")
    .option("--namespace <name>", "the installers' namespace", systemNamespace)
    .addOption(
      new Option("--nodes <a,b>", "uninstall from these nodes, which left the group, instead")
        .default<string[]>([])
        .argParser(someNames)
        .conflicts(["leave", "skipNodes"]),
    )
    .option(
      "--skip-nodes <a,b>",
      "dead nodes not to wait for, in addition to those in the DaemonSet's annotation",
      names,
      [],
    )
    .option("--leave", "leave the nodes as they are; only remove the pods of dead nodes, which nothing else removes")
    .option(
      "--stall-timeout <seconds>",
      "give up when nothing has changed for this long",
      wholeNumber,
      defaults.stallTimeout,
    )
    .option("--json", "the outcome as one line of JSON: {group, done, failures, nodes}")
    .addHelpText("after", clusterHelp("refused or failed"))
    .action(async (options) => exitWith(await (await import("../../fleet/uninstall.ts")).uninstall(options)));
