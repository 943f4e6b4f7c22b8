import { spawn } from "node:child_process";
import { constants } from "node:fs";
import { type FileHandle, lstat, mkdir, open, rm } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";
import { sha256 } from "../../runtime/canonical.ts";
import { printable } from "../../runtime/printable.ts";
import { Refusal } from "../../runtime/refusal.ts";

/**
 * Locks the open file that it inherits, says so, and holds the lock until standard input ends, which it does when the
 * parent process ends in any way.
 */
const holderScript = "flock 3 || exit 1; echo held; exec cat >/dev/null";

/**
 * Runs the action while holding the lock of this name, which has one holder among this user's processes. The kernel frees
 * the lock when its holder ends in any way, so it is never stale, and waiters are woken instead of polling. Nobody else can
 * hold it, or say anything to who waits: it is in a directory that only its owner enters.
 *
 * @param holder what other processes are told that they wait for
 * @param onWait called once with the other holder's text (printable, of a hundred characters), if the lock is taken
 */
export async function withLock<T>(
  name: string,
  holder: string,
  onWait: (holder: string) => void,
  action: () => Promise<T>,
): Promise<T> {
  const directory = lockDirectory();
  await privateDirectory(directory);
  const file = join(directory, `${sha256(name).slice(0, 16)}.lock`);
  // Only Linux is sure to have flock.
  if (process.platform !== "linux") return await withOpenLock(file, onWait, action);
  const { handle, release } = await takeLock(file, onWait);
  try {
    await handle.write(holder, 0);
    return await action();
  } finally {
    await rm(file, { force: true });
    await handle.close();
    release();
  }
}

/**
 * What libuv makes of an open that shares with nobody: an exclusive lock with the file on macOS, where it is the system's own
 * O_EXLOCK, and on Windows, where it is UV_FS_O_EXLOCK. The kernel frees both when the file is closed, however that comes.
 */
const exclusiveFlag: Partial<Record<NodeJS.Platform, number>> = { darwin: 0x20, win32: 0x1000_0000 };
/** As `errno` has it where the file is open elsewhere: EAGAIN on macOS, as the open does not wait; EBUSY on Windows. */
const takenCodes = ["EAGAIN", "EBUSY"];
const askAgainMs = 200;

/**
 * `withLock` without a program that waits. The file is never removed, so that all who wait ask for the same one.
 * @param openFile for tests
 */
export async function withOpenLock<T>(
  file: string,
  onWait: (holder: string) => void,
  action: () => Promise<T>,
  openFile: typeof open = open,
): Promise<T> {
  const { O_RDWR, O_CREAT, O_NONBLOCK = 0 } = constants;
  const flags = O_RDWR | O_CREAT | O_NONBLOCK | (exclusiveFlag[process.platform] ?? 0);
  const openOnce = () =>
    openFile(file, flags, 0o600).catch((error: NodeJS.ErrnoException) => {
      if (!takenCodes.includes(error.code ?? "")) throw error;
    });
  let handle = await openOnce();
  if (handle === undefined) onWait("another command");
  while (handle === undefined) {
    await new Promise((wake) => setTimeout(wake, askAgainMs));
    handle = await openOnce();
  }
  try {
    return await action();
  } finally {
    await handle.close();
  }
}

/** Waits for the lock, again where its file was removed meanwhile: that one's next holder would not see ours. */
async function takeLock(
  file: string,
  onWait: (holder: string) => void,
): Promise<{ handle: FileHandle; release: () => void }> {
  for (let told = false; ; ) {
    const handle = await openOwn(file);
    // In a process group of its own, so that a terminal's interrupt does not free the lock before the action has ended.
    const child = spawn("sh", ["-c", holderScript], { stdio: ["pipe", "pipe", "pipe", handle.fd], detached: true });
    const release = () => void child.stdin?.end();
    let complaint = "";
    child.stderr?.on("data", (chunk) => {
      complaint += chunk;
    });
    child.stdin?.on("error", () => {});
    // The holder of the lock has written its text into the file.
    const announce = setInterval(async () => {
      const other = told ? "" : await start(handle).catch(() => "");
      if (!other || told) return;
      told = true;
      onWait(other);
    }, 300);
    try {
      await new Promise<void>((resolve, reject) => {
        child.stdout?.once("data", () => resolve());
        child.once("error", reject);
        child.once("close", () =>
          reject(new Refusal("lock-failed", `The lock ${file} cannot be taken: ${complaint.trim()}`)),
        );
      });
      const { ino } = await handle.stat();
      if ((await lstat(file).catch(() => undefined))?.ino === ino) {
        await handle.truncate();
        return { handle, release };
      }
    } catch (error) {
      await handle.close();
      release();
      throw error;
    } finally {
      clearInterval(announce);
    }
    await handle.close();
    release();
  }
}

/** The file, created if it is not there: never somebody else's, and never through a link. */
async function openOwn(file: string): Promise<FileHandle> {
  const { O_RDWR, O_CREAT, O_NOFOLLOW } = constants;
  const handle = await open(file, O_RDWR | O_CREAT | O_NOFOLLOW, 0o600).catch((error: NodeJS.ErrnoException) => {
    throw new Refusal(
      "lock-failed",
      `The lock ${file} cannot be opened (${error.code === "ELOOP" ? "it is a link" : error.message}): remove it, and run the command again.`,
    );
  });
  const status = await handle.stat();
  if (status.isFile() && status.uid === process.getuid?.()) return handle;
  await handle.close();
  throw new Refusal(
    "lock-failed",
    `The lock ${file} is no file of this user (${process.getuid?.()}) but one of user ${status.uid}: remove it, and run the command again.`,
  );
}

async function start(handle: FileHandle): Promise<string> {
  const { buffer, bytesRead } = await handle.read(Buffer.alloc(400), 0, 400, 0);
  return printable(buffer.toString("utf8", 0, bytesRead), 100);
}

/**
 * Makes sure of a directory that nobody but this user enters (root can, of course).
 * @throws Refusal where somebody else made it, or a link, in its place
 */
export async function privateDirectory(directory: string): Promise<void> {
  await mkdir(directory, { recursive: true, mode: 0o700 });
  // There, a user's folders are closed to others by what they inherit, and files have neither owners' numbers nor modes.
  if (process.platform === "win32") return;
  const { O_DIRECTORY, O_NOFOLLOW } = constants;
  const handle = await open(directory, O_DIRECTORY | O_NOFOLLOW).catch((error: NodeJS.ErrnoException) => {
    throw new Refusal(
      "not-ours",
      `${directory} must be a directory of this user: ${error.code === "ENOTDIR" || error.code === "ELOOP" ? "it is a link" : error.message}. Remove it, and run the command again.`,
    );
  });
  try {
    const { uid, mode } = await handle.stat();
    if (uid !== process.getuid?.())
      throw new Refusal(
        "not-ours",
        `${directory} belongs to user ${uid}, not to this one (${process.getuid?.()}): whoever made it could change what is kept there. Remove it, and run the command again.`,
      );
    if (mode & 0o077) await handle.chmod(0o700);
  } finally {
    await handle.close();
  }
}

/**
 * The same for all of a user's processes, in any network namespace. What must have one holder per machine (network
 * namespaces, sysctls, packages) only root does; its locks go with a reboot.
 */
const lockDirectory = () =>
  process.platform === "linux" && process.getuid?.() === 0
    ? "/run/contrast-runtime/locks"
    : join(process.env.XDG_CACHE_HOME || join(homedir(), ".cache"), "contrast-runtime", "locks");
