import { dirname, posix } from "node:path";
import { type Distribution, distributions } from "../../runtime/distributions.ts";
import { Refusal } from "../../runtime/refusal.ts";
import type { InstallSpec } from "../../runtime/spec.ts";
import { readIfThere } from "../host/files.ts";
import type { Host } from "../host/host.ts";
import { at, decode, parseDocument } from "./document.ts";
import type { EditContext } from "./edit.ts";
import { importMatches, importsOf } from "./imports.ts";
import { flagValue, readUnit, type UnitFile } from "./unit.ts";
import { parseContainerdVersion, versionInOutput } from "./version.ts";

/** Where a node's containerd is, and which file makes it serve a handler. Paths are the node's. */
export interface Located {
  distribution: Distribution["name"];
  kind: EditContext["kind"];
  /** The file to edit, with links resolved; it need not exist. */
  file: string;
  /**
   * The file that containerd reads: `file` itself under the name that containerd is given (imports are relative to the
   * link, not to its target), or what the distribution renders from `file`.
   */
  configuration: string;
  templateBase: string | undefined;
  /** With its suffix: "containerd.service". */
  unit: string;
  socket: string;
  restart: Distribution["restart"];
  /** `undefined` in a file tree without one. */
  binary: string | undefined;
  /** "1.7.24" */
  version: string;
  dataDirectories: readonly string[];
}

/** The bytes that an edit starts from; `undefined` for a missing file. */
export interface Configuration {
  edited: Buffer | undefined;
  configuration: Buffer | undefined;
}

type Declared = InstallSpec["distribution"];

/**
 * Finds the node's containerd. Refuses a node that does not match the install spec, and one that is not supported. Only
 * reads; needs neither systemd nor a running containerd.
 */
export async function locate(host: Host, declared: Declared): Promise<Located> {
  const distribution = distributions[declared.name];
  await crossCheck(host, declared);
  const { name: unit, file: unitFile } = await findUnit(host, declared, distribution);
  if (distribution.restart === "systemctl") checkKillMode(unit, unitFile);
  const { binary, version } = await findBinary(host, declared, distribution, unitFile);
  parseContainerdVersion(version);
  const edited = await findEdited(host, declared, distribution, unitFile, version);
  return {
    distribution: declared.name,
    ...edited,
    unit,
    socket: await host.realpath(declared.socket ?? socketOf(distribution, unitFile)),
    restart: distribution.restart,
    binary,
    version,
    dataDirectories: distribution.dataDirectories,
  };
}

export async function readConfiguration(host: Host, located: Located): Promise<Configuration> {
  const edited = await readIfThere(host, located.file);
  return {
    edited,
    configuration: located.kind === "root" ? edited : await readIfThere(host, located.configuration),
  };
}

export function editContext(located: Located, configuration: Configuration): EditContext {
  return {
    file: located.file,
    kind: located.kind,
    containerdVersion: located.version,
    rendered: { file: located.configuration, bytes: configuration.configuration },
    templateBase: located.templateBase,
  };
}

/** Recognizes each distribution by its evidence on the node, and unsupported operating systems by their names. */
async function crossCheck(host: Host, declared: Declared): Promise<void> {
  const release = (await readIfThere(host, "/etc/os-release"))?.toString("utf8");
  const system = release && /^ID="?([^"\n]*)"?$/m.exec(release)?.[1];
  const [, reason] = Object.entries(unsupported).find(([id]) => id === system) ?? [];
  if (reason !== undefined) throw new Refusal("host-unsupported", reason);

  for (const other of Object.values(distributions)) {
    const found = await firstThere(host, other.evidence);
    if (other.name === declared.name) {
      if (found === undefined && other.evidence.length > 0) {
        throw new Refusal(
          "distribution-mismatch",
          `The install spec says distribution.name = "${declared.name}", but this node has no ${other.evidence.join(" or ")}. Set distribution.name to what the node runs ("containerd" for plain containerd), or take the node out of the group.`,
        );
      }
    } else if (found !== undefined) {
      throw new Refusal(
        "distribution-mismatch",
        `The install spec says distribution.name = "${declared.name}", but this node runs ${other.name}: ${found} exists. Set distribution.name to "${other.name}".`,
      );
    }
  }
}

