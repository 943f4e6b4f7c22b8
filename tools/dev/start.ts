// npm start: from a clone to a running pod of the runtime. A step that was done before is quick.

import { resolveEngine } from "../engine/engine.ts";
import { engineEnvironment, devStack as stack } from "../engine/environment.ts";
import { runPulumi, selectStack } from "../engine/run.ts";
import { buildInstallerImage } from "../image/installer-image.ts";
import { ensureCluster, requireOwnCluster } from "../local-cluster/cluster.ts";
import { enterNetwork } from "../local-cluster/layout.ts";
import { requireMachine } from "../local-cluster/requirements.ts";
import { ensureLocalPayload } from "../local-payload/local-payload.ts";
import { type Progress, seconds, toStderr } from "../process/progress.ts";
import { endPrograms } from "../process/run.ts";
import { runScript } from "./script.ts";
import { picture } from "./start/picture.ts";
import { runProofPods } from "./start/proof.ts";

async function start(progress: Progress): Promise<number> {
  const begin = Date.now();
  // Checked first, so that nobody waits minutes for builds that are of no use.
  await requireMachine(progress);
  await requireOwnCluster(stack);
  // The image mostly downloads, the engine and the cluster mostly compile: in parallel they use both network and cores.
  const [cluster] = await Promise.all([
    ensureCluster({ name: stack }, progress),
    resolveEngine(progress),
    makeImage(progress),
  ]);
  const environment = await engineEnvironment({ stack, prefix: enterNetwork(stack) }, progress);
  const selected = await selectStack(environment, stack);
  if (selected !== 0) return selected;
  progress("Updating the stack …");
  const updated = await runPulumi(environment, ["up", "--yes", "--skip-preview", "--stack", stack]);
  if (updated !== 0) {
    progress("The update failed, see above. npm start continues where it stopped; npm run status shows the nodes.");
    return updated;
  }
  const proofs = await runProofPods(stack, cluster, progress);
  console.log(picture({ stack, cluster, proofs }));
  progress(`\nReady after ${seconds(begin)}.`);
  return 0;
}

async function makeImage(progress: Progress): Promise<void> {
  await ensureLocalPayload({}, progress);
  await buildInstallerImage({}, progress);
}

// If one of several parallel steps fails, the others must not run on for minutes.
await runScript("npm start", "From a clone to a running pod of the runtime.", () =>
  start(toStderr).finally(endPrograms),
);
