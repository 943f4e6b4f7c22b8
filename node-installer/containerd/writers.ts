import { posix } from "node:path";
import { printable } from "../../runtime/printable.ts";
import type { Host } from "../host/host.ts";
import type { Located } from "./locate.ts";
import { settingsOf, unitFolders } from "./unit.ts";

/**
 * What on this node may write to containerd's file, for a sentence to a person: only what was found, and as what it was
 * found. Nothing is decided by it, and nothing that cannot be read is an error. Empty: nothing was found.
 */
export async function possibleWriters(host: Host, located: Located): Promise<string[]> {
  const found: string[] = [];
  for (const search of [commandsOfUnit, pathUnits, managers, lastWrite]) {
    found.push(...(await search(host, located).catch(() => [])));
  }
  return found;
}

const commandKeys = new Set([
  "ExecCondition",
  "ExecStartPre",
  "ExecStart",
  "ExecStartPost",
  "ExecReload",
  "ExecStopPost",
]);
const longest = 200;

/** Whether a text names the file, its folder, or the link to it. */
const namer = ({ file, configuration }: Located) => {
  const paths = [file, configuration].flatMap((path) => [path, posix.dirname(path)]);
  return (text: string): boolean => text.split(/[\s"'=]+/).some((word) => paths.includes(word.replace(/\/$/, "")));
};

/** Commands of containerd's own unit that name the file; containerd itself only reads it. */
async function commandsOfUnit(host: Host, located: Located): Promise<string[]> {
  const names = namer(located);
  return (await settingsOf(host, located.unit))
    .filter(({ key, value }) => commandKeys.has(key) && names(value) && !/^[-@:+!|]*\S*\/containerd(\s|$)/.test(value))
    .map(({ path, key, value }) => `${located.unit} has ${key}=${printable(value, longest)} (${path})`);
}

/** Units that systemd starts when the file or its folder changes. */
async function pathUnits(host: Host, located: Located): Promise<string[]> {
  const names = namer(located);
  const found: string[] = [];
  for (const folder of unitFolders) {
    for (const unit of (await host.readDirectory(folder)).filter((name) => name.endsWith(".path"))) {
      const path = posix.join(folder, unit);
      const text = (await host.readFile(path).catch(() => Buffer.alloc(0))).toString("utf8");
      const watched = text.split("\n").find((line) => /^\s*Path\w+\s*=/.test(line) && names(line));
      if (watched !== undefined) found.push(`${unit} watches it (${printable(watched.trim(), longest)} in ${path})`);
    }
  }
  return found;
}

/** Programs that keep files as somebody has written them down elsewhere, as the kernel names their processes. */
const managerNames = new Set([
  "ansible-pull",
  "cf-agent",
  "chef-client",
  "nvidia-toolkit",
  "puppet",
  "rudder-agent",
  "salt-minion",
]);

async function managers(host: Host): Promise<string[]> {
  const running = new Set<string>();
  for (const pid of (await host.readDirectory("/proc")).filter((name) => /^\d+$/.test(name))) {
    const name = (await host.readFile(`/proc/${pid}/comm`).catch(() => Buffer.alloc(0))).toString("utf8").trim();
    if (managerNames.has(name)) running.add(name);
  }
  return [...running].sort().map((name) => `${name} runs on this node`);
}

async function lastWrite(host: Host, { file }: Located): Promise<string[]> {
  const stat = await host.stat(file);
  if (stat === undefined) return [`${file} was removed`];
  const time = new Date(Number(stat.mtimeNs / 1_000_000n)).toISOString();
  return [`${file} was last written at ${time} and belongs to user ${stat.uid}`];
}
