import { setTimeout as delay } from "node:timers/promises";
import type { KubeConfig } from "@kubernetes/client-node";
import {
  retryAnnotation,
  specHash,
  specKey,
  statusAnnotation,
  systemNamespace,
} from "../node-installer/kubernetes/names.ts";
import { Refusal } from "../node-installer/runtime/refusal.ts";
import { isNotFound, loadKubeConfig, within } from "./fleet/client.ts";
import { nameList, parseOptions, required, runCommand, wholeNumber } from "./fleet/command-line.ts";
import { removeDeadPods } from "./fleet/dead-pods.ts";
import { exitCodes, followFleet } from "./fleet/follow.ts";
import { freeTickets } from "./fleet/free-tickets.ts";
import { type Fleet, type FleetNode, observeFleet } from "./fleet/observe.ts";
import { mergePatch, patchNodeAnnotations } from "./fleet/patch.ts";
import { askForRetries } from "./fleet/retry.ts";
import { type HandlerUser, handlerUsers } from "./fleet/users.ts";

const usage = `Usage: contrast-runtime uninstall --group GROUP [options]

Empties the group's spec and waits until every node has uninstalled its runtimes. Fails before it changes anything
while pods use one of them, and while nodes are NotReady that are not named as dead.

  --namespace NAME        of the installers (${systemNamespace})
  --skip-nodes A,B        dead nodes that are not waited for, beside those that the DaemonSet's annotation names
  --stall-timeout SECONDS give up when nothing changed for so long (600)

The cluster: KUBECONFIG_CONTENT (a kubeconfig itself), else kubectl's own rules.
Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 3 stalled, 4 no cluster.`;

/** The delete verb of a stack's `uninstall`; returns the exit code. */
export function main(args: string[]): Promise<number> {
  return runCommand(args, usage, async () => {
    const values = parseOptions(args, {
      namespace: { type: "string", default: systemNamespace },
      group: { type: "string" },
      "skip-nodes": { type: "string" },
      "stall-timeout": { type: "string", default: "600" },
    });
    const { namespace } = values;
    const group = required(values, "group");
    const stallMs = 1000 * wholeNumber(values["stall-timeout"], "stall-timeout");

    const kubeconfig = await loadKubeConfig(process.env);
    const observe = () => within(30_000, "the cluster", observeFleet(kubeconfig, namespace, group));
    const fleet = await observe().catch((error: unknown) => {
      if (error instanceof Refusal && error.code === "no-installer") return undefined;
      throw error;
    });
    if (fleet === undefined) {
      console.log(`Group ${group} has no installers: nothing to uninstall.`);
      return exitCodes.done;
    }
    const skipNodes = new Set([...nameList(values["skip-nodes"]), ...fleet.skipNodes]);
    const nodes = fleet.nodes.map(({ name }) => name).filter((name) => !skipNodes.has(name));
    const users = await handlerUsers(kubeconfig, new Set(nodes));
    const refusals = objections(fleet, skipNodes, users);
    if (refusals.length > 0) {
      console.error(`Group ${group} is not uninstalled; nothing was changed.`);
      for (const refusal of refusals) console.error(refusal);
      return exitCodes.failed;
    }
    const emptied = `${JSON.stringify({ ...JSON.parse(fleet.specJson), runtimes: [] })}\n`;
    const retries = await askForRetries(kubeconfig, fleet, specHash(emptied));
    await emptySpec(kubeconfig, namespace, fleet, emptied);
    const {
      exitCode,
      failures,
      nodes: ended,
    } = await followFleet({
      observe: async () => {
        const now = await observe();
        await freeTickets(kubeconfig, namespace, now, skipNodes);
        return now;
      },
      wanted: {
        specHash: specHash(emptied),
        minimumNodes: 0,
        skipNodes,
        notReadyBefore: new Set(fleet.nodes.filter(neverInstalled).map(({ name }) => name)),
        retries,
      },
      stallMs,
      print: console.log,
      clock: () => performance.now(),
      delay,
    });
    for (const failure of failures) console.error(failure);
    if (exitCode === exitCodes.done) {
      const last = await observe();
      await removeTraces(kubeconfig, namespace, last);
      await removeDeadPods(kubeconfig, namespace, last, observe);
      const uninstalled = ended.filter(({ state }) => state === "ready").length;
      console.log(`Group ${group}: ${uninstalled} of ${ended.length} nodes uninstalled.`);
    }
    return exitCode;
  });
}

/** A node that was NotReady ever since it joined the group. */
const neverInstalled = ({ ready, pod, status }: FleetNode): boolean =>
  !ready && pod === undefined && status === undefined;

/** Pure: why not to begin. */
export function objections(fleet: Fleet, skipNodes: ReadonlySet<string>, users: HandlerUser[]): string[] {
  const waitedFor = fleet.nodes.filter(({ name }) => !skipNodes.has(name));
  const skip = "bring it back, or name it as a node to skip";
  return [
    ...users.map(({ pod, node, handler }) => `Pod ${pod} on ${node} still uses ${handler}: delete it first.`),
    ...waitedFor
      .filter((node) => !node.ready && !neverInstalled(node))
      .map(({ name }) => `Node ${name} is NotReady, so nothing can be uninstalled there: ${skip}.`),
    ...waitedFor
      .filter(
        ({ ready, pod, status }) => ready && pod === undefined && status !== undefined && status.handlers.length > 0,
      )
      .map(
        ({ name, status }) =>
          `Node ${name} left the group and still has ${status?.handlers.join(", ")}, but no installer any more: ${skip}.`,
      ),
  ];
}

/**
 * In place: the DaemonSet's pods read the file anew, while a new ConfigMap would restart them all. kubelet looks at a
 * mounted ConfigMap when it syncs the pod, up to a minute later; a changed annotation makes it do that now.
 */
async function emptySpec(kubeconfig: KubeConfig, namespace: string, fleet: Fleet, spec: string): Promise<void> {
  await mergePatch(kubeconfig, {
    apiVersion: "v1",
    kind: "ConfigMap",
    metadata: { namespace, name: fleet.configMap },
    data: { [specKey]: spec },
  });
  const annotations = { "runtime.contrast.edgeless.systems/spec-changed": specHash(spec) };
  await Promise.all(
    fleet.nodes.flatMap(({ pod }) =>
      pod === undefined
        ? []
        : [
            mergePatch(kubeconfig, {
              apiVersion: "v1",
              kind: "Pod",
              metadata: { namespace, name: pod.name, annotations },
            }),
          ],
    ),
  );
}

/** What installers wrote into the cluster and no stack knows: annotations on nodes, tickets. */
async function removeTraces(
  kubeconfig: KubeConfig,
  namespace: string,
  { group, nodes, tickets }: Fleet,
): Promise<void> {
  const annotations = { [statusAnnotation(group)]: null, [retryAnnotation(group)]: null };
  for (const { name } of nodes) await patchNodeAnnotations(kubeconfig, name, annotations);
  const { CoordinationV1Api } = await import("@kubernetes/client-node");
  const leases = kubeconfig.makeApiClient(CoordinationV1Api);
  for (const { name } of tickets) {
    await leases.deleteNamespacedLease({ namespace, name }).catch((error: unknown) => {
      if (!isNotFound(error)) throw error;
    });
  }
}

if (import.meta.main) process.exitCode = await main(process.argv.slice(2));
