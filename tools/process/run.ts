import { type ChildProcess, spawn } from "node:child_process";
import { setPriority } from "node:os";
import { createInterface } from "node:readline";
import { Refusal } from "../../runtime/refusal.ts";

export interface RunOptions {
  cwd?: string;
  /** The whole environment of the child; this process's own by default. */
  env?: NodeJS.ProcessEnv;
  input?: string;
  timeoutMs?: number;
  /** Takes the processor only when nothing else wants it. */
  inBackground?: boolean;
  /** Receives each line of the child's standard error as it arrives. */
  onErrorLine?: (line: string) => void;
}

export interface RunResult {
  /** 128 if a signal ended it. */
  code: number;
  /** What ended it, if it did not end by itself: SIGKILL after its time limit, or for want of memory. */
  signal?: NodeJS.Signals;
  stdout: string;
  stderr: string;
}

const running = new Set<ChildProcess>();
let givenUp = false;

/**
 * Ends what `run` still waits for, and lets it start nothing else: something that ran in parallel failed, and its message
 * should come last instead of minutes of work that nobody needs any more.
 */
export function endPrograms(): void {
  givenUp = true;
  for (const child of running) child.kill();
}

/** Runs a program to its end. A non-zero exit code is a result; only a program that cannot be started throws. */
export async function run(command: string, args: readonly string[], options: RunOptions = {}): Promise<RunResult> {
  if (givenUp) throw new Refusal("given-up", `${command} is not started: another step failed.`);
  const child = spawn(command, args, {
    cwd: options.cwd,
    env: options.env ?? process.env,
    stdio: [options.input === undefined ? "ignore" : "pipe", "pipe", "pipe"],
    ...(options.timeoutMs === undefined ? {} : { timeout: options.timeoutMs, killSignal: "SIGKILL" as const }),
  });
  running.add(child);
  if (options.inBackground && child.pid !== undefined) setPriority(child.pid, 10);
  const { stdout, stderr, stdin } = child;
  if (!stdout || !stderr) throw new Error("standard output of a child is a pipe");
  const out: Buffer[] = [];
  const err: Buffer[] = [];
  stdout.on("data", (chunk: Buffer) => out.push(chunk));
  stderr.on("data", (chunk: Buffer) => err.push(chunk));
  if (options.onErrorLine) createInterface({ input: stderr }).on("line", options.onErrorLine);
  // If the child ends without reading its input, its exit code counts, not the broken pipe.
  stdin?.on("error", () => {}).end(options.input);
  const ended = new Promise<Pick<RunResult, "code" | "signal">>((resolve, reject) => {
    child.on("error", (error: NodeJS.ErrnoException) =>
      reject(error.code === "ENOENT" ? new Refusal("program-missing", `${command} is not installed.`) : error),
    );
    child.on("close", (exitCode, signal) => resolve(signal ? { code: 128, signal } : { code: exitCode ?? 1 }));
  });
  const end = await ended.finally(() => running.delete(child));
  return { ...end, stdout: Buffer.concat(out).toString(), stderr: Buffer.concat(err).toString() };
}

/** Runs a program that must succeed; returns its standard output. The error quotes the end of its output. */
export async function check(command: string, args: readonly string[], options: RunOptions = {}): Promise<string> {
  const { code, signal, stdout, stderr } = await run(command, args, options);
  if (code === 0) return stdout;
  const { timeoutMs } = options;
  const limit = timeoutMs === undefined ? "" : ` (its time limit is ${timeoutMs / 1000} s)`;
  const said = (stderr.trim() || stdout.trim() || "it printed nothing").split("\n").slice(-15).join("\n  ");
  throw new Refusal(
    "program-failed",
    `${[command, ...args].join(" ").slice(0, 300)} ${signal ? `was ended by ${signal}${limit}` : `failed (exit ${code})`}:\n  ${said}`,
  );
}
