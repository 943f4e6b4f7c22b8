import { type ChildProcess, spawn } from "node:child_process";
import { createInterface } from "node:readline";
import type { Readable } from "node:stream";

export interface Outputs {
  stdout: string;
  stderr: string;
}

export interface ProcessOptions {
  /** For quoting in errors. */
  command: string;
  stdin?: string | undefined;
  dir?: string | undefined;
  /** Added to this process's own. */
  environment: Record<string, string>;
  logging: "stdout" | "stderr" | "stdoutAndStderr" | "none";
  /** Receives each line as it arrives. */
  onLine: (line: string) => void;
}

/** The official plugin reads lines of at most 64 KiB, and of a longer one never sees the end. */
const longestLine = 64 << 10;

const running = new Set<ChildProcess>();

/**
 * Ends the running commands because the update is interrupted. As in the official plugin, what a command has started itself
 * lives on, and is waited for as long as it holds the command's output.
 */
export function killAll(): void {
  for (const child of running) child.kill("SIGKILL");
}

/** @throws Error with the exit status, the command and all of its output */
export async function runProcess([program = "", ...args]: string[], options: ProcessOptions): Promise<Outputs> {
  const { command, stdin, dir, environment, logging, onLine } = options;
  const child = spawn(program, args, { cwd: dir, env: { ...process.env, ...environment } });
  running.add(child);
  const everything: Buffer[] = [];
  let tooLong = 0;
  const collect = (stream: Readable, name: "stdout" | "stderr") => {
    const chunks: Buffer[] = [];
    stream.on("data", (chunk: Buffer) => {
      chunks.push(chunk);
      everything.push(chunk);
    });
    if (logging === name || logging === "stdoutAndStderr")
      createInterface({ input: stream }).on("line", (line) => {
        if (line.length >= longestLine) tooLong = line.length;
        onLine(line);
      });
    return () => Buffer.concat(chunks).toString().replace(/\n$/, "");
  };
  const stdout = collect(child.stdout, "stdout");
  const stderr = collect(child.stderr, "stderr");
  // If the command ends without reading its input, its exit status counts.
  child.stdin.on("error", () => {}).end(stdin ?? "");
  const failure = await new Promise<string | undefined>((resolve) => {
    child.on("error", (error) => resolve(error.message));
    child.on("close", (code, signal) =>
      resolve(signal ? `signal: ${signal}` : code ? `exit status ${code}` : undefined),
    );
  });
  running.delete(child);
  if (tooLong > 0)
    throw new Error(`a line of ${tooLong} characters, of which the official plugin waits for the end for ever`);
  if (failure === undefined) return { stdout: stdout(), stderr: stderr() };
  throw new Error(`${failure}: running ${JSON.stringify(command)}:\n${Buffer.concat(everything)}`);
}
