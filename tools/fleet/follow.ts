import { sha256 } from "../../runtime/canonical.ts";
import { Refusal } from "../../runtime/refusal.ts";
import { exitCodes } from "../process/exit-codes.ts";
import { describeError } from "./api.ts";
import { type Assessment, assess, type NodeProgress, unfinished, type Wanted } from "./assess.ts";
import { fleetConsole, isByKubelet } from "./console.ts";
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

/** How long missing nodes may take to join once nothing else is left to wait for. */
const joinMs = 30_000;

/**
 * Waits until the fleet is as wanted, or cannot become so on its own. Says what changes, and what it is waiting for while
 * nothing does. Never waits longer than `stallMs` for a change.
 */
export async function followFleet({ observe, wanted, stallMs, print, clock, delay }: FollowOptions): Promise<Outcome> {
  const console = fleetConsole(print, clock);
  const seen = new Set<number>();
  let fleet: Fleet | undefined;
  let problem: string | undefined;
  let changedAt = clock();

  for (;;) {
    const startedAt = clock();
    try {
      fleet = await observe();
      if (problem !== undefined) console.say("The API server answers again.");
      problem = undefined;
    } catch (error) {
      if (error instanceof Refusal) throw error;
      // Expected briefly where the control plane's own containerd restarts.
      const description = describeError(error);
      if (problem !== description) console.say(`The API server cannot be queried, trying again: ${description}`);
      problem = description;
    }
    if (fleet !== undefined && problem === undefined) {
      const assessment = assess(fleet, wanted);
      console.changes(fleet.group, assessment);
      if (isProgress(assessment, seen)) changedAt = clock();
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
    const known = fleet;
    if (known !== undefined) console.waiting(() => unfinished(known, wanted));
    // Large fleets take longer to list: no more than a quarter of the time is spent on it.
    await delay(Math.max(1_000, 3 * (clock() - startedAt)));
  }
}

/**
 * Whether there was progress. Only what a node has not been before is progress: a pod that crashes, or whose image cannot
 * be pulled, repeats the same states forever. A new reason (such as more bytes copied) counts; those of kubelet differ
 * with every attempt, and those of a node that waits tell about others: these do not.
 *
 * @param seen digests of all that each node has been so far, which a rollout of thousands of nodes can keep
 */
function isProgress({ nodes, left }: Assessment, seen: Set<number>): boolean {
  const before = seen.size;
  for (const node of [...nodes, ...left]) {
    const { name, state, code, reason } = node;
    const what = isByKubelet(node) || state === "waiting" ? "" : reason;
    seen.add(Number.parseInt(sha256([name, state, code, what].join("\n")).slice(0, 12), 16));
  }
  return seen.size > before;
}

function outcome({ failures, nodes }: Assessment): Outcome {
  return { exitCode: failures.length > 0 ? exitCodes.failed : exitCodes.done, failures, nodes };
}
