import { setTimeout as delay } from "node:timers/promises";
import { Refusal } from "../../runtime/refusal.ts";
import { exitCodes } from "../process/exit-codes.ts";
import { describeError } from "./api.ts";
import type { Wanted } from "./assess.ts";
import { connect } from "./client.ts";
import { firstOf } from "./console.ts";
import { followFleet, outcomeJson } from "./follow.ts";
import { freeTickets } from "./free-tickets.ts";
import { type Fleet, observeFleet } from "./observe.ts";
import { askForRetries } from "./retry.ts";
import { removeFormer } from "./traces.ts";
import { restoreSpec } from "./write-spec.ts";

export interface RolloutOptions {
  group: string;
  /** Its former name, of which nothing is left in the end. */
  formerly?: string | undefined;
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

/** The `rollout` command of a stack. Says what changes meanwhile; returns the exit code. */
export async function rollout(options: RolloutOptions): Promise<number> {
  const { group, formerly, specHash, namespace, minimumNodes, nodesMayLeave = false, stallTimeout } = options;
  const api = await connect(process.env);
  const skipNodes = new Set(options.skipNodes);
  const observe = async () => {
    const fleet = await observeFleet(api, namespace, group);
    await freeTickets(api, namespace, fleet, skipNodes);
    return fleet;
  };
  const before = await firstObservation(observe);
  if (await restoreSpec(api, before, specHash)) {
    console.error(`Group ${group}: the spec that an unfinished uninstallation emptied is restored.`);
  } else refuseOtherContent(before, specHash);
  const wanted: Wanted = {
    specHash,
    minimumNodes,
    skipNodes,
    nodesMayLeave,
    notReadyBefore: new Set(before.nodes.filter(({ ready }) => !ready).map(({ name }) => name)),
    retries: await askForRetries(api, before, specHash),
  };
  const { exitCode, failures, nodes } = await followFleet({
    observe,
    wanted,
    stallMs: 1000 * stallTimeout,
    print: options.json ? console.error : console.log,
    clock: () => performance.now(),
    delay,
  });
  if (exitCode === exitCodes.done && formerly !== undefined) await removeFormer(api, namespace, formerly);
  for (const failure of firstOf(failures, group)) console.error(failure);
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

/** A ConfigMap is named after its content: if it has another one, no waiting gives it the right one. */
export function refuseOtherContent({ namespace, configMap, group, specHash }: Fleet, wanted: string): void {
  if (specHash === wanted || !configMap.endsWith(`-${wanted.slice(0, 8)}`)) return;
  throw new Refusal(
    "spec-changed",
    `ConfigMap ${namespace}/${configMap} of group ${group} has other content than the stack gave it: an unfinished ` +
      "uninstallation emptied it, or somebody else changed it. An update with --refresh restores it.",
  );
}
