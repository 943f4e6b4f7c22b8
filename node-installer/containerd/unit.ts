import type { Host } from "../host/host.ts";

/** A systemd service as its unit file and drop-ins define it; read from the files, because a file tree has no systemd. */
export interface UnitFile {
  path: string;
  execStart: string[];
  /** systemd's default if the unit does not set it. */
  killMode: string;
}

/** Highest precedence first; `/lib` is a link where /usr is merged. */
export const unitFolders = [
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

/** Every setting of the service's section, with the file that makes it: the unit's own and its drop-ins'. */
export async function settingsOf(host: Host, name: string): Promise<{ path: string; key: string; value: string }[]> {
  const unit = await readUnit(host, name);
  const paths = unit === undefined ? [] : [unit.path, ...(await dropIns(host, name))];
  const texts = await Promise.all(paths.map(async (path) => ({ path, unit: await text(host, path) })));
  return texts.flatMap(({ path, unit }) => serviceSettings(unit).map((setting) => ({ path, ...setting })));
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
    for (const { key, value } of serviceSettings(unit)) {
      if (key === "KillMode") merged.killMode = value === "" ? "control-group" : value;
      if (key === "ExecStart") merged.execStart = value === "" ? [] : words(value.replace(/^[-@:+!|]+/, ""));
    }
  }
  return merged;
}

function serviceSettings(unit: string): { key: string; value: string }[] {
  let section = "";
  return unit
    .replaceAll(/\\\r?\n/g, " ")
    .split(/\r?\n/)
    .flatMap((line) => {
      const [, header, key, value = ""] = /^(?:\[(.+)\]|([A-Za-z]+)\s*=(.*))$/.exec(line.trim()) ?? [];
      if (header !== undefined) section = header;
      return key !== undefined && section === "Service" ? [{ key, value: value.trim() }] : [];
    });
}

/**
 * A unit file without what its administrator wrote into it: of the service's settings only how it is killed, and of its
 * command only containerd itself and the flags that say where it is and what it reads.
 */
export function outlineUnit(unit: string): string {
  const lines = serviceSettings(unit).flatMap(({ key, value }) => {
    if (key === "KillMode") return [`KillMode=${value === "" || killModes.includes(value) ? value : "unknown"}`];
    return key === "ExecStart"
      ? [
          `ExecStart=${value === "" ? "" : outlineCommand(mergeUnit([`[Service]\nExecStart=${value}`]).execStart ?? [])}`,
        ]
      : [];
  });
  return ["[Service]", ...lines, ""].join("\n");
}

const killModes = ["control-group", "mixed", "process", "none"];
const pathFlags = [
  ["--address", "a", "address"],
  ["--config", "c", "config"],
] as const;

function outlineCommand(command: readonly string[]): string {
  const program = command.find((word) => /(^|\/)containerd$/.test(word));
  const flags = pathFlags.flatMap(([flag, ...names]) => {
    const value = flagValue(command, ...names);
    if (value === undefined) return [];
    return [flag, /^[\w/][\w/.@%${}:-]{0,254}$|^\$[\w{}/.-]{1,254}$/.test(value) ? `"${value}"` : "unreadable"];
  });
  return [program !== undefined && /^[\w/.-]{1,255}$/.test(program) ? program : "-", ...flags].join(" ");
}

const words = (command: string): string[] =>
  [...command.matchAll(/"[^"]*"|'[^']*'|\S+/g)].map(([word]) => word.replace(/^(["'])(.*)\1$/s, "$2"));

/** The value of a flag in any of Go's spellings: `-c X`, `--config X`, `--config=X`. */
export function flagValue(command: readonly string[], ...names: string[]): string | undefined {
  for (const [index, word] of command.entries()) {
    const [, name, value] = /^--?([^=]+)(?:=(.*))?$/.exec(word) ?? [];
    if (name !== undefined && names.includes(name)) return value ?? command[index + 1];
  }
  return undefined;
}
