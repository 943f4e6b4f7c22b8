// npm stop: pulumi destroy of the dev stack. What an interrupted update left of its cluster goes, too.

import { Refusal } from "../node-installer/runtime/refusal.ts";
import { engineEnvironment } from "./engine/environment.ts";
import { runPulumi, selectStack } from "./engine/run.ts";
import { destroyCluster } from "./local-cluster/cluster.ts";
import { toStderr } from "./programs/progress.ts";

const stack = "dev";

async function stop(): Promise<number> {
  // Outside the cluster's network, which this removes: everything in the cluster goes with the cluster.
  const environment = await engineEnvironment(stack, toStderr);
  const selected = await selectStack(environment, stack);
  if (selected !== 0) return selected;
  const destroyed = await runPulumi(environment, ["destroy", "--yes", "--skip-preview", "--stack", stack]);
  if (destroyed !== 0) return destroyed;
  await destroyCluster(stack, toStderr);
  return 0;
}

try {
  process.exitCode = await stop();
} catch (error) {
  if (!(error instanceof Refusal)) throw error;
  console.error(error.message);
  process.exitCode = 1;
}
