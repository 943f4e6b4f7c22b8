import type { NodeShape } from "../fakes/node-shapes.ts";
import { type Change, prepare } from "./changes.ts";
import { applies, type Fault, kinds, ofReads, worthTrying } from "./faults.ts";
import { type Reference, reference, trial } from "./trial.ts";

/** Which of all trials are made: of those of one fault, and of those of two, each n-th. 1: all. */
export interface Share {
  /** Of the kinds that end a process or a call, which every call must survive. */
  basic: number;
  /** Of all other kinds. */
  other: number;
  twice: number;
}

const basic: readonly string[] = ["fails once", "killed before", "killed after", "the power fails"];
const firsts = ["fails once", "killed after", "the power fails", "the file is written anew after"] as const;
const seconds = ["fails once", "killed before", "killed after", "the power fails"] as const;

function singles({ points, reads }: Reference): Fault[] {
  return kinds.flatMap((kind) => {
    const names = ofReads(kind) ? reads : points;
    return worthTrying(names)
      .filter((at) => applies(kind, names[at - 1] ?? ""))
      .map((at) => ({ kind, at }));
  });
}

/**
 * A fault, and another during what follows it: a rollback, a recovery, the next attempt. After one that ends the process, the
 * second counts the calls of the next.
 */
function pairs({ points }: Reference): Fault[][] {
  return firsts.flatMap((first) =>
    worthTrying(points)
      .filter((at) => applies(first, points[at - 1] ?? ""))
      .flatMap((at) =>
        seconds.flatMap((second, turn) =>
          [3, 17, 31, 45, 59].map((distance): Fault[] => [
            { kind: first, at },
            {
              kind: second,
              at: first.startsWith("killed") || first === "the power fails" ? distance + turn : at + distance + turn,
            },
          ]),
        ),
      ),
  );
}

/** Never left out: what somebody puts back while containerd runs with what our restart loaded. */
function afterRestart({ points }: Reference, unit: string): Fault[] {
  const at = points.indexOf(`run systemctl restart ${unit}`) + 2;
  return at < 2
    ? []
    : [
        { kind: "an old file is put back before", at },
        { kind: "an old file is put back, and the process is killed before", at },
      ];
}

/** Each n-th, so that what is next to each other in the list is taken from in turn. */
const eachOf = <T>(list: readonly T[], n: number): T[] => list.filter((_, index) => index % n === n >> 1);

export interface Outcome {
  trials: number;
  /** "kind at 17 (rename /etc/containerd/config.toml): what was wrong" */
  failures: string[];
}

/** Every selected trial of a change on a kind of node. */
export async function tryOut(shape: NodeShape, change: Change, share: Share): Promise<Outcome> {
  const prepared = await prepare(shape, change);
  const outcome: Outcome = { trials: 0, failures: [] };
  try {
    // Modules that are loaded on first use change the order of calls in the background.
    await reference(prepared);
    const expected = await reference(prepared);
    const nameOf = ({ kind, at, lost }: Fault) => {
      const name = (ofReads(kind) ? expected.reads : expected.points)[at - 1] ?? "a later call";
      return `${kind} at ${at} (${name})${lost === undefined ? "" : ` without ${lost}`}`;
    };
    const attempt = async (faults: Fault[]): Promise<string[]> => {
      outcome.trials += 1;
      try {
        return await trial(prepared, expected, faults);
      } catch (error) {
        outcome.failures.push(`${faults.map(nameOf).join(", then ")}: ${(error as Error).message}`);
        return [];
      }
    };
    const all = singles(expected);
    const chosen = [
      ...eachOf(
        all.filter(({ kind }) => basic.includes(kind)),
        share.basic,
      ),
      ...eachOf(
        all.filter(({ kind }) => !basic.includes(kind)),
        share.other,
      ),
    ];
    const seen = new Set<string>();
    for (const fault of chosen) {
      const unsynced = await attempt([fault]);
      if (fault.kind !== "the power fails" || unsynced.length < 2 || seen.has(unsynced.join())) continue;
      // A disk may write what was not synced in any order.
      seen.add(unsynced.join());
      for (const lost of unsynced.filter((path) => !path.startsWith("/var/log"))) await attempt([{ ...fault, lost }]);
    }
    for (const fault of afterRestart(expected, shape.unit)) await attempt([fault]);
    for (const faults of eachOf(pairs(expected), share.twice)) await attempt(faults);
    return outcome;
  } finally {
    prepared.node.close();
  }
}