const unsupported: Readonly<Record<string, string>> = {
  talos:
    "This node runs Talos, which has no systemd and takes containerd's configuration only from its machine configuration. Add the handler there, or use another operating system.",
  bottlerocket:
    "This node runs Bottlerocket, which generates containerd's configuration from its API and mounts it read-only. Use another operating system for confidential nodes.",
  cos: "This node runs Container-Optimized OS, which discards changes to /etc at each boot and runs no program from a writable disk. Use another node image.",
};

async function findUnit(
  host: Host,
  declared: Declared,
  distribution: Distribution,
): Promise<{ name: string; file: UnitFile | undefined }> {
  const candidates = declared.unit === undefined ? distribution.units : ([withSuffix(declared.unit)] as const);
  const found: { name: string; file: UnitFile }[] = [];
  for (const name of candidates) {
    const file = await readUnit(host, name);
    if (file !== undefined) found.push({ name, file });
  }
  if (found.length > 1) {
    // A server that was once an agent has both units: the running one counts.
    for (const one of found) {
      if ((await host.run("systemctl", ["is-active", "--quiet", one.name])).code === 0) return one;
    }
  }
  if (found[0] !== undefined) return found[0];
  if ((await readUnit(host, "crio.service")) !== undefined) {
    throw new Refusal(
      "cri-o",
      "This node runs CRI-O (crio.service), not containerd. contrast-runtime configures containerd only: take the node out of the group.",
    );
  }
  // The file tree of a plan may contain nothing but configuration.
  if (!(await hasSystemd(host)) && declared.containerdVersion !== undefined) {
    return { name: candidates[0], file: undefined };
  }
  throw new Refusal(
    "unit-missing",
    `This node has no unit ${candidates.join(" or ")}. Set distribution.unit to the systemd unit that runs containerd; nodes without systemd are not supported.`,
  );
}

const withSuffix = (unit: string): string => (unit.endsWith(".service") ? unit : `${unit}.service`);

/** Whether the node was booted by systemd. */
const hasSystemd = async (host: Host): Promise<boolean> => (await host.stat("/run/systemd/system")) !== undefined;

function checkKillMode(unit: string, file: UnitFile | undefined): void {
  if (file === undefined || file.killMode === "process") return;
  throw new Refusal(
    "kill-mode",
    `${file.path}: KillMode is ${file.killMode}, so a restart of ${unit} kills every pod on this node. Set KillMode=process in a drop-in (systemctl edit ${unit}), as containerd's own unit has it.`,
  );
}

async function findBinary(
  host: Host,
  declared: Declared,
  distribution: Distribution,
  unit: UnitFile | undefined,
): Promise<{ binary: string | undefined; version: string }> {
  const started = unit?.execStart.find((word) => /(^|\/)containerd$/.test(word));
  const candidates = distribution.binaries.length > 0 ? distribution.binaries : [started ?? "/usr/bin/containerd"];
  for (const candidate of candidates) {
    const { code, stdout } = await host.run(candidate, ["--version"], { timeoutMs: 10_000 });
    const version = code === 0 ? versionInOutput(stdout) : undefined;
    if (version === undefined) continue;
    return { binary: candidate, version };
  }
  if (declared.containerdVersion !== undefined) return { binary: undefined, version: declared.containerdVersion };
  throw new Refusal(
    "containerd-missing",
    `No containerd answers at ${candidates.join(" or ")}. Set distribution.unit to the unit that starts it, or, to plan on a copy of a node's files, distribution.containerdVersion.`,
  );
}

function socketOf(distribution: Distribution, unit: UnitFile | undefined): string {
  const socket = flagValue(unit?.execStart ?? [], "a", "address") ?? distribution.socket;
  if (isPath(socket)) return socket;
  throw new Refusal(
    "socket-path-unknown",
    `${unit?.path} starts containerd with --address ${socket}, which is not an absolute path. Set distribution.socket to the absolute path that containerd really uses.`,
  );
}

/** Whether a flag's value is a path that depends on no variable and on no working directory. */
const isPath = (flag: string): boolean => flag.startsWith("/") && !flag.includes("$");

type Target = Pick<Located, "kind" | "file" | "configuration" | "templateBase">;

