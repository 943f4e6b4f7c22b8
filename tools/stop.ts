// npm stop: pulumi destroy of the dev stack. What an interrupted update left of its cluster goes, too.

import { engineEnvironment, stackExists } from "./engine/environment.ts";
import { runPulumi, selectStack } from "./engine/run.ts";
import { destroyCluster } from "./local-cluster/cluster.ts";
import { requireRoot } from "./local-cluster/requirements.ts";
import { toStderr } from "./programs/progress.ts";
import { runScript } from "./script.ts";

const stack = "dev";

async function stop(): Promise<number> {
  requireRoot();
  // An engine that would have to be built first has nothing to destroy.
  const destroyed = (await stackExists(stack)) ? await destroyStack() : 0;
  if (destroyed === 0) await destroyCluster(stack, toStderr);
  return destroyed;
}

/** Outside the cluster's network, which this removes: everything in the cluster goes with the cluster. */
async function destroyStack(): Promise<number> {
  const environment = await engineEnvironment(stack, toStderr);
  const selected = await selectStack(environment, stack);
  if (selected !== 0) return selected;
  return await runPulumi(environment, ["destroy", "--yes", "--skip-preview", "--stack", stack]);
}

await runScript(stop);
