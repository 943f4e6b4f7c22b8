import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";
import { Refusal } from "../../node-installer/runtime/refusal.ts";

/**
 * Locks the file (trying again if it was unlinked meanwhile), says so, and holds the lock until standard input ends, which
 * it does when the parent process ends in any way.
 */
const holderScript = `while :; do
  exec 3>>"$1" && flock 3 || exit 1
  [ "$(stat -Lc %i /proc/self/fd/3)" = "$(stat -c %i "$1" 2>/dev/null)" ] && break
done
echo held
exec cat >/dev/null`;

/**
 * Runs the action while holding the lock of this name, which has one holder per machine. The kernel frees the lock when its
 * holder ends in any way, so it is never stale, and waiters are woken instead of polling.
 *
 * @param holder what other processes are told that they wait for
 * @param onWait called once with the other holder's text, if the lock is taken
 */
export async function withLock<T>(
  name: string,
  holder: string,
  onWait: (holder: string) => void,
  action: () => Promise<T>,
): Promise<T> {
  const directory = lockDirectory();
  await mkdir(directory, { recursive: true });
  const file = join(directory, `contrast-runtime-${createHash("sha256").update(name).digest("hex").slice(0, 16)}.lock`);
  // In a process group of its own, so that a terminal's interrupt does not free the lock before the action has ended.
  const child = spawn("sh", ["-c", holderScript, "lock", file], { stdio: "pipe", detached: true });
  let complaint = "";
  child.stderr.on("data", (chunk) => {
    complaint += chunk;
  });
  child.stdin.on("error", () => {});
  // The holder of the lock has written its text into the file.
  const announce = setInterval(async () => {
    const other = await readFile(file, "utf8").catch(() => "");
    if (!other) return;
    clearInterval(announce);
    onWait(other);
  }, 300);
  let held = false;
  try {
    await new Promise<void>((resolve, reject) => {
      child.stdout.once("data", () => resolve());
      child.once("error", reject);
      child.once("close", () =>
        reject(new Refusal("lock-failed", `The lock ${file} cannot be taken: ${complaint.trim()}`)),
      );
    });
    held = true;
    clearInterval(announce);
    await writeFile(file, holder);
    return await action();
  } finally {
    clearInterval(announce);
    if (held) await rm(file, { force: true });
    child.stdin.end();
  }
}

/** The same for all of this user's processes, in any network namespace; for root, emptied by a reboot. */
const lockDirectory = () =>
  process.getuid?.() === 0
    ? "/run/lock"
    : join(process.env.XDG_CACHE_HOME || join(homedir(), ".cache"), "contrast-runtime", "locks");
