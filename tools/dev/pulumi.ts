// pulumi.ts ARGS...: the project's engine in the environment of the stack that the words name, by default the dev stack's.
import { parseArgs } from "node:util";
import { devStacks, engineEnvironment, isKeptElsewhere, stackNetwork } from "../engine/environment.ts";
import { runPulumi } from "../engine/run.ts";
import { toStderr } from "../process/progress.ts";
import { passThrough } from "./script.ts";

/** The commands that talk to provider plugins. */
const withPlugins = ["preview", "pre", "up", "update", "destroy", "down", "refresh", "import", "watch"];

/** The stack that the words name; without a name the dev stack: never one that happens to be selected in the user's backend. */
function stackOf(words: string[]): string {
  const { values, positionals } = parseArgs({
    args: words,
    options: { stack: { type: "string", short: "s" } },
    strict: false,
  });
  const [group, verb = "", name] = positionals;
  const named = group === "stack" && ["init", "select", "rm"].includes(verb) ? name : undefined;
  const stack = typeof values.stack === "string" ? values.stack : (named ?? process.env.PULUMI_STACK);
  // ORGANIZATION/PROJECT/STACK, too, is the name of a stack.
  return stack?.split("/").at(-1) ?? devStacks.local;
}

await passThrough(async (words) => {
  const stack = stackOf(words);
  const plugins = words.some((word) => withPlugins.includes(word));
  const isHere = !(await isKeptElsewhere(stack));
  toStderr(`Stack ${stack}, kept ${isHere ? "in this clone" : "where your PULUMI_BACKEND_URL or pulumi login says"}.`);
  const prefix = isHere
    ? await stackNetwork(
        stack,
        words.some((word) => word === "up" || word === "update"),
        toStderr,
      )
    : [];
  return runPulumi(await engineEnvironment({ stack, prefix, plugins }, toStderr), words);
});
