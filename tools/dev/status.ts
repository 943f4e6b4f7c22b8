// npm run status ARGS...: `contrast-runtime status` of the clone's local cluster, whose addresses exist only in its own
// network, unless the environment names another cluster or there is no local one.
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { packageRoot } from "../files/project.ts";
import { kubeconfigFile } from "../local-cluster/certificates.ts";
import { clusterLayout, enterNetwork } from "../local-cluster/layout.ts";
import { networkExists } from "../local-cluster/network.ts";
import { requireRoot } from "../local-cluster/requirements.ts";
import { exitCodes } from "../process/exit-codes.ts";
import { passThrough } from "./script.ts";

const stack = process.env.PULUMI_STACK ?? "dev";

/** What stands before the command, and its environment's own part. */
async function place(): Promise<{ enter: string[]; env: NodeJS.ProcessEnv }> {
  const cluster = clusterLayout(stack);
  if (!(await networkExists(cluster))) return { enter: [], env: {} };
  const elsewhere = ["KUBECONFIG_CONTENT", "KUBECONFIG"].find((name) => process.env[name]);
  if (elsewhere !== undefined) {
    console.error(`${elsewhere} is set: showing the cluster that it names, not the local cluster ${stack}.`);
    return { enter: [], env: {} };
  }
  requireRoot();
  return { enter: enterNetwork(stack), env: { KUBECONFIG: kubeconfigFile(cluster, "admin") } };
}

await passThrough(async (words) => {
  const helps = words.some((word) => word === "--help" || word === "-h");
  const { enter, env } = helps ? { enter: [], env: {} } : await place();
  const [program = process.execPath, ...before] = [...enter, process.execPath];
  const all = [...before, join(packageRoot, "tools/cli/main.ts"), "status", ...words];
  return spawnSync(program, all, { stdio: "inherit", env: { ...process.env, ...env } }).status ?? exitCodes.failed;
});
