import { setTimeout as delay } from "node:timers/promises";
import type { KubeConfig } from "@kubernetes/client-node";
import { groupOfInstaller } from "../../runtime/names.ts";
import { listed, printable } from "../../runtime/printable.ts";
import { Refusal } from "../../runtime/refusal.ts";
import { exitCodes } from "../process/exit-codes.ts";
import { describeError, loadKubeConfig, within } from "./client.ts";
import { leftOn, remedy } from "./left.ts";
import { nameOf } from "./name-of.ts";
import { type Fleet, type FleetNode, observeFleet } from "./observe.ts";

export interface StatusOptions {
  /** Default: every group that has installers. */
  group?: string | undefined;
  namespace: string;
  /** JSON instead of the table. */
  json?: true | undefined;
  /** Again whenever it changes, until interrupted. */
  watch?: true | undefined;
}

/** Prints every node of every group; returns the exit code. */
export async function status({ group, namespace, json, watch }: StatusOptions): Promise<number> {
  const kubeconfig = await loadKubeConfig(process.env);
  const look = async () => {
    const groups = group === undefined ? await installedGroups(kubeconfig, namespace) : [group];
    return Promise.all(groups.map((each) => observeFleet(kubeconfig, namespace, each)));
  };
  for (let said = ""; ; await delay(watchMs)) {
    const fleets = await within(30_000, "the cluster", look()).catch((error: unknown) => {
      if (error instanceof Refusal) throw error;
      const problem = `The API server cannot be queried: ${describeError(error)}`;
      if (!watch || said === "") throw new Refusal("unreachable", problem);
      console.error(problem);
      return undefined;
    });
    if (fleets === undefined) continue;
    const none = `No installers in namespace ${namespace}.`;
    const text = json ? statusJson(fleets) : fleets.length === 0 ? none : statusTable(fleets);
    // Tables that follow each other are told apart by an empty line; of JSON each has its own line.
    if (text !== said) console.log(said === "" || json ? text : `\n${text}`);
    said = text;
    if (watch) continue;
    if (fleets.length === 0) return exitCodes.unreachable;
    return allReady(fleets) ? exitCodes.done : exitCodes.failed;
  }
}

const watchMs = 2_000;

async function installedGroups(kubeconfig: KubeConfig, namespace: string): Promise<string[]> {
  const { AppsV1Api } = await import("@kubernetes/client-node");
  const { items } = await kubeconfig.makeApiClient(AppsV1Api).listNamespacedDaemonSet({ namespace });
  return items.flatMap((item) => groupOfInstaller(nameOf(item)) ?? []).toSorted();
}

/** Pure: one line of JSON: whether nothing is left to do, and each node, its words as they are. */
export const statusJson = (fleets: Fleet[]): string =>
  JSON.stringify({ ready: fleets.length > 0 && allReady(fleets), nodes: fleets.flatMap(rowsOf) });

const rowsOf = (fleet: Fleet) =>
  fleet.nodes.map((node) => ({
    name: node.name,
    group: fleet.group,
    state: stateOf(node, fleet),
    containerd: node.containerRuntime.replace(/^containerd:\/\//, ""),
    holdsTicket: fleet.tickets.some(({ holder }) => holder === node.name),
    handlers: node.status?.handlers ?? [],
    reason: reasonOf(node, fleet),
  }));

/** Pure: the table, one row per node. */
export function statusTable(fleets: Fleet[]): string {
  const header = ["NODE", "GROUP", "STATE", "CONTAINERD", "TICKET", "HANDLERS", "REASON"];
  const rows = fleets.flatMap(rowsOf).map(({ name, group, state, containerd, holdsTicket, handlers, reason }) => {
    const served = listed(handlers).replaceAll(", ", ",") || "-";
    const cells = [name, group, state, containerd, holdsTicket ? "held" : "-", served, reason];
    return cells.map((cell) => printable(cell, 4_000));
  });
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
