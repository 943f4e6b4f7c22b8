import { readFileSync } from "node:fs";
import { join } from "node:path";
import { systemNamespace } from "../../../runtime/names.ts";
import { packageRoot } from "../../files/project.ts";
import { exitWith, Verb } from "../command.ts";
import { clusterHelp } from "../help.ts";

export const verb = () =>
  new Verb("support")
    .description(
      `Writes one archive for a bug report: nodes, installers, specs, tickets, Events and logs, of each only what is on a list
(docs/support.md). What a broken cluster does not answer is left out, and named.`,
    )
    .option("--namespace <name>", "the installers' namespace", systemNamespace)
    .option("--output <file>", "the archive", "contrast-runtime-support.tar.gz")
    .addHelpText("after", clusterHelp("refused"))
    .action(async ({ namespace, output }) => {
      const { version } = JSON.parse(readFileSync(join(packageRoot, "package.json"), "utf8"));
      exitWith(await (await import("../../fleet/support.ts")).support({ namespace, output, version }));
    });
