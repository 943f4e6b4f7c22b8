import { systemNamespace } from "../../../runtime/names.ts";
import { exitWith, Verb } from "../command.ts";
import { clusterHelp } from "../help.ts";

export const verb = () =>
  new Verb("status")
    .description("Shows each node's state, handlers, containerd, ticket and reason.")
    .option("--group <name>", "this node group only")
    .option("--namespace <name>", "the installers' namespace", systemNamespace)
    .option(
      "--json",
      "one line of JSON: {ready, nodes: [{name, group, state, containerd, holdsTicket, handlers, reason}]}",
    )
    .option("--watch", "again whenever something changes, until interrupted")
    .addHelpText("after", clusterHelp("some nodes are not ready (dead ones in ignoreNodes do not count)"))
    .action(async (options) => exitWith(await (await import("../../fleet/status.ts")).status(options)));
