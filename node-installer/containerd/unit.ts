import type { Host } from "../host/host.ts";

/** A systemd service as its unit file and drop-ins define it; read from the files, because a file tree has no systemd. */
export interface UnitFile {
  path: string;
  execStart: string[];
  /** systemd's default if the unit does not set it. */
  killMode: string;
}

/** Highest precedence first; `/lib` is a link where /usr is merged. */
const unitFolders = [
  "/etc/systemd/system",
  "/run/systemd/system",
  "/usr/local/lib/systemd/system",
  "/usr/lib/systemd/system",
  "/lib/systemd/system",
];

/** `undefined` if the node has no such unit, or if it is masked. */
export async function readUnit(host: Host, name: string): Promise<UnitFile | undefined> {
  for (const folder of unitFolders) {
    const path = `${folder}/${name}`;
    // systemd masks a unit this way. The link is resolved by name, because a copy of a node's files has no devices.
    if ((await host.realpath(path)) === "/dev/null") return undefined;
    if ((await host.stat(path)) === undefined) continue;
    const texts = [
      await text(host, path),
      ...(await Promise.all((await dropIns(host, name)).map((file) => text(host, file)))),
    ];
    return { path, execStart: [], killMode: "control-group", ...mergeUnit(texts) };
  }
  return undefined;
}

/** A link to /dev/null, which masks a drop-in, counts as an empty one. */
const text = async (host: Host, path: string): Promise<string> =>
  (await host.stat(path))?.kind === "file" ? (await host.readFile(path)).toString("utf8") : "";

/** The drop-ins in the order in which they apply: by name; of two with the same name, the one with higher precedence. */
async function dropIns(host: Host, name: string): Promise<string[]> {
  const byName = new Map<string, string>();
  for (const folder of unitFolders.toReversed()) {
    const path = `${folder}/${name}.d`;
    if ((await host.stat(path))?.kind !== "directory") continue;
    for (const entry of await host.readDirectory(path))
      if (entry.endsWith(".conf")) byName.set(entry, `${path}/${entry}`);
  }
  return [...byName].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, path]) => path);
}

/** Later texts override earlier ones; an empty `ExecStart=` resets those before it. */
export function mergeUnit(texts: readonly string[]): Partial<Pick<UnitFile, "execStart" | "killMode">> {
  const merged: Partial<Pick<UnitFile, "execStart" | "killMode">> = {};
  for (const unit of texts) {
    let section = "";
    for (const line of unit.replaceAll(/\\\r?\n/g, " ").split(/\r?\n/)) {
      const [, header, key, value = ""] = /^\s*(?:\[(.+)\]|([A-Za-z]+)\s*=\s*(.*?))\s*$/.exec(line) ?? [];
      if (header !== undefined) section = header;
      if (section !== "Service") continue;
      if (key === "KillMode") merged.killMode = value === "" ? "control-group" : value;
      if (key === "ExecStart") merged.execStart = value === "" ? [] : words(value.replace(/^[-@:+!|]+/, ""));
    }
  }
  return merged;
}

const words = (command: string): string[] =>
  [...command.matchAll(/"([^"]*)"|'([^']*)'|(\S+)/g)].map(([, double, single, bare]) => double ?? single ?? bare ?? "");

/** The value of a flag in any of Go's spellings: `-c X`, `--config X`, `--config=X`. */
export function flagValue(command: readonly string[], ...names: string[]): string | undefined {
  for (const [index, word] of command.entries()) {
    const [, name, value] = /^--?([^=]+)(?:=(.*))?$/.exec(word) ?? [];
    if (name !== undefined && names.includes(name)) return value ?? command[index + 1];
  }
  return undefined;
}
