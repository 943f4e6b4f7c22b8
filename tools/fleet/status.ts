import { setTimeout as delay } from "node:timers/promises";
import { groupOfInstaller } from "../../runtime/names.ts";
import { listed, printable } from "../../runtime/printable.ts";
import { Refusal } from "../../runtime/refusal.ts";
import { exitCodes } from "../process/exit-codes.ts";
import { describeError, type FleetApi } from "./api.ts";
import { connect } from "./client.ts";
import { countsOf } from "./console.ts";
import { leftOn, remedy } from "./left.ts";
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
  const api = await connect(process.env);
  const look = async () => {
    const fleets: Fleet[] = [];
    // One after the other: each may have thousands of nodes.
    for (const each of group === undefined ? await installedGroups(api, namespace) : [group])
      fleets.push(await observeFleet(api, namespace, each));
    return fleets;
  };
  let before: Fleet[] | undefined;
  for (let said = ""; ; await delay(watchMs)) {
    const fleets = await look().catch((error: unknown) => {
      if (error instanceof Refusal) throw error;
      const problem = `The API server cannot be queried: ${describeError(error)}`;
      if (!watch || said === "") throw new Refusal("unreachable", problem);
      console.error(problem);
      return undefined;
    });
    if (fleets === undefined) continue;
    const text = json ? statusJson(fleets) : statusText(fleets, before, namespace);
    // Tables that follow each other are told apart by an empty line; of JSON each has its own line.
    if (text !== said && text !== "") console.log(said === "" || json ? text : `\n${text}`);
    said = text || said;
    before = fleets;
    if (watch) continue;
    if (fleets.length === 0) return exitCodes.unreachable;
    return allReady(fleets) ? exitCodes.done : exitCodes.failed;
  }
}

const watchMs = 2_000;

/** Of more nodes, a table that is shown again has only what changed, and each table ends with counts. */
const mostRows = 50;

/** Pure: the table, or why there is none; "" if it is shown again and nothing changed. */
function statusText(fleets: Fleet[], before: Fleet[] | undefined, namespace: string): string {
  if (fleets.length === 0) return `No installers in namespace ${namespace}.`;
  const rows = fleets.flatMap(rowsOf);
  if (rows.length <= mostRows) return table(rows);
  const counts = fleets.map(
    (fleet) => `Group ${fleet.group}: ${countsOf(fleet.nodes.map((node) => ({ state: stateOf(node, fleet) })))}.`,
  );
  if (before === undefined) return [table(rows), "", ...counts].join("\n");
  const known = new Map(before.flatMap(rowsOf).map((row) => [`${row.group} ${row.name}`, JSON.stringify(row)]));
  const changed = rows.filter((row) => known.get(`${row.group} ${row.name}`) !== JSON.stringify(row));
  const gone = known.size + changed.filter((row) => !known.has(`${row.group} ${row.name}`)).length > rows.length;
  return changed.length === 0 && !gone ? "" : [...(changed.length > 0 ? [table(changed)] : []), ...counts].join("\n");
}

/** The groups that have installers, sorted. */
export async function installedGroups(api: FleetApi, namespace: string): Promise<string[]> {
  const daemonSets = `/apis/apps/v1/namespaces/${namespace}/daemonsets`;
  const groups = await api.listMetadata(daemonSets, {}, ({ metadata }) => {
    const group = groupOfInstaller(metadata.name);
    return group === undefined ? [] : [group];
  });
  return groups.toSorted();
}

/** Pure: one line of JSON: whether nothing is left to do, and each node, its words as they are. */
export const statusJson = (fleets: Fleet[]): string =>
  JSON.stringify({ ready: fleets.length > 0 && allReady(fleets), nodes: fleets.flatMap(rowsOf) });

const rowsOf = (fleet: Fleet) => {
  const holders = new Set(fleet.tickets.map(({ holder }) => holder));
  return fleet.nodes.map((node) => ({
    name: node.name,
    group: fleet.group,
    state: stateOf(node, fleet),
    containerd: node.containerRuntime.replace(/^containerd:\/\//, ""),
    holdsTicket: holders.has(node.name),
    handlers: node.status?.handlers ?? [],
    reason: reasonOf(node, fleet),
  }));
};
type Row = ReturnType<typeof rowsOf>[number];

/** Pure: the table, one row per node. */
export const statusTable = (fleets: Fleet[]): string => table(fleets.flatMap(rowsOf));

function table(nodes: Row[]): string {
  const header = ["NODE", "GROUP", "STATE", "CONTAINERD", "TICKET", "HANDLERS", "REASON"];
  const rows = nodes.map(({ name, group, state, containerd, holdsTicket, handlers, reason }) => {
    const served = listed(handlers).replaceAll(", ", ",") || "-";
    const cells = [name, group, state, containerd, holdsTicket ? "held" : "-", served, reason];
    return cells.map((cell) => printable(cell, 4_000));
  });
  const widths = header.map((_, column) =>
    [header, ...rows].reduce((most, row) => Math.max(most, row[column]?.length ?? 0), 0),
  );
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

export function stateOf(node: FleetNode, fleet: Fleet): string {
  const { ready, pod, status } = node;
  if (leftOn(node, fleet) !== undefined) return "left-group";
  if (!ready) return "not-ready";
  if (pod === undefined) return "left-group";
  if (status === undefined) return "starting";
  return status.specHash === fleet.specHash ? status.state : "outdated";
}

export function reasonOf(node: FleetNode, fleet: Fleet): string {
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
