import { inspect, type ParseArgsOptionsConfig, parseArgs } from "node:util";
import { printableLines } from "../../runtime/printable.ts";
import { Refusal } from "../../runtime/refusal.ts";
import { exitCodes } from "../fleet/follow.ts";

/** A mistake on the command line: exit code 2, with the usage. */
export class UsageError extends Refusal {
  constructor(message: string) {
    super("usage", message);
  }
}

/** `parseArgs` whose complaints are UsageErrors; no positional arguments. */
export function parseOptions<T extends ParseArgsOptionsConfig>(args: string[], options: T) {
  try {
    return parseArgs({ args, options, strict: true, allowPositionals: false }).values;
  } catch (error) {
    throw new UsageError(error instanceof Error ? error.message : String(error));
  }
}

export function required(values: Record<string, unknown>, name: string): string {
  const value = values[name];
  if (typeof value === "string" && value !== "") return value;
  throw new UsageError(`--${name} is missing.`);
}

export function wholeNumber(text: string, name: string): number {
  if (/^\d{1,9}$/.test(text)) return Number(text);
  throw new UsageError(`--${name} "${text}" must be a whole number.`);
}

export const nameList = (text: string | undefined): string[] => (text ?? "").split(",").filter((name) => name !== "");

/** Runs a command's body: refusals become their sentence, everything else keeps its stack. Returns the exit code. */
export async function runCommand(args: string[], usage: string, body: () => Promise<number>): Promise<number> {
  if (args.includes("--help")) {
    console.log(usage);
    return exitCodes.done;
  }
  try {
    return await body();
  } catch (error) {
    if (error instanceof UsageError) console.error(`${error.message}\n\n${usage}`);
    else console.error(printableLines(error instanceof Refusal ? error.message : inspect(error), 60, 2_000));
    if (error instanceof UsageError) return exitCodes.usage;
    return error instanceof Refusal && unreachable.has(error.code) ? exitCodes.unreachable : exitCodes.failed;
  }
}

const unreachable = new Set(["kubeconfig", "no-installer", "unreachable"]);
