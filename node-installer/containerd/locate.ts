import type { Distribution } from "../../runtime/distributions.ts";
import { Refusal } from "../../runtime/refusal.ts";
import type { InstallSpec } from "../../runtime/spec.ts";
import { readIfThere } from "../host/files.ts";
import type { Host } from "../host/host.ts";
import { at, decode, parseDocument } from "./document.ts";
import type { EditContext } from "./edit.ts";
import { findPlace, type Place } from "./place.ts";
import { recognize } from "./recognize.ts";
import { isPath, readStarted, type Started, versionOf } from "./started.ts";
import type { UnitFile } from "./unit.ts";
import { parseContainerdVersion } from "./version.ts";

/** Where a node's containerd is, and which file makes it serve a handler. Paths are the node's. */
export interface Located extends Place {
  distribution: Distribution["name"];
  /** With its suffix: "containerd.service". */
  unit: string;
  socket: string;
  restart: Distribution["restart"];
  /** `undefined` in a file tree without one. */
  binary: string | undefined;
  /** "1.7.24" */
  version: string;
  dataDirectories: readonly string[];
  /** What whatever starts containerd reads then, besides containerd's own files. */
  agentFiles: readonly string[];
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
 *
 * @param installed the file that holds our tables already
 */
export async function locate(host: Host, declared: Declared, installed?: string): Promise<Located> {
  const { distribution, unit, unitFile, endpoint, agentFiles } = await recognize(host, declared);
  if (distribution.restart === "systemctl") checkKillMode(unit, unitFile);
  const started = distribution.edited.kind === "root" ? await readStarted(host, unitFile) : undefined;
  const { binary, version } = await findBinary(host, declared, distribution, { unit, unitFile, started });
  parseContainerdVersion(version);
  const { configPath } = declared;
  const place = await findPlace(host, distribution, started, version, { configPath, installed });
  const socket = await findSocket(host, declared, distribution, started, place);
  if (endpoint !== undefined) await requireSame(host, endpoint, { unit, socket });
  return {
    distribution: declared.name,
    ...place,
    unit,
    socket,
    restart: distribution.restart,
    binary,
    version,
    dataDirectories: distribution.dataDirectories,
    agentFiles: [...agentFiles, ...(started?.wordsFile === undefined ? [] : [started.wordsFile])],
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

function checkKillMode(unit: string, file: UnitFile | undefined): void {
  if (file === undefined || file.killMode === "process") return;
  throw new Refusal(
    "kill-mode",
    `${file.path}: KillMode is ${file.killMode}, so a restart of ${unit} kills every pod on this node. Set KillMode=process in a drop-in (systemctl edit ${unit}), as containerd's own unit has it.`,
  );
}

/** What starts containerd, as far as it is known. */
interface Starter {
  unit: string;
  unitFile: UnitFile | undefined;
  started: Started | undefined;
}

async function findBinary(
  host: Host,
  declared: Declared,
  distribution: Distribution,
  starter: Starter,
): Promise<{ binary: string | undefined; version: string }> {
  const candidates =
    distribution.binaries.length > 0 ? distribution.binaries : [starter.started?.program ?? "/usr/bin/containerd"];
  for (const candidate of candidates) {
    const version =
      (candidate === starter.started?.program ? starter.started.version : undefined) ??
      (await versionOf(host, candidate));
    if (version !== undefined) return { binary: candidate, version };
  }
  if (declared.containerdVersion !== undefined) return { binary: undefined, version: declared.containerdVersion };
  throw new Refusal(
    "containerd-missing",
    `No containerd answers at ${candidates.join(" or ")} (with --version). ${remedyOf(distribution, starter)} To plan on a copy of a node's files, set distribution.containerdVersion.`,
  );
}

/** Of a command only the program is named: its arguments may hold a token. */
function remedyOf({ name, agent, binaries }: Distribution, { unit, unitFile, started }: Starter): string {
  if (started?.program.includes("$")) {
    return `${started.by} has that from a variable which neither the unit nor its files set: give the ExecStart the program's own path (systemctl edit ${unit}).`;
  }
  if (started !== undefined)
    return `${started.by} says that ${unit} starts that program: correct the unit, or install it there.`;
  if (binaries.length > 0) {
    const data = agent === undefined ? "" : `, in its data directory ${agent.data}`;
    return `${name} has it there${data}: start ${unit} once, or look why it did not unpack it.`;
  }
  const program = unitFile?.execStart[0] ?? "nothing";
  return `${unit} starts ${program}, which does not say where containerd is: set distribution.unit to the unit that starts containerd by its program's own path.`;
}

/** From the command line, else from containerd's file, else the distribution's own. */
async function findSocket(
  host: Host,
  declared: Declared,
  distribution: Distribution,
  started: Started | undefined,
  place: Place,
): Promise<string> {
  const own: { socket: string; by: string } | undefined =
    started?.address !== undefined
      ? { socket: started.address, by: started.by }
      : distribution.agent !== undefined
        ? { socket: distribution.socket, by: `${distribution.name} starts it so` }
        : await socketInFile(host, place);
  if (own !== undefined && !isPath(own.socket) && declared.socket === undefined) {
    throw new Refusal(
      "socket-path-unknown",
      `${own.by} starts containerd with --address ${own.socket}, which is not an absolute path. Set distribution.socket to the absolute path that containerd really uses.`,
    );
  }
  const socket = await host.realpath(declared.socket ?? own?.socket ?? distribution.socket);
  if (own !== undefined && isPath(own.socket) && socket !== (await host.realpath(own.socket))) {
    throw new Refusal(
      "socket-not-listened-on",
      `distribution.socket is ${declared.socket}, but containerd listens on ${own.socket} (${own.by}). Leave distribution.socket out.`,
    );
  }
  return socket;
}

async function socketInFile(
  host: Host,
  { kind, configuration }: Place,
): Promise<{ socket: string; by: string } | undefined> {
  const bytes = kind === "root" || kind === "imported" ? await readIfThere(host, configuration) : undefined;
  if (bytes === undefined) return undefined;
  try {
    const document = parseDocument(decode(bytes, configuration), configuration);
    const socket =
      at(document, ["grpc", "address"]) ?? at(document, ["plugins", "io.containerd.server.v1.grpc", "address"]);
    return typeof socket === "string" && isPath(socket) ? { socket, by: configuration } : undefined;
  } catch (error) {
    // Said when the file is to be edited.
    if (error instanceof Refusal) return undefined;
    throw error;
  }
}

/** The kubelet of such a distribution must talk to the very containerd that is configured. */
async function requireSame(
  host: Host,
  { name, value, by }: { name: string; value: string; by: string },
  { unit, socket }: { unit: string; socket: string },
): Promise<void> {
  const path = value.replace(/^unix:\/\//, "");
  if (!isPath(path) || (await host.realpath(path)) === socket) return;
  throw new Refusal(
    "external-containerd",
    `${name} uses the containerd at ${value} (${by}), but ${unit} starts one that listens on ${socket}. Set distribution.unit to the unit of the containerd that ${name} uses.`,
  );
}
