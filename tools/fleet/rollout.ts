import { setTimeout as delay } from "node:timers/promises";
import { systemNamespace } from "../../runtime/names.ts";
import { Refusal } from "../../runtime/refusal.ts";
import { nameList, parseOptions, required, runCommand, UsageError, wholeNumber } from "../cli/options.ts";
import type { Wanted } from "./assess.ts";
import { describeError, loadKubeConfig, within } from "./client.ts";
import { followFleet } from "./follow.ts";
import { freeTickets } from "./free-tickets.ts";
import { type Fleet, observeFleet } from "./observe.ts";
import { askForRetries } from "./retry.ts";

const usage = `Usage: contrast-runtime rollout --group GROUP --spec-hash SHA256 [options]

Waits until every node of a group serves the runtimes of the spec with this hash.

  --namespace NAME        the installers' namespace (${systemNamespace})
  --minimum-nodes N       fail if fewer nodes match (1)
  --skip-nodes A,B        dead nodes not to wait for
  --nodes-may-leave       name nodes that left the group with runtimes installed, but do not fail because of them
  --stall-timeout SECONDS give up when nothing has changed for this long (600)

The cluster: KUBECONFIG_CONTENT (the content of a kubeconfig), otherwise kubectl's own rules.
Exit codes: 0 done, 1 nodes failed or are missing, 2 wrong usage, 3 stalled, 4 no cluster or no installer.`;

/** The `rollout` command of a stack. Prints one line per node whenever its state changes; returns the exit code. */
export function main(args: string[]): Promise<number> {
  return runCommand(args, usage, async () => {
    const values = parseOptions(args, {
      namespace: { type: "string", default: systemNamespace },
      group: { type: "string" },
      "spec-hash": { type: "string" },
      "minimum-nodes": { type: "string", default: "1" },
      "skip-nodes": { type: "string" },
      "nodes-may-leave": { type: "boolean", default: false },
      "stall-timeout": { type: "string", default: "600" },
    });
    const group = required(values, "group");
    const specHash = required(values, "spec-hash");
    if (!/^[0-9a-f]{64}$/.test(specHash)) throw new UsageError(`--spec-hash "${specHash}" must be 64 hex digits.`);
    const minimumNodes = wholeNumber(values["minimum-nodes"], "minimum-nodes");
    const stallMs = 1000 * wholeNumber(values["stall-timeout"], "stall-timeout");

    const kubeconfig = await loadKubeConfig(process.env);
    const skipNodes = new Set(nameList(values["skip-nodes"]));
    const observe = async () => {
      const fleet = await within(30_000, "the cluster", observeFleet(kubeconfig, values.namespace, group));
      await freeTickets(kubeconfig, values.namespace, fleet, skipNodes);
      return fleet;
    };
    const before = await firstObservation(observe);
    const wanted: Wanted = {
      specHash,
      minimumNodes,
      skipNodes,
      nodesMayLeave: values["nodes-may-leave"],
      notReadyBefore: new Set(before.nodes.filter(({ ready }) => !ready).map(({ name }) => name)),
      retries: await askForRetries(kubeconfig, before, specHash),
    };
    const { exitCode, failures, nodes } = await followFleet({
      observe,
      wanted,
      stallMs,
      print: console.log,
      clock: () => performance.now(),
      delay,
    });
    for (const failure of failures) console.error(failure);
    const ready = nodes.filter(({ state }) => state === "ready").length;
    const others = nodes.length - ready;
    console.log(`Group ${group}: ${ready} of ${nodes.length} nodes ready${others > 0 ? `, ${others} not` : ""}.`);
    return exitCode;
  });
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

if (import.meta.main) process.exitCode = await main(process.argv.slice(2));
