import * as fs from "node:fs/promises";
import { join } from "node:path";
import { printable } from "../../runtime/printable.ts";
import { Refusal } from "../../runtime/refusal.ts";
import { runProgram } from "./programs.ts";

/*
 * Who uses a runtime is what the kernel executes, and nothing that a process says of itself: its arguments, its name and
 * the paths in its own mount namespace can all be chosen. /proc/PID/exe is followed by the kernel to the very inode, so
 * device and inode number are compared, not the link's text.
 *
 * Only programs count. A shim, a VMM or a helper of a runtime is executed from the runtime's directory, as long as the
 * runtime is used. A file that is merely open or mapped there can be anybody's (a backup, a scanner, a pod with the
 * directory mounted read-only) who would otherwise decide how long a runtime stays; and whoever has a file open keeps its
 * bytes when the file is removed. A program whose file was replaced meanwhile does not run from the directory any more.
 */

const identity = ({ dev, ino }: { dev: bigint; ino: bigint }) => `${dev}:${ino}`;

/**
 * systemd runs this outside the installer's container, whose root may not look at processes with more capabilities than
 * its own (ptrace(2), PTRACE_MODE_READ). It prints device, inode and path of every process's program.
 */
const look = "LC_ALL=C stat -L --format='%d:%i %n' /proc/[0-9]*/exe 2>&1; exit 0";

/**
 * The processes whose program is a file below the directory, by PID. `root`: the host's root directory in this process;
 * `local`: the directory, as this process finds it.
 */
export async function runningBelow(root: string, local: string): Promise<RunningProgram[]> {
  const files = new Set(await identitiesBelow(local));
  if (files.size === 0) return [];
  const programs = (await ownLook(root)) ?? (await systemdsLook(root));
  const running: RunningProgram[] = [];
  for (const [pid, program] of programs) {
    if (!files.has(program)) continue;
    const comm = await fs.readFile(join(root, `/proc/${pid}/comm`), "utf8").catch(() => "");
    running.push({ pid, name: printable(comm, 20) });
  }
  return running.sort((a, b) => a.pid - b.pid);
}

async function identitiesBelow(directory: string): Promise<string[]> {
  const entries = await fs.readdir(directory, { withFileTypes: true }).catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT" || error.code === "ENOTDIR") return [];
    throw error;
  });
  const identities: string[] = [];
  for (const entry of entries) {
    const path = join(directory, entry.name);
    if (entry.isDirectory()) identities.push(...(await identitiesBelow(path)));
    else if (entry.isFile()) identities.push(identity(await fs.stat(path, { bigint: true })));
  }
  return identities;
}

export interface RunningProgram {
  pid: number;
  /** What the process calls itself, for people only: 15 characters that it can choose. */
  name: string;
}

export const described = ({ pid, name }: RunningProgram): string => `process ${name} (${pid})`;

type Programs = Map<number, string>;

/**
 * Program by process, or undefined if there is one that we may not look at. Where the host's /proc is mounted with
 * `hidepid`, those are not even listed (proc(5)); the first of them is always there, and has every capability.
 */
async function ownLook(root: string): Promise<Programs | undefined> {
  const names = await fs.readdir(join(root, "/proc")).catch((): string[] => []);
  if (names.length > 0 && !names.includes("1")) return undefined;
  const programs: Programs = new Map();
  for (const name of names) {
    if (!/^\d+$/.test(name)) continue;
    try {
      programs.set(Number(name), identity(await fs.stat(join(root, `/proc/${name}/exe`), { bigint: true })));
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === "EACCES" || code === "EPERM") return undefined;
      // Threads of the kernel have no program, and a process may have ended meanwhile.
    }
  }
  return programs;
}

async function systemdsLook(root: string): Promise<Programs> {
  const args = ["--wait", "--pipe", "--quiet", "--collect", "/bin/sh", "-c", look];
  const { code, stdout, stderr } = await runProgram(root, "systemd-run", args, 60_000);
  const hidden = /^stat: .*: (Permission denied|Operation not permitted)$/m.exec(stdout)?.[0];
  const programs: Programs = new Map(
    [...stdout.matchAll(/^(\d+:\d+) \/proc\/(\d+)\/exe$/gm)].map(([, program = "", pid]) => [Number(pid), program]),
  );
  if (code === 0 && hidden === undefined && programs.size > 0) return programs;
  const reason = hidden ?? (stderr.trim() || `exit code ${code}`);
  throw new Refusal(
    "users-unknown",
    `Whether a process still runs a retired runtime's programs cannot be told on this node: systemd-run said: ${printable(reason)}. ` +
      "The runtime's files stay. This needs systemd-run, GNU stat and a running D-Bus on the host; the installer tries again.",
  );
}
