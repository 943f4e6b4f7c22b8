import { resolve } from "node:path";
import { inspect } from "node:util";
import { ApiError } from "../../node-installer/kubernetes/api.ts";
import { printableLines } from "../../runtime/printable.ts";
import { Refusal } from "../../runtime/refusal.ts";
import { whyNot } from "../../runtime/unreadable.ts";

/** What the product's commands exit with. */
export const exitCodes = { done: 0, failed: 1, usage: 2, stalled: 3, unreachable: 4 } as const;

/** Refusals that mean something else than "failed", by their code. */
const codesOfRefusals = new Map<string, number>([
  ["usage", exitCodes.usage],
  ["kubeconfig", exitCodes.unreachable],
  ["no-installer", exitCodes.unreachable],
  ["unreachable", exitCodes.unreachable],
]);

/** Says on standard error why a command ended: its users' matters in a sentence, a bug with its stack. Returns the exit code. */
export function report(error: unknown): number {
  console.error(printableLines(ownWords(error) ?? inspect(error), 60, 2_000));
  if (error instanceof ApiError && error.status === 0) return exitCodes.unreachable;
  return (error instanceof Refusal ? codesOfRefusals.get(error.code) : undefined) ?? exitCodes.failed;
}

/** The operating system's own word on a file says it all, once it is clear which file that is. */
function ownWords(error: unknown): string | undefined {
  if (error instanceof ApiError)
    return `The API server did not do what this command needs: ${error.message}. It can be run again.`;
  if (error instanceof Refusal) return error.message;
  if (!(error instanceof Error && "syscall" in error)) return undefined;
  return "path" in error && typeof error.path === "string"
    ? `${resolve(error.path)}: ${whyNot(error)} (${error.syscall}).`
    : error.message;
}

let isWatched = false;

/**
 * Makes the command fail if its output cannot be written: whoever finds a file takes what is in it for all of it. A reader that
 * goes away (`| head`) has read what it wanted.
 */
export function failWithoutOutput(): void {
  if (isWatched) return;
  isWatched = true;
  let hasFailed = false;
  process.stdout.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code === "EPIPE" || hasFailed) return;
    hasFailed = true;
    console.error(`The output cannot be written: ${whyNot(error)}. What is there of it is not whole.`);
    process.once("exit", () => {
      process.exitCode ||= exitCodes.failed;
    });
  });
}