async function findEdited(
  host: Host,
  declared: Declared,
  { name, edited }: Distribution,
  unit: UnitFile | undefined,
  version: string,
): Promise<Target> {
  const root = async (path: string): Promise<Target> => {
    if (!isPath(path)) {
      throw new Refusal(
        "configuration-path-unknown",
        `${unit?.path} starts containerd with --config ${path}, which is not an absolute path. Set distribution.configPath to the absolute path that containerd really uses.`,
      );
    }
    const file = await writable(host, await host.realpath(path));
    return { kind: "root", file, configuration: path, templateBase: undefined };
  };
  if (declared.configPath !== undefined) return await root(declared.configPath);
  if (edited.kind === "root") return await root(flagValue(unit?.execStart ?? [], "c", "config") ?? edited.file);

  const { configuration } = edited;
  const bytes = await readIfThere(host, configuration);
  if (bytes === undefined) {
    throw new Refusal(
      "configuration-not-rendered",
      `${configuration} is not there: ${name} has not rendered containerd's configuration yet. Start it once, then run again.`,
    );
  }
  const document = parseDocument(decode(bytes, configuration), configuration);
  if (edited.kind === "drop-in") {
    await checkImported(host, name, edited.root, configuration);
    return { kind: "drop-in", file: edited.file, configuration, templateBase: undefined };
  }
  const rendered = Number(at(document, ["version"]) ?? 1);
  const forVersion = edited.byVersion.find(({ from }) => rendered >= from);
  if (forVersion === undefined) {
    throw new Refusal(
      "configuration-not-rendered",
      `${configuration} has version ${rendered}, for which ${name} has no template. Upgrade ${name}.`,
    );
  }
  const { template, dropIn } = forVersion;
  // containerd 1.x lets a drop-in replace a plugin's whole section, so there we edit the template.
  const mayDropIn = dropIn !== undefined && parseContainerdVersion(version).newestConfiguration > 2;
  if (mayDropIn && importsOf(document, configuration).some((pattern) => importMatches(pattern, dropIn))) {
    return { kind: "drop-in", file: dropIn, configuration, templateBase: undefined };
  }
  const file = await ownName(host, template);
  if (edited.templateBase === undefined && (await host.stat(file)) === undefined) {
    throw new Refusal(
      "template-missing",
      `${template}, from which ${name} renders its configuration, is missing. Reinstall ${name}.`,
    );
  }
  return { kind: "template", file, configuration, templateBase: edited.templateBase };
}

/**
 * The path that survives an upgrade: a parent folder may be a link that each refresh of a snap points elsewhere, to a
 * copy of the file that includes our block. A link is followed only if it is the file itself.
 */
async function ownName(host: Host, path: string): Promise<string> {
  const target = await host.realpath(path);
  const beside = posix.join(await host.realpath(dirname(path)), posix.basename(path));
  return target === beside ? path : target;
}

async function checkImported(
  host: Host,
  name: string,
  root: { file: string; firstLine: string },
  configuration: string,
): Promise<void> {
  const bytes = await readIfThere(host, root.file);
  const text = bytes === undefined ? "" : decode(bytes, root.file);
  if (text.split(/\r?\n/, 1)[0]?.trim() !== root.firstLine) {
    throw new Refusal(
      "configuration-not-managed",
      `${root.file} does not start with "${root.firstLine}", so ${name} neither manages it nor reads drop-ins. Restore that first line to let ${name} manage the file again, and move your own settings to a drop-in.`,
    );
  }
  if (!importsOf(parseDocument(text, root.file), root.file).includes(configuration)) {
    throw new Refusal(
      "configuration-not-imported",
      `${root.file} does not import ${configuration}, so no drop-in reaches containerd. Restart ${name} so that it rewrites the file, or upgrade it.`,
    );
  }
}

/** Refuses file systems that distributions mount read-only by design, and paths that are not regular files. */
async function writable(host: Host, file: string): Promise<string> {
  if (/^\/(usr|snap|nix)\//.test(file)) {
    throw new Refusal(
      "configuration-read-only",
      `containerd reads ${file}, which belongs to the operating system and must not be changed. Copy it to /etc/containerd/config.toml, start containerd with --config /etc/containerd/config.toml, and set distribution.configPath to it.`,
    );
  }
  const kind = /^\/(dev|proc|sys)\//.test(file) ? "other" : ((await host.stat(file))?.kind ?? "file");
  if (kind !== "file") {
    throw new Refusal(
      "configuration-not-a-file",
      `${file} is a ${kind === "other" ? "device, pipe or socket" : kind}, but must be containerd's configuration file. Start containerd with --config and a file, or correct distribution.configPath.`,
    );
  }
  return file;
}

async function firstThere(host: Host, paths: readonly string[]): Promise<string | undefined> {
  for (const path of paths) if ((await host.stat(path)) !== undefined) return path;
  return undefined;
}
