import { posix } from "node:path";
import { readIfThere } from "../host/files.ts";
import type { Host } from "../host/host.ts";

/** A systemd service as its unit file and drop-ins define it; read from the files, because a file tree has no systemd. */
export interface UnitFile {
  path: string;
  /** With the variables that the unit sets; others stay as they are written. */
  execStart: string[];
  /** systemd's default if the unit does not set it. */
  killMode: string;
  environment: Environment;
}

type Environment = Readonly<Record<string, string>>;

/** What a unit's texts say, before its environment's files are read. */
interface Merged {
  execStart?: string[];
  killMode?: string;
  environment?: Environment;
  /** With a dash in front of one that need not exist. */
  environmentFiles?: string[];
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
    const { execStart = [], killMode = "control-group", ...merged } = mergeUnit(texts);
    const environment = {
      ...merged.environment,
      ...(await readEnvironment(host, name, merged.environmentFiles ?? [])),
    };
    return { path, execStart: expanded(execStart, environment), killMode, environment };
  }
  return undefined;
}

/** Files override what the unit itself sets, and later files earlier ones. */
async function readEnvironment(host: Host, unit: string, files: readonly string[]): Promise<Environment> {
  let environment: Environment = {};
  for (const file of files) {
    const path = file
      .replace(/^-/, "")
      .replaceAll(/%([%nNp])/g, (_, specifier: string) => specifiers[specifier]?.(unit) ?? "");
    const bytes = path.startsWith("/") ? await readIfThere(host, path) : undefined;
    if (bytes !== undefined) environment = { ...environment, ...assignmentsOf(bytes.toString("utf8").split(/\r?\n/)) };
  }
  return environment;
}

const withoutSuffix = (unit: string) => posix.basename(unit, ".service");
const specifiers: Readonly<Record<string, (unit: string) => string>> = {
  "%": () => "%",
  n: (unit) => unit,
  N: withoutSuffix,
  p: (unit) => withoutSuffix(unit).replace(/@.*$/, ""),
};

/** Assignments such as `A=b` or `A="b c"`; other words, such as comments, are none. */
function assignmentsOf(texts: readonly string[]): Environment {
  return Object.fromEntries(
    texts.flatMap((text) => {
      const [, name, value = ""] = /^\s*([A-Za-z_]\w*)=(.*)$/s.exec(text) ?? [];
      return name === undefined ? [] : [[name, unquoted(value.trim())]];
    }),
  );
}

