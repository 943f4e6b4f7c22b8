import { spawnSync } from "node:child_process";
import { join } from "node:path";
import type { KubeConfig } from "@kubernetes/client-node";
import { groupOfInstaller, systemNamespace } from "../../runtime/names.ts";
import { listed, printable } from "../../runtime/printable.ts";
import { Refusal } from "../../runtime/refusal.ts";
import { parseOptions, runCommand } from "../cli/options.ts";
import { describeError, loadKubeConfig, within } from "./client.ts";
import { exitCodes } from "./follow.ts";
import { leftOn, remedy } from "./left.ts";
import { type Fleet, type FleetNode, observeFleet } from "./observe.ts";

const usage = `Usage: contrast-runtime status [--namespace NAME] [--group GROUP]

Shows each node's state, handlers, containerd, ticket and reason.

The cluster: KUBECONFIG_CONTENT (the content of a kubeconfig), otherwise kubectl's own rules.
Exit codes: 0 every node is ready (except dead ones in ignoreNodes), 1 some are not, 2 wrong usage, 4 no cluster or no installer.`;

/** Prints a table of every node of every group; returns the exit code. */
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
      throw new Refusal("unreachable", `The API server cannot be queried: ${describeError(error)}`);
    });
    if (fleets.length === 0) {
      console.log(`No installers in namespace ${namespace}.`);
      return exitCodes.unreachable;
    }
    console.log(statusTable(fleets));
    return allReady(fleets) ? exitCodes.done : exitCodes.failed;
  });
}

async function installedGroups(kubeconfig: KubeConfig, namespace: string): Promise<string[]> {
  const { AppsV1Api } = await import("@kubernetes/client-node");
  const { items } = await kubeconfig.makeApiClient(AppsV1Api).listNamespacedDaemonSet({ namespace });
  return items.flatMap(({ metadata }) => groupOfInstaller(metadata?.name ?? "") ?? []).toSorted();
}

/** Pure: the table, one row per node. */
export function statusTable(fleets: Fleet[]): string {
  const header = ["NODE", "GROUP", "STATE", "CONTAINERD", "TICKET", "HANDLERS", "REASON"];
  const rows = fleets.flatMap((fleet) =>
    fleet.nodes.map((node) =>
      [
        node.name,
        fleet.group,
        stateOf(node, fleet),
        node.containerRuntime.replace(/^containerd:\/\//, ""),
        fleet.tickets.some(({ holder }) => holder === node.name) ? "held" : "-",
        listed(node.status?.handlers ?? []).replaceAll(", ", ",") || "-",
        reasonOf(node, fleet),
      ].map((cell) => printable(cell, 4_000)),
    ),
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

/** Pure: whether nothing is left to do. Dead nodes that the configuration names do not count. */
export const allReady = (fleets: Fleet[]): boolean =>
  fleets.every((fleet) =>
    fleet.nodes.every(
      (node) => stateOf(node, fleet) === "ready" || (!node.ready && fleet.skipNodes.includes(node.name)),
    ),
  );

function stateOf(node: FleetNode, fleet: Fleet): string {
  const { ready, pod, status } = node;
  if (leftOn(node, fleet) !== undefined) return "left-group";
  if (!ready) return "not-ready";
  if (pod === undefined) return "left-group";
  if (status === undefined) return "starting";
  return status.specHash === fleet.specHash ? status.state : "outdated";
}

function reasonOf(node: FleetNode, fleet: Fleet): string {
  const { name, ready, pod, status } = node;
  const left = leftOn(node, fleet);
  if (left !== undefined)
    return `The group's installer no longer runs here, and ${left} is still installed: ${remedy(fleet, name)}`;
  if (!ready) return `The node is NotReady${status === undefined ? "" : "; its last report may be outdated"}.`;
  if (pod === undefined) return "The group's DaemonSet no longer selects this node.";
  if (status === undefined) return pod.problem || "The installer has not reported yet.";
  const pods = status.pods.length > 0 ? ` Pods: ${listed(status.pods)}.` : "";
  const old = status.specHash === fleet.specHash ? "" : "About an earlier spec: ";
  return `${old}${status.reason}${pods}`;
}

/**
 * `npm run status`: the same for the clone's local cluster, whose addresses exist only in its own network, unless the
 * environment names another cluster or there is no local one.
 */
async function statusInClone(args: string[]): Promise<number> {
  const { clusterLayout, enterNetwork } = await import("../local-cluster/layout.ts");
  const { networkExists } = await import("../local-cluster/network.ts");
  const stack = process.env.PULUMI_STACK ?? "dev";
  const cluster = clusterLayout(stack);
  if (!(await networkExists(cluster))) return main(args);
  const elsewhere = ["KUBECONFIG_CONTENT", "KUBECONFIG"].find((name) => process.env[name]);
  if (elsewhere !== undefined) {
    console.error(`${elsewhere} is set: showing the cluster that it names, not the local cluster ${stack}.`);
    return main(args);
  }
  return runCommand(args, usage, async () => {
    const { requireRoot } = await import("../local-cluster/requirements.ts");
    const { kubeconfigFile } = await import("../local-cluster/certificates.ts");
    requireRoot();
    const [program = "", ...words] = [
      ...enterNetwork(stack),
      process.execPath,
      join(import.meta.dirname, "../cli/main.ts"),
    ];
    const env = { ...process.env, KUBECONFIG: kubeconfigFile(cluster, "admin") };
    const { status } = spawnSync(program, [...words, "status", ...args], { stdio: "inherit", env });
    return status ?? exitCodes.failed;
  });
}

if (import.meta.main) process.exitCode = await statusInClone(process.argv.slice(2));
