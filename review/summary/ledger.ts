import { changesOf } from "../preview/changes.ts";
import { type Difference, isBelow } from "../preview/differences.ts";
import type { Preview } from "../preview/preview.ts";
import type { Step } from "../preview/step.ts";
import { code } from "../text.ts";
import type { Line, Told } from "./line.ts";

/**
 * What of a preview is told, and what is not yet. A leaf counts as told only by a line that was made and claims it, so that
 * whatever nobody thought of is left over by itself.
 */
export class Ledger {
  readonly #changes: Map<Step, Difference[]>;
  readonly #claimed = new Map<string, Set<string>>();
  #texts = "";

  constructor({ steps }: Preview) {
    this.#changes = new Map(steps.map((step) => [step, changesOf(step)]));
  }

  /** Everything that the step changes. */
  changes = (step: Step): Difference[] => this.#changes.get(step) ?? [];

  /** What no line has claimed so far. */
  rest(step: Step): Difference[] {
    const paths = this.#claimed.get(keyOf(step));
    return this.changes(step).filter(({ path }) => paths === undefined || !isClaimed(path, paths));
  }

  /** Whether lines so far have shown these very values, each as a code span of its own. */
  shows = ({ path, before, after, isHidden }: Difference): boolean => {
    if (isHidden || path.startsWith("(")) return false;
    const values = [before, after].flatMap((value) =>
      Array.isArray(value) ? value : value === undefined ? [] : [value],
    );
    return values.every((value) => this.#texts.includes(code(value)));
  };

  /** Enters lines, which come back as they are shown. */
  enter(lines: Told[]): Line[] {
    this.#texts += lines.map(({ text }) => `${text}\n`).join("");
    for (const { step, paths } of lines.flatMap(({ claims = [] }) => claims)) {
      const claimed = this.#claimed.get(keyOf(step)) ?? new Set();
      for (const path of paths) claimed.add(path);
      this.#claimed.set(keyOf(step), claimed);
    }
    return lines.map(({ claims: _, ...line }) => line);
  }
}

const keyOf = ({ urn, op }: { urn: string; op: string }) => `${op} ${urn}`;

function isClaimed(path: string, paths: Set<string>): boolean {
  if (paths.has(path) || paths.has("")) return true;
  for (let end = path.length - 1; end > 0; end -= 1) {
    if (/[.[]/.test(path[end] ?? "") && paths.has(path.slice(0, end)) && isBelow(path, path.slice(0, end))) return true;
  }
  return false;
}