/** `${A}` is replaced anywhere in a word; `$A` only as a word of its own, and may become several. */
function expanded(command: readonly string[], environment: Environment): string[] {
  const value = (name = "") => (Object.hasOwn(environment, name) ? environment[name] : undefined);
  return command.flatMap((word) => {
    const whole = value(/^\$([A-Za-z_]\w*)$/.exec(word)?.[1]);
    if (whole !== undefined) return words(whole);
    return word.replaceAll(/\$\{([A-Za-z_]\w*)\}/g, (variable, name: string) => value(name) ?? variable);
  });
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

/** Later texts override earlier ones; an empty `ExecStart=` or environment resets those before it. */
export function mergeUnit(texts: readonly string[]): Merged {
  const merged: Merged = {};
  for (const unit of texts) {
    for (const { key, value } of serviceSettings(unit)) {
      if (key === "KillMode") merged.killMode = value === "" ? "control-group" : value;
      if (key === "ExecStart") merged.execStart = value === "" ? [] : words(value.replace(/^[-@:+!|]+/, ""));
      if (key === "Environment") {
        merged.environment = value === "" ? {} : { ...merged.environment, ...assignmentsOf(words(value)) };
      }
      if (key === "EnvironmentFile")
        merged.environmentFiles = value === "" ? [] : [...(merged.environmentFiles ?? []), value];
    }
  }
  return merged;
}

function serviceSettings(unit: string): { key: string; value: string }[] {
  let section = "";
  return unit
    .replaceAll(/\\\r?\n(?:[ \t]*[#;].*\n)*/g, " ")
    .split(/\r?\n/)
    .flatMap((line) => {
      const [, header, key, value = ""] = /^(?:\[(.+)\]|([A-Za-z]+)\s*=(.*))$/.exec(line.trim()) ?? [];
      if (header !== undefined) section = header;
      return key !== undefined && section === "Service" ? [{ key, value: value.trim() }] : [];
    });
}

/**
 * A unit file without what its administrator wrote into it: of the service's settings only how it is killed, of its
 * command the program and the flags that say where containerd is and what it reads, and of its environment those paths
 * on which such flags may depend.
 */
export function outlineUnit(unit: string): string {
  const lines = serviceSettings(unit).flatMap(({ key, value }) => {
    if (key === "KillMode") return [`KillMode=${value === "" || killModes.includes(value) ? value : "unknown"}`];
    if (key === "EnvironmentFile")
      return /^-?\/[\w/.@%-]{0,254}$/.test(value) || value === "" ? [`${key}=${value}`] : [];
    const { execStart = [], environment = {} } = mergeUnit([`[Service]\n${key}=${value}`]);
    if (key === "Environment") {
      return value === "" ? [`${key}=`] : outlineAssignments(environment).map((assignment) => `${key}=${assignment}`);
    }
    return key === "ExecStart" ? [`${key}=${value === "" ? "" : outlineCommand(execStart)}`] : [];
  });
  return ["[Service]", ...lines, ""].join("\n");
}

/** A file with a unit's environment, outlined in the same way. */
export const outlineEnvironment = (text: string): string =>
  outlineAssignments(assignmentsOf(text.split(/\r?\n/)))
    .map((assignment) => `${assignment}\n`)
    .join("");

/** Paths in variables that are named after something like them: a secret may begin with a slash, too. */
const outlineAssignments = (environment: Environment): string[] =>
  Object.entries(environment)
    .filter(([name, value]) => pathVariable.test(name) && !secretVariable.test(name) && plainPath.test(value))
    .map(([name, value]) => `${name}=${value}`);

const pathVariable = /^[A-Z0-9_]*(?:CONFIG|DIR|PATH|FILE|ADDRESS|SOCKET)[A-Z0-9_]*$/;
const secretVariable = /TOKEN|KEY|SECRET|PASS|CRED|AUTH/;
const plainPath = /^\/[\w/.@%:-]{0,254}$/;

const killModes = ["control-group", "mixed", "process", "none"];
const programs = /(^|\/)(?:containerd|k3s|rke2|k0s|snap)$/;
const pathFlags = [
  ["--address", "a", "address"],
  ["--config", "c", "config"],
  ["--data-dir", "d", "data-dir"],
  ["--container-runtime-endpoint", "container-runtime-endpoint"],
] as const;

function outlineCommand(command: readonly string[]): string {
  const index = command.findIndex((word) => programs.test(word));
  const program = command[index];
  const app = program !== undefined && /(^|\/)snap$/.test(program) ? command.slice(index + 1, index + 3) : [];
  const flags = pathFlags.flatMap(([flag, ...names]) => {
    const value = flagValue(command, ...names);
    if (value === undefined) return [];
    return [flag, /^[\w/][\w/.@%${}:-]{0,254}$|^\$[\w{}/.-]{1,254}$/.test(value) ? `"${value}"` : "unreadable"];
  });
  const plain = (word: string) => /^[\w/.${}-]{1,255}$/.test(word);
  return [program !== undefined && plain(program) ? program : "-", ...app.filter(plain), ...flags].join(" ");
}

const words = (command: string): string[] =>
  [...command.matchAll(/"[^"]*"|'[^']*'|\S+/g)].map(([word]) => unquoted(word));

const unquoted = (word: string): string => word.replace(/^(["'])(.*)\1$/s, "$2");

/** The value of a flag in any of Go's spellings: `-c X`, `--config X`, `--config=X`. */
export function flagValue(command: readonly string[], ...names: string[]): string | undefined {
  for (const [index, word] of command.entries()) {
    const [, name, value] = /^--?([^=]+)(?:=(.*))?$/.exec(word) ?? [];
    if (name !== undefined && names.includes(name)) return value ?? command[index + 1];
  }
  return undefined;
}
