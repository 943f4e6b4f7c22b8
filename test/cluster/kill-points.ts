import type { Fault } from "./faulty-installer.ts";
import { handlersOf, type NodeWithInstaller } from "./installer-on-node.ts";

/** What else happens to the node when its installer is killed; nobody starts another installer. */
export type Besides = "nothing" | "containerd is stopped" | "the power fails";

/** Run while the installer holds its lock; later, the guard may be quicker. */
const befalling: Record<Besides, Pick<Fault, "command">> = {
  nothing: {},
  "containerd is stopped": { command: "systemctl stop containerd.service" },
  "the power fails": { command: "systemctl reboot --force --force" },
};

/** A change of a node, with its start and end. */
export interface Change {
  name: string;
  node: NodeWithInstaller;
  /** The kept state that the change starts from. */
  from: string;
  spec: string;
  /** Handlers that are served if all goes well. */
  wanted: string[];
}

export interface KillPoint extends Omit<Fault, "command" | "survives"> {
  besides: Besides;
}

/** The outcome: a row of the table. */
export interface Row {
  change: string;
  node: string;
  point: KillPoint;
  outcome: "old bytes" | "new state";
  /** Milliseconds from the kill until the CRI serves what the file says. */
  recovery: number;
}

/** Points that repeat while the installer waits for something: the third one teaches nothing that the first two did not. */
const looks = /^(cri (version|status|listSandboxes)|run systemctl show)/;
/** These change nothing visible to others: a kill before them equals a kill before what follows. */
const invisible =
  /^(mkdir|fsync|cri|run systemctl show|run cat|run ls|run containerd)|^(write|remove) .*\.(contrast-staged|fired)$/;
/** Where one state becomes another: worth a kill both before and after. */
const turns =
  /^(step|replace|rename to .*(journal\.json|guard\.armed)$|remove .*guard\.armed$|run systemctl restart containerd)/;

/** Every point that a run passed, as a kill before it and a kill after it. */
export function allPoints(record: string): KillPoint[] {
  const passed = new Map<string, number>();
  return record
    .trim()
    .split("\n")
    .flatMap((point): KillPoint[] => {
      const occurrence = (passed.get(point) ?? 0) + 1;
      passed.set(point, occurrence);
      if (looks.test(point) && occurrence > 2) return [];
      return (["before", "after"] as const).map((when) => ({ point, occurrence, when, besides: "nothing" }));
    });
}

/** The points where a kill finds the node in a new state. */
export const tellingPoints = (points: KillPoint[]): KillPoint[] =>
  points.filter(({ point, when }) => turns.test(point) || (when === "before" && !invisible.test(point)));

/** Without the points at which the guard's files are removed one by one, when nothing depends on them any more. */
export const withoutGuardRemoval = (points: KillPoint[]): KillPoint[] =>
  points.filter(
    ({ point }) =>
      !/^(remove .*\/contrast-runtime-guard|remove .*guard\.sh$|run systemctl (d|reset-failed c.*guard))/.test(point),
  );

/** The points from the first one of that name on. */
export const from = (points: KillPoint[], name: string): KillPoint[] =>
  points.slice(
    Math.max(
      0,
      points.findIndex(({ point }) => point === name),
    ),
  );

/** Names of the points of a complete run of the change. */
export async function recordPoints({ node, from, spec }: Change): Promise<string> {
  const file = "/opt/test/points";
  await node.reset(from);
  await node.run("rm", "-f", file);
  await node.faultyInstaller(spec, { record: file });
  return (await node.read(file)) ?? "";
}

/**
 * Kills the installer at the point and waits until host and kubelet have recovered the node on their own.
 * @throws if its CRI does not come back, or serves something other than the old bytes or the new state
 */
export async function killAt({ name, node, from, spec, wanted }: Change, point: KillPoint): Promise<Row> {
  await node.reset(from);
  const old = await node.read("/etc/containerd/config.toml");
  const { besides, ...fault } = point;
  const boot = await node.root();
  const { code, stdout, stderr } = await node.faultyInstaller(spec, { fault: { ...fault, ...befalling[besides] } });
  if (code !== 128) throw new Error(`the installer was not killed, but ended with ${code}:\n${stdout}${stderr}`);
  const killed = Date.now();
  if (besides === "the power fails") await node.rebooted(boot);
  const file = await node.settled();
  const recovery = Date.now() - killed;
  if (file !== old && handlersOf(file).join() !== wanted.join()) {
    throw new Error(`${node.name} has neither its old configuration nor the new one:\n${file}`);
  }
  return { change: name, node: node.name, point, outcome: file === old ? "old bytes" : "new state", recovery };
}

export const describePoint = ({ point, occurrence, when, besides }: KillPoint): string =>
  `killed ${when.padEnd(6)} ${point}${occurrence > 1 ? ` (${occurrence})` : ""}${besides === "nothing" ? "" : `, and ${besides}`}`;

/** The table that a run prints. */
export const table = (rows: Row[]): string =>
  rows
    .map(
      (row) => `${row.outcome}  after ${(row.recovery / 1000).toFixed(1).padStart(5)} s  ${describePoint(row.point)}`,
    )
    .join("\n");
