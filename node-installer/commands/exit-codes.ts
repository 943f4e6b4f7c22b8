import { Refusal } from "../../runtime/refusal.ts";
import { DigestMismatch } from "../host/host.ts";
import { RollbackFailed, RolledBack } from "../install/rolled-back.ts";

/** What the program's exit codes mean; printed by `--help`. */
export const exitCodes = {
  done: 0,
  unexpected: 1,
  badInput: 2,
  refused: 3,
  rolledBack: 4,
  rollbackFailed: 5,
  notAsExpected: 6,
} as const;

export const exitCodeMeanings: Record<keyof typeof exitCodes, string> = {
  done: "done, or nothing to do",
  unexpected:
    "an error of the machine or of this program; the next run or the guard finishes or rolls back what was begun",
  badInput: "the command line or the install spec is not valid",
  refused: "refused: nothing was changed, and the reason says what to do",
  rolledBack: "containerd did not pass the gate: rolled back, the node serves as before",
  rollbackFailed: "neither the change nor the rollback passed the gate: look at the node",
  notAsExpected: "check-host or verify found a problem",
};

const inputMistakes = new Set(["bad-arguments", "bad-spec"]);

export function exitCodeOf(error: unknown): number {
  if (error instanceof RolledBack) return exitCodes.rolledBack;
  if (error instanceof RollbackFailed) return exitCodes.rollbackFailed;
  if (error instanceof DigestMismatch) return exitCodes.refused;
  if (error instanceof Refusal) return inputMistakes.has(error.code) ? exitCodes.badInput : exitCodes.refused;
  return exitCodes.unexpected;
}
