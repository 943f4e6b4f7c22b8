import { type ChildProcess, spawn } from "node:child_process";
import { join } from "node:path";
import { packageRoot } from "../../tools/files/project.ts";
import { until } from "../until.ts";

const processes: ChildProcess[] = [];

/** Ends what a failed test left. */
export function killRuns(): void {
  for (const child of processes) child.kill("SIGKILL");
}

export interface Run {
  output: () => string;
  errors: () => string;
  /** Resolves when the line has been printed. */
  line: (pattern: RegExp) => Promise<true>;
  code: Promise<number | null>;
}

/** The bin, with this cluster and nothing else of this process's environment but PATH, and what Node compiled. */
export function runBin(kubeconfig: string, ...args: string[]): Run {
  const child = spawn(process.execPath, [join(packageRoot, "tools/cli/main.ts"), ...args], {
    env: {
      PATH: process.env.PATH,
      NODE_COMPILE_CACHE: process.env.NODE_COMPILE_CACHE,
      KUBECONFIG_CONTENT: kubeconfig,
    },
  });
  processes.push(child);
  let output = "";
  let errors = "";
  child.stdout.on("data", (chunk) => {
    output += chunk;
  });
  child.stderr.on("data", (chunk) => {
    errors += chunk;
  });
  const code = new Promise<number | null>((done) => child.on("close", done));
  return {
    output: () => output,
    errors: () => errors,
    line: (pattern) => until(`${pattern} in the output:\n${output}${errors}`, async () => pattern.test(output)),
    code,
  };
}
