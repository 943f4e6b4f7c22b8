import { posix } from "node:path";
import { printable } from "../../runtime/printable.ts";
import { logPath } from "../host/files.ts";
import type { Host } from "../host/host.ts";
import { isRootsDirectory } from "../host/owners.ts";

type Fields = Record<string, unknown>;
export interface Log {
  info(event: string, fields?: Fields): void;
  warn(event: string, fields?: Fields): void;
  error(event: string, fields?: Fields): void;
  /** Also writes to the host from now on, starting with the lines so far: a run that changes nothing writes nothing. */
  keep(): void;
  /** Resolves once every line so far is on the host, or could not be written there. */
  flush(): Promise<void>;
}

/** In bytes; some ten thousand lines. A larger log is renamed, and kept until the new one is just as large. */
export const largestLog = 4 << 20;

/** Others may write to /var/log on some distributions: in a directory of theirs, the log's name could lead anywhere. */
async function writeLines(host: Host, lines: string): Promise<void> {
  if (!(await isRootsDirectory(host, posix.dirname(logPath)))) return;
  await makeRoom(host);
  await host.appendFile(logPath, lines);
}

async function makeRoom(host: Host): Promise<void> {
  const stat = await host.stat(logPath);
  if (stat !== undefined && stat.size > largestLog) await host.rename(logPath, `${logPath}.1`);
}

const longest = 4_000;
const fit = (_key: string, value: unknown): unknown => (typeof value === "string" ? printable(value, longest) : value);

/** One JSON object per line, to `write` and to the host's log, which outlives the pod. */
export function createLog(host: Host, group: string, write: (line: string) => void): Log {
  let waiting: string[] = [];
  let kept = false;
  let writing = Promise.resolve();
  const append = () => {
    if (!kept || waiting.length === 0) return;
    const lines = waiting.join("");
    waiting = [];
    // A full disk must not stop a rollback: the line is on stdout anyway.
    writing = writing
      .then(() => host.makeDirectory(posix.dirname(logPath), 0o750))
      .then(() => writeLines(host, lines))
      .catch(() => undefined);
  };
  const say =
    (level: string) =>
    (event: string, fields: Fields = {}) => {
      const line = `${JSON.stringify({ time: host.now().toISOString(), level, event, group, ...fields }, fit)}\n`;
      write(line);
      waiting.push(line);
      // Years of "nothing to do" must not fill the memory.
      if (!kept && waiting.length > 200) waiting.shift();
      append();
    };
  return {
    info: say("info"),
    warn: say("warn"),
    error: say("error"),
    keep() {
      kept = true;
      append();
    },
    flush: () => writing,
  };
}

const notAllowed =
  "the installer is not allowed to do this. Its pod needs the user, capabilities and mounts that the program gives it, and the host's security modules must allow them";
const noRoom = "free some space on the node, and the next run continues";
const advice: Record<string, string> = { EPERM: notAllowed, EACCES: notAllowed, ENOSPC: noRoom, EDQUOT: noRoom };

/** The message of an error as one printable line, without its stack. Parts of it may be a program's or a server's words. */
export function sentence(error: unknown): string {
  if (!(error instanceof Error)) return printable(String(error), longest);
  const { code = "" } = error as NodeJS.ErrnoException;
  const message = printable(error.message, longest);
  return code in advice ? `${message}: ${advice[code]}` : message;
}
