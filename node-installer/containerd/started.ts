import { posix } from "node:path";
import { Refusal } from "../../runtime/refusal.ts";
import { readIfThere } from "../host/files.ts";
import type { Host } from "../host/host.ts";
import { flagValue, type UnitFile } from "./unit.ts";
import { versionInOutput } from "./version.ts";

/** containerd's command line, as far as it decides what containerd is and what it reads. */
export interface Started {
  program: string;
  /** undefined: containerd's own default. */
  config: string | undefined;
  address: string | undefined;
  /** Who says so, for messages: a file, or a process. */
  by: string;
  /** The file that holds nothing but these words, where they are not the unit's own. */
  wordsFile?: string;
  /** What the program says is its version; undefined: it was not asked, or has no answer. */
  version?: string | undefined;
}

/** Where containerd looks for its configuration if nothing else is said. */
const defaultConfig = "/etc/containerd/config.toml";

/** The file that this command line makes containerd read. */
export const configOf = ({ config }: Started): string => config ?? defaultConfig;

/** Whether a flag's value is a path that depends on no variable and on no working directory. */
export const isPath = (flag: string): boolean => flag.startsWith("/") && !flag.includes("$");

/**
 * How a unit that is containerd's own starts it. Of a script that starts containerd, only the running process tells;
 * undefined: nothing does. Refuses if the running one was started with other files than the unit says now.
 */
export async function readStarted(host: Host, unit: UnitFile | undefined): Promise<Started | undefined> {
  if (unit === undefined) return undefined;
  refuseOtherPrograms(unit);
  const written = inCommand(unit.execStart, unit.path) ?? (await inSnap(host, unit));
  // Together, because waiting for these two programs is most of what a look takes.
  const [running, version] = await Promise.all([
    inProcess(host, posix.basename(unit.path)),
    written === undefined || written.program.includes("$") ? undefined : versionOf(host, written.program),
  ]);
  if (written === undefined || running === undefined) return written === undefined ? running : { ...written, version };
  const [file, now] = [configOf(written), configOf(running)];
  if (isPath(file) && isPath(now) && (await host.realpath(file)) !== (await host.realpath(now))) {
    throw new Refusal(
      "daemon-started-otherwise",
      `${written.by} makes containerd read ${file}, but the running one (${running.by}) reads ${now}. Restart ${posix.basename(unit.path)} so that it runs as its unit says, or correct the unit; then run again.`,
    );
  }
  // What the unit leaves to variables, the process knows.
  const [config, address] = [written.config, written.address].map((value, index) =>
    value === undefined || isPath(value) ? value : [running.config, running.address][index],
  );
  const program = written.program.includes("$") ? running.program : written.program;
  return { ...written, program, config, address, version };
}

/** undefined: there is no such program, or its answer holds none. */
export async function versionOf(host: Host, program: string): Promise<string | undefined> {
  const { code, stdout } = await host.run(program, ["--version"]);
  return code === 0 ? versionInOutput(stdout) : undefined;
}

const isContainerd = (word: string): boolean => /(^|\/)containerd$/.test(word);

function inCommand(command: readonly string[], by: string): Started | undefined {
  const index = command.findIndex(isContainerd);
  const program = command[index];
  if (program === undefined) return undefined;
  const flags = command.slice(index + 1);
  return { program, config: flagValue(flags, "c", "config"), address: flagValue(flags, "a", "address"), by };
}

/** `snap run k8s.containerd`: by convention of Canonical's snaps, the arguments are lines of a file. */
async function inSnap(host: Host, { execStart }: UnitFile): Promise<Started | undefined> {
  const index = execStart.findIndex((word) => /(^|\/)snap$/.test(word));
  const [, snap, app] = /^([a-z0-9-]+)\.([a-z0-9.-]*containerd)$/.exec(execStart[index + 2] ?? "") ?? [];
  if (execStart[index + 1] !== "run" || snap === undefined || app === undefined) return undefined;
  const by = `/var/snap/${snap}/common/args/${app}`;
  const lines = await readIfThere(host, by);
  if (lines === undefined) return undefined;
  const started = inCommand([`/snap/${snap}/current/bin/containerd`, ...lines.toString("utf8").split(/\s+/)], by);
  return started && { ...started, wordsFile: by };
}

/** What a process says of itself is data: of a containerd's words only its flags are used, and only as paths. */
async function inProcess(host: Host, unit: string): Promise<Started | undefined> {
  const { code, stdout } = await host.run("systemctl", ["show", "--property=MainPID", unit]);
  const [, pid] = (code === 0 ? /^MainPID=([1-9]\d*)$/m.exec(stdout) : null) ?? [];
  if (pid === undefined) return undefined;
  const bytes = await readIfThere(host, `/proc/${pid}/cmdline`).catch(() => undefined);
  const words = bytes?.toString("utf8").split("\0") ?? [];
  return isContainerd(words[0] ?? "") ? inCommand(words, `process ${pid}`) : undefined;
}

function refuseOtherPrograms({ path, execStart }: UnitFile): void {
  const other = execStart.find((word) => /(^|\/)(kubelet|dockerd|crio)$/.test(word));
  if (other === undefined || execStart.some(isContainerd)) return;
  throw new Refusal(
    "unit-of-another-program",
    `distribution.unit is ${posix.basename(path)}, but ${path} starts ${other}, not containerd. Set distribution.unit to the unit that starts containerd.`,
  );
}

/** Of the arguments' file of a snap only the flags that are read; undefined: another file. */
export function outlineArguments(path: string, text: string): string | undefined {
  if (!/^\/var\/snap\/[a-z0-9-]+\/common\/args\/[a-z0-9.-]*containerd$/.test(path)) return undefined;
  const words = text.split(/\s+/);
  const flags = { config: flagValue(words, "c", "config"), address: flagValue(words, "a", "address") };
  return Object.entries(flags)
    .filter(([, value]) => value !== undefined && /^\/[\w/.-]{1,254}$/.test(value))
    .map(([name, value]) => `--${name}=${value}\n`)
    .join("");
}
