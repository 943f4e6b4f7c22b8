import type { KubeConfig } from "@kubernetes/client-node";
import { systemNamespace } from "../node-installer/kubernetes/names.ts";
import { Refusal } from "../node-installer/runtime/refusal.ts";
import { describeError, loadKubeConfig, within } from "./fleet/client.ts";
import { parseOptions, runCommand } from "./fleet/command-line.ts";
import { exitCodes } from "./fleet/follow.ts";
import { type Fleet, type FleetNode, observeFleet } from "./fleet/observe.ts";

const usage = `Usage: contrast-runtime status [--namespace NAME] [--group GROUP]

Shows each node's state, handlers, containerd, ticket and reason.

The cluster: KUBECONFIG_CONTENT (a kubeconfig itself), else kubectl's own rules.
Exit codes: 0 every node is ready, 1 some are not, 2 wrong usage, 4 no cluster or no installer.`;

/** The table of every node of every group; returns the exit code. */
export function main(args: string[]): Promise<number> {
  return runCommand(args, usage, async () => {
    const values = parseOptions(args, {
      namespace: { type: "string", default: systemNamespace },
      group: { type: "string" },
    });
    const kubeconfig = await loadKubeConfig(process.env);
    const { namespace } = values;
    const look = async () => {
      const groups = values.group === undefined ? await installedGroups(kubeconfig, namespace) : [values.group];
      return Promise.all(groups.map((group) => observeFleet(kubeconfig, namespace, group)));
    };
    const fleets = await within(30_000, "the cluster", look()).catch((error: unknown) => {
      if (error instanceof Refusal) throw error;
      throw new Refusal("unreachable", `The API server cannot be asked: ${describeError(error)}`);
    });
    if (fleets.length === 0) {
      console.log(`No installers in namespace ${namespace}.`);
      return exitCodes.unreachable;
    }
    console.log(statusTable(fleets));
    const ready = fleets.every(({ nodes, specHash }) =>
      nodes.every(({ status }) => status?.state === "ready" && status.specHash === specHash),
    );
    return ready ? exitCodes.done : exitCodes.failed;
  });
}

const prefix = "contrast-installer-";

async function installedGroups(kubeconfig: KubeConfig, namespace: string): Promise<string[]> {
  const { AppsV1Api } = await import("@kubernetes/client-node");
  const { items } = await kubeconfig.makeApiClient(AppsV1Api).listNamespacedDaemonSet({ namespace });
  const names = items.map(({ metadata }) => metadata?.name ?? "");
  return names
    .filter((name) => name.startsWith(prefix))
    .map((name) => name.slice(prefix.length))
    .toSorted();
}

/** Pure: the table, one row per node. */
export function statusTable(fleets: Fleet[]): string {
  const header = ["NODE", "GROUP", "STATE", "CONTAINERD", "TICKET", "HANDLERS", "REASON"];
  const rows = fleets.flatMap((fleet) =>
    fleet.nodes.map((node) => [
      node.name,
      fleet.group,
      stateOf(node, fleet),
      node.containerRuntime.replace(/^containerd:\/\//, ""),
      fleet.tickets.some(({ holder }) => holder === node.name) ? "held" : "-",
      node.status?.handlers.join(",") || "-",
      reasonOf(node, fleet),
    ]),
  );
  const widths = header.map((_, column) => Math.max(...[header, ...rows].map((row) => row[column]?.length ?? 0)));
  return [header, ...rows]
    .map((row) =>
      row
        .map((cell, column) => cell.padEnd(widths[column] ?? 0))
        .join("  ")
        .trimEnd(),
    )
    .join("\n");
}

function stateOf({ ready, pod, status }: FleetNode, { specHash }: Fleet): string {
  if (!ready) return "not-ready";
  if (pod === undefined) return "left-group";
  if (status === undefined) return "starting";
  return status.specHash === specHash ? status.state : "outdated";
}

function reasonOf({ ready, pod, status }: FleetNode, { specHash }: Fleet): string {
  if (!ready) return "The node is NotReady; what it said last may be old.";
  if (pod === undefined) return "The group's DaemonSet does not select this node any more.";
  if (status === undefined) return pod.problem || "The installer has not reported yet.";
  const pods = status.pods.length > 0 ? ` Pods: ${status.pods.join(", ")}.` : "";
  const old = status.specHash === specHash ? "" : "About an earlier spec: ";
  return `${old}${status.reason}${pods}`.replaceAll(/\s+/g, " ");
}

if (import.meta.main) process.exitCode = await main(process.argv.slice(2));
