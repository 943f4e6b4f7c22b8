import { setTimeout as delay } from "node:timers/promises";
import { Refusal } from "../../runtime/refusal.ts";
import type { Wanted } from "./assess.ts";
import { describeError, loadKubeConfig, within } from "./client.ts";
import { followFleet, outcomeJson } from "./follow.ts";
import { freeTickets } from "./free-tickets.ts";
import { type Fleet, observeFleet } from "./observe.ts";
import { askForRetries } from "./retry.ts";

export interface RolloutOptions {
  group: string;
  specHash: string;
  namespace: string;
  minimumNodes: number;
  skipNodes: string[];
  nodesMayLeave?: true | undefined;
  /** Seconds. */
  stallTimeout: number;
  /** The outcome as JSON; what happens meanwhile is told on standard error. */
  json?: true | undefined;
}

/** The `rollout` command of a stack. Prints one line per node whenever its state changes; returns the exit code. */
export async function rollout(options: RolloutOptions): Promise<number> {
  const { group, specHash, namespace, minimumNodes, nodesMayLeave = false, stallTimeout } = options;
  const kubeconfig = await loadKubeConfig(process.env);
  const skipNodes = new Set(options.skipNodes);
  const observe = async () => {
    const fleet = await within(30_000, "the cluster", observeFleet(kubeconfig, namespace, group));
    await freeTickets(kubeconfig, namespace, fleet, skipNodes);
    return fleet;
  };
  const before = await firstObservation(observe);
  const wanted: Wanted = {
    specHash,
    minimumNodes,
    skipNodes,
    nodesMayLeave,
    notReadyBefore: new Set(before.nodes.filter(({ ready }) => !ready).map(({ name }) => name)),
    retries: await askForRetries(kubeconfig, before, specHash),
  };
  const { exitCode, failures, nodes } = await followFleet({
    observe,
    wanted,
    stallMs: 1000 * stallTimeout,
    print: options.json ? console.error : console.log,
    clock: () => performance.now(),
    delay,
  });
  for (const failure of failures) console.error(failure);
  if (options.json) {
    console.log(outcomeJson(group, { exitCode, failures, nodes }));
    return exitCode;
  }
  const ready = nodes.filter(({ state }) => state === "ready").length;
  const others = nodes.length - ready;
  console.log(`Group ${group}: ${ready} of ${nodes.length} nodes ready${others > 0 ? `, ${others} not` : ""}.`);
  return exitCode;
}

/** The first answer decides which nodes were NotReady before. Right after an update the API server may be briefly busy. */
async function firstObservation(observe: () => Promise<Fleet>): Promise<Fleet> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await observe();
    } catch (error) {
      if (error instanceof Refusal) throw error;
      if (attempt === 10) throw new Refusal("unreachable", `The API server cannot be queried: ${describeError(error)}`);
      await delay(2_000);
    }
  }
}
