/**
 * What a rollout says meanwhile. A stack keeps all of it in its state, so it is bounded however many nodes there are and
 * however long it takes.
 */
import { printable } from "../../runtime/printable.ts";
import { type Assessment, isGood, type NodeProgress } from "./assess.ts";

/** Up to so many nodes have a line for each change. Of more, those have one that somebody should look at. */
const mostLines = 50;

/** Between two lines of counts, and of waiting: at least this, and a twentieth of the time so far. */
const countsMs = 10_000;
const waitingMs = 60_000;
const longestWaitMs = 600_000;

export interface FleetConsole {
  say(line: string): void;
  /** The changes since the last call. */
  changes(group: string, assessment: Assessment): void;
  /** What it waits for, if nothing was said for long. */
  waiting(reasons: () => string[]): void;
}

export function fleetConsole(print: (line: string) => void, clock: () => number): FleetConsole {
  const beganAt = clock();
  let spokeAt = beganAt;
  let countedAt = Number.NEGATIVE_INFINITY;
  let counted = "";
  let named = 0;
  /** State and code in each node's last line. */
  const last = new Map<string, string>();
  /** What nodes have been, of what kubelet says again and again. */
  const before = new Set<string>();

  const say = (line: string) => {
    print(line);
    spokeAt = clock();
  };
  const isDue = (since: number, atLeastMs: number) => clock() - since >= Math.max(atLeastMs, (clock() - beganAt) / 20);
  const sayNode = (group: string, nodes: number, node: NodeProgress) => {
    if (nodes > mostLines) {
      if (!needsLook(node)) return;
      named += 1;
      if (named > mostLines + 1) return;
      if (named > mostLines) return say(`More such nodes: npx contrast-runtime status --group ${group}`);
    }
    say(printable(`${node.name}: ${node.state}: ${node.reason}`, 200));
  };
  return {
    say,
    changes(group, assessment) {
      const nodes = [...assessment.nodes, ...assessment.left];
      const present = new Set(nodes.map(({ name }) => name));
      for (const node of nodes) {
        const line = `${node.state} ${node.code}`;
        if (last.get(node.name) === line) continue;
        last.set(node.name, line);
        const once = `${node.name} ${line}`;
        if (isByKubelet(node)) {
          if (before.has(once)) continue;
          before.add(once);
        }
        sayNode(group, nodes.length, node);
      }
      const gone = [...last.keys()].filter((name) => !present.has(name));
      for (const name of gone) last.delete(name);
      if (gone.length <= mostLines) for (const name of gone) say(`${name}: left the group`);
      else say(`${gone.length} nodes left the group, such as ${gone[0]}`);
      if (nodes.length <= mostLines) return;
      const counts = countsOf(nodes);
      if (counts === counted || !(assessment.over || isDue(countedAt, countsMs))) return;
      [counted, countedAt] = [counts, clock()];
      say(`Group ${group}: ${counts}.`);
    },
    waiting(reasons) {
      if (clock() - spokeAt < waitingMs) return;
      if (clock() - spokeAt < longestWaitMs && !isDue(spokeAt, waitingMs)) return;
      const all = reasons();
      say(`Still waiting: ${all.slice(0, 3).join(" | ")}${all.length > 3 ? ` … and ${all.length - 3} more` : ""}`);
    },
  };
}

/** Reasons and states that come from kubelet alternate for ever where a pod does not start. */
export const isByKubelet = ({ state, code }: NodeProgress): boolean => state === "starting" || code === "probe";

/** States that do not pass by themselves. */
const needsLook = ({ state }: NodeProgress): boolean =>
  state === "not-ready" || state === "blocked" || isStopped(state);
const isStopped = (state: NodeProgress["state"]): boolean =>
  isGood(state) ? state !== "ready" : /^(failed|left)$/.test(state);

/** "4200 waiting, 50 working, 750 ready", by number. */
export function countsOf(nodes: readonly { state: string }[]): string {
  const counts = new Map<string, number>();
  for (const { state } of nodes) counts.set(state, (counts.get(state) ?? 0) + 1);
  return [...counts]
    .toSorted(([a, m], [b, n]) => n - m || (a < b ? -1 : 1))
    .map(([state, count]) => `${count} ${state}`)
    .join(", ");
}

/** The first of many sentences, and where the others are. */
export const firstOf = (sentences: readonly string[], group: string): string[] =>
  sentences.length <= mostLines
    ? [...sentences]
    : [
        ...sentences.slice(0, mostLines),
        `… and ${sentences.length - mostLines} more: npx contrast-runtime status --group ${group}`,
      ];
