import { spawn } from "node:child_process";
import { packageRoot } from "../files/project.ts";
import type { EngineEnvironment } from "./environment.ts";

/**
 * Runs the engine on the terminal; resolves with its exit code. The terminal sends an interrupt to the engine directly,
 * which then ends its update cleanly; this process only waits for that.
 */
export async function runPulumi(environment: EngineEnvironment, args: string[]): Promise<number> {
  const [command = "", ...rest] = [...environment.prefix, environment.command, ...args];
  const child = spawn(command, rest, { cwd: packageRoot, env: environment.env, stdio: "inherit" });
  const forward = (signal: NodeJS.Signals) => child.kill(signal);
  const wait = () => {};
  process.on("SIGTERM", forward).on("SIGINT", wait);
  try {
    return await new Promise<number>((resolve, reject) => {
      child.on("error", reject);
      child.on("exit", (code, signal) => resolve(code ?? (signal === "SIGINT" ? 130 : 143)));
    });
  } finally {
    process.off("SIGTERM", forward).off("SIGINT", wait);
  }
}

/** Selects the stack, creating it if it does not exist. */
export const selectStack = (environment: EngineEnvironment, stack: string): Promise<number> =>
  runPulumi(environment, ["stack", "select", "--create", stack]);
