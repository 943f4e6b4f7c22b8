// pulumi.ts ARGS...: the project's engine in the environment of the dev stack, or of the stack that --stack names.
import { parseArgs } from "node:util";
import { engineEnvironment, stackNetwork } from "../engine/environment.ts";
import { runPulumi } from "../engine/run.ts";
import { toStderr } from "../process/progress.ts";
import { passThrough } from "./script.ts";

await passThrough(async (args) => {
  const { values } = parseArgs({ args, options: { stack: { type: "string", short: "s" } }, strict: false });
  const stack = typeof values.stack === "string" ? values.stack : "dev";
  return runPulumi(await engineEnvironment(stack, toStderr, await stackNetwork(stack)), args);
});
