// npm stop: pulumi destroy of npm start's stacks; also removes what an interrupted update left of their clusters.

import { devStacks, engineEnvironment, stackExists } from "../engine/environment.ts";
import { runPulumi, selectStack } from "../engine/run.ts";
import { destroyCluster } from "../local-cluster/cluster.ts";
import { requireRoot } from "../local-cluster/requirements.ts";
import { toStderr } from "../process/progress.ts";
import { runScript } from "./script.ts";

async function stop(): Promise<number> {
  requireRoot();
  for (const stack of Object.values(devStacks)) {
    const code = await stopOne(stack);
    if (code !== 0) return code;
  }
  return 0;
}

async function stopOne(stack: string): Promise<number> {
  // If the engine never made the stack, do not build an engine only to destroy nothing.
  const destroyed = (await stackExists(stack)) ? await destroyStack(stack) : 0;
  if (destroyed === 0) await destroyCluster(stack, toStderr);
  return destroyed;
}

/** Runs outside the cluster's network, because this removes it: everything in the cluster is removed with the cluster. */
async function destroyStack(stack: string): Promise<number> {
  const environment = await engineEnvironment({ stack }, toStderr);
  const selected = await selectStack(environment, stack);
  if (selected !== 0) return selected;
  return await runPulumi(environment, ["destroy", "--yes", "--skip-preview", "--stack", stack]);
}

await runScript("npm stop", "Destroys what npm start made, and what an interrupted update left of its clusters.", stop);
