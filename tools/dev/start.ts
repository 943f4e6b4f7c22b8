// npm start: from a clone to a running pod of the runtime. A step that was done before is quick.

import { Option } from "@commander-js/extra-typings";
import { Refusal } from "../../runtime/refusal.ts";
import { exitWith, run, Verb } from "../cli/command.ts";
import { resolveEngine } from "../engine/engine.ts";
import { devStacks, engineEnvironment } from "../engine/environment.ts";
import { runPulumi, selectStack } from "../engine/run.ts";
import { buildInstallerImage } from "../image/installer-image.ts";
import { ensureCluster, requireOwnCluster } from "../local-cluster/cluster.ts";
import { enterNetwork } from "../local-cluster/layout.ts";
import { requireMachine } from "../local-cluster/requirements.ts";
import { ensureLocalPayload } from "../local-payload/local-payload.ts";
import { type Progress, seconds, toStderr } from "../process/progress.ts";
import { endPrograms } from "../process/run.ts";
import { picture } from "./start/picture.ts";
import { runProofPods } from "./start/proof.ts";
import { ensureVmPayload, requireVirtualMachines, type VmPayloadSource } from "./start/virtual-machines.ts";

interface Start extends VmPayloadSource {
  platform: keyof typeof devStacks;
}

async function start({ platform, ...source }: Start, progress: Progress): Promise<number> {
  const begin = Date.now();
  const stack = devStacks[platform];
  const [unused] = platform === "local" ? Object.keys(source) : [];
  if (unused !== undefined) throw new Refusal("usage", `--${unused} is for --platform metal-qemu-insecure.`);
  // Checked first, so that nobody waits minutes for builds that are of no use.
  await requireMachine(progress);
  if (platform !== "local") await requireVirtualMachines();
  await requireOwnCluster(stack);
  // It alone may not be there to be had, and the rest takes minutes.
  if (platform !== "local") await ensureVmPayload(source, progress);
  // The image mostly downloads, the engine and the cluster mostly compile: in parallel they use both network and cores.
  const [cluster] = await Promise.all([
    ensureCluster({ name: stack }, progress),
    resolveEngine(progress),
    makeImage(platform, progress),
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

async function makeImage(platform: Start["platform"], progress: Progress): Promise<void> {
  if (platform === "local") await ensureLocalPayload({}, progress);
  await buildInstallerImage({}, progress);
}

const script = new Verb("npm start")
  .description("From a clone to a running pod of the runtime.")
  .addOption(
    new Option("--platform <name>", "local needs no KVM; pods of metal-qemu-insecure run in VMs")
      .choices(["local", "metal-qemu-insecure"] as const)
      .default("local" as const),
  )
  .option("--payload <directory>", "the Kata of the VMs, as npm run lock left it (default: the newest release)")
  .addOption(
    new Option("--mirror <url>", "instead of GitHub: the directory that holds the Kata release's assets").conflicts(
      "payload",
    ),
  )
  // If one of several parallel steps fails, the others must not run on for minutes.
  .action(async (options) => exitWith(await start(options, toStderr).finally(endPrograms)));

process.exitCode = await run(script, process.argv.slice(2));
