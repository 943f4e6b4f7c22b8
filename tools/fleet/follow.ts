import { printable } from "../../runtime/printable.ts";
import { Refusal } from "../../runtime/refusal.ts";
import { exitCodes } from "../process/exit-codes.ts";
import { type Assessment, assess, type NodeProgress, unfinished, type Wanted } from "./assess.ts";
import { describeError } from "./client.ts";
import type { Fleet } from "./observe.ts";

export interface FollowOptions {
  observe: () => Promise<Fleet>;
  wanted: Wanted;
  /** Give up if nothing changes for this long. */
  stallMs: number;
  print: (line: string) => void;
  /** Milliseconds of a monotonic clock. */
  clock: () => number;
  delay: (ms: number) => Promise<void>;
}

export interface Outcome {
  exitCode: number;
  /** Sentences: why it did not succeed. */
  failures: string[];
  nodes: NodeProgress[];
}

/** One line of JSON for programs. */
export const outcomeJson = (group: string, { exitCode, failures, nodes }: Outcome): string =>
  JSON.stringify({ group, done: exitCode === exitCodes.done, failures, nodes });

const heartbeatMs = 60_000;
/** How long missing nodes may take to join once nothing else is left to wait for. */
const joinMs = 30_000;

/**
 * Waits until the fleet is as wanted, or cannot become so on its own. Prints a line per node whenever its state changes,
 * and one a minute about what it is waiting for while nothing changes. Never waits longer than `stallMs` for a change.
 */
export async function followFleet({ observe, wanted, stallMs, print, clock, delay }: FollowOptions): Promise<Outcome> {
  const said: Said = { states: new Map(), seen: new Map() };
  let fleet: Fleet | undefined;
  let problem: string | undefined;
  let changedAt = clock();
  let spokeAt = changedAt;
  const tell = (line: string) => {
    print(line);
    spokeAt = clock();
  };

  for (;;) {
    const startedAt = clock();
    try {
      fleet = await observe();
      if (problem !== undefined) tell("The API server answers again.");
      problem = undefined;
    } catch (error) {
      if (error instanceof Refusal) throw error;
      // Expected briefly where the control plane's own containerd restarts.
      const description = describeError(error);
      if (problem !== description) tell(`The API server cannot be queried, trying again: ${description}`);
      problem = description;
    }
    if (fleet !== undefined && problem === undefined) {
      const assessment = assess(fleet, wanted);
      if (printChanges(assessment, said, tell)) changedAt = clock();
      if (assessment.over) return outcome(assessment);
      if (assessment.tooFew && clock() - changedAt >= joinMs) {
        return { exitCode: exitCodes.failed, failures: unfinished(fleet, wanted), nodes: assessment.nodes };
      }
    }
    if (clock() - changedAt >= stallMs) {
      const stalled = `Nothing has changed for ${Math.round(stallMs / 1000)} s.`;
      if (fleet === undefined) return { exitCode: exitCodes.unreachable, failures: [problem ?? stalled], nodes: [] };
      const { nodes } = assess(fleet, wanted);
      return {
        exitCode: exitCodes.stalled,
        failures: [stalled, ...unfinished(fleet, wanted), ...(problem ? [problem] : [])],
        nodes,
      };
    }
    if (fleet !== undefined && clock() - spokeAt >= heartbeatMs) {
      const reasons = unfinished(fleet, wanted);
      const more = reasons.length > 3 ? ` … and ${reasons.length - 3} more` : "";
      tell(`Still waiting: ${reasons.slice(0, 3).join(" | ")}${more}`);
    }
    // Large fleets take longer to list: never spend more than a tenth of the time on listing.
    await delay(Math.max(1_000, 9 * (clock() - startedAt)));
  }
}

interface Said {
  /** State and code in each node's last line. */
  states: Map<string, string>;
  /** Everything that each node has been so far. */
  seen: Map<string, Set<string>>;
}

/**
 * Prints the changes; returns whether there was progress. Only what a node has not been before is progress: a pod that
 * crashes, or whose image cannot be pulled, repeats the same states forever. A new reason (such as more bytes copied)
 * counts, but only a new state is worth a line. Kubelet's reasons differ with every attempt and do not count.
 */
function printChanges(assessment: Assessment, said: Said, print: (line: string) => void): boolean {
  const nodes = [...assessment.nodes, ...assessment.left];
  let moved = false;
  const isNew = (name: string, what: string): boolean => {
    const seen = said.seen.get(name) ?? new Set();
    said.seen.set(name, seen);
    if (seen.has(what)) return false;
    seen.add(what);
    moved = true;
    return true;
  };
  for (const { name, state, code, reason } of nodes) {
    const line = `${state} ${code}`;
    const byKubelet = state === "starting" || code === "probe";
    const fresh = isNew(name, byKubelet ? line : `${line} ${reason}`);
    if (said.states.get(name) === line) continue;
    said.states.set(name, line);
    if (fresh || !byKubelet) print(printable(`${name}: ${state}: ${reason}`, 200));
  }
  for (const name of said.states.keys()) {
    if (nodes.some((node) => node.name === name)) continue;
    said.states.delete(name);
    isNew(name, "left the group");
    print(`${name}: left the group`);
  }
  return moved;
}

function outcome({ failures, nodes }: Assessment): Outcome {
  return { exitCode: failures.length > 0 ? exitCodes.failed : exitCodes.done, failures, nodes };
}
