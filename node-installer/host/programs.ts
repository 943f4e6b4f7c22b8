import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { constants } from "node:os";
import { join, posix } from "node:path";
import { Refusal } from "../../runtime/refusal.ts";
import { type Lock, type RunResult, TooSlow } from "./host.ts";

/**
 * Programs of the host get the host's own defaults, not the pod's environment. `SYSTEMD_IGNORE_CHROOT`: otherwise systemctl
 * guesses from /proc/1/root whether it runs in a chroot, and refuses to start anything.
 */
const environment = {
  PATH: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/snap/bin",
  HOME: "/root",
  LC_ALL: "C.UTF-8",
  SYSTEMD_IGNORE_CHROOT: "1",
  SYSTEMD_PAGER: "",
  SYSTEMD_COLORS: "0",
};

/**
 * The program and its arguments as this process must start them. Goes through the host's `env`, because the image's chroot
 * is BusyBox's, which would run its own `ls` or `cp` instead of the host's.
 */
function inRoot(root: string, command: string, args: string[]): { file: string; args: string[] } {
  if (root === "/") return { file: command, args };
  const words = command.includes("/") ? [command] : ["/usr/bin/env", command];
  return { file: "chroot", args: [root, ...words, ...args] };
}

/** Environment of the started process: `chroot` itself is found through our own PATH, what it starts through the host's. */
const processEnvironment = (root: string) =>
  root === "/" ? environment : { ...environment, PATH: `${environment.PATH}:${process.env.PATH ?? ""}` };

/** A pod that may not chroot must not look like a host without programs. Without root there are only plans, which cope. */
function refuseWithoutChroot(stderr: string): void {
  if (process.getuid?.() !== 0 || !/^chroot: can.{1,3}t change root directory/.test(stderr)) return;
  throw Object.assign(new Error(stderr.trim()), { code: "EPERM", errno: -constants.errno.EPERM, syscall: "chroot" });
}

export async function runProgram(root: string, command: string, args: string[], timeoutMs: number): Promise<RunResult> {
  const started = inRoot(root, command, args);
  const child = spawn(started.file, started.args, {
    env: processEnvironment(root),
    stdio: ["ignore", "pipe", "pipe"],
    // A process group of its own, because the time limit must also end what the program has started.
    detached: true,
  });
  let timedOut = false;
  const timer = setTimeout(() => {
    timedOut = true;
    endGroup(child);
  }, timeoutMs);
  const stdout: Buffer[] = [];
  const stderr: Buffer[] = [];
  child.stdout.on("data", (chunk: Buffer) => stdout.push(chunk));
  child.stderr.on("data", (chunk: Buffer) => stderr.push(chunk));
  try {
    const [code, signal] = (await once(child, "close")) as [number | null, NodeJS.Signals | null];
    if (code === null && timedOut) throw new TooSlow(command, args, timeoutMs);
    const text = Buffer.concat(stderr).toString();
    refuseWithoutChroot(text);
    return {
      code: code ?? 128,
      stdout: Buffer.concat(stdout).toString(),
      stderr: signal === null ? text : `${text}${command} was ended by ${signal}`,
    };
  } catch (error) {
    if (error instanceof TooSlow || (error as NodeJS.ErrnoException).code === "EPERM") throw error;
    return { code: 127, stdout: "", stderr: `${started.file}: ${(error as Error).message}` };
  } finally {
    clearTimeout(timer);
  }
}

/** Processes that left the group may go on, but nothing waits for their output. */
function endGroup({ pid, stdout, stderr }: ChildProcess): void {
  try {
    if (pid !== undefined) process.kill(-pid, "SIGKILL");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
  }
  stdout?.destroy();
  stderr?.destroy();
}

/**
 * Node has no flock(2), so the host's `flock` takes the lock and runs `cat`, which answers once the lock is held and ends
 * with its input, that is, when this process ends in any way. The lock is in the host's /run, so other pods and the guard
 * on the host see the same one.
 */
export async function holdLock(root: string, path: string, timeoutMs: number): Promise<Lock> {
  const seconds = String(timeoutMs / 1000);
  const started = inRoot(root, "flock", ["--exclusive", "--wait", seconds, path, "cat"]);
  // A process group of its own: Ctrl-C on a terminal must not free the lock before this process is done.
  const child = spawn(started.file, started.args, {
    env: processEnvironment(root),
    stdio: ["pipe", "pipe", "pipe"],
    detached: true,
  });
  const ended = new Promise<{ code: number | null; reason: string }>((resolve) => {
    let stderr = "";
    child.stderr.on("data", (chunk: Buffer) => {
      stderr += chunk.toString();
    });
    child.on("error", (error) => resolve({ code: 127, reason: error.message }));
    child.on("close", (code) => resolve({ code, reason: stderr.trim() }));
  });
  child.stdin.on("error", () => undefined);
  child.stdin.write("held\n");
  const held = await Promise.race([once(child.stdout, "data").then(() => undefined), ended]);
  if (held !== undefined) {
    if (held.code === 1) {
      throw new Refusal(
        "locked",
        `Another installer is working on this node: ${path} was still held after ${seconds} s. Wait until it is done, then try again.`,
      );
    }
    throw new Refusal(
      "lock-impossible",
      `The lock ${path} could not be taken with the host's flock program (${held.reason || `exit code ${held.code}`}). ` +
        `This needs a writable ${posix.dirname(path)} and util-linux's flock on the host${root === "/" ? "" : ` below ${join(root, "/")}`}.`,
    );
  }
  return {
    async release() {
      child.stdin.end();
      await ended;
    },
  };
}
