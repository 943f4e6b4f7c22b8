import { posix } from "node:path";
import { type Distribution, distributions, withData } from "../../runtime/distributions.ts";
import { Refusal } from "../../runtime/refusal.ts";
import type { InstallSpec } from "../../runtime/spec.ts";
import { readIfThere } from "../host/files.ts";
import type { Host } from "../host/host.ts";
import { type AgentSettings, readAgent } from "./agent.ts";
import { isPath } from "./started.ts";
import { readUnit, type UnitFile } from "./unit.ts";

type Declared = InstallSpec["distribution"];

export interface Recognized {
  /** With its data where the node has it. */
  distribution: Distribution;
  /** With its suffix. */
  unit: string;
  /** undefined: a file tree without one. */
  unitFile: UnitFile | undefined;
  /** Which containerd another distribution on this node was told to use, and by which file. */
  endpoint: { name: string; value: string; by: string } | undefined;
  /** What the program that starts containerd reads when it starts. */
  agentFiles: readonly string[];
}

/** Refuses a node that runs something else than the install spec says, and operating systems that are not supported. */
export async function recognize(host: Host, declared: Declared): Promise<Recognized> {
  const release = (await readIfThere(host, "/etc/os-release"))?.toString("utf8");
  const system = release && /^ID="?([^"\n]*)"?$/m.exec(release)?.[1];
  const [, reason] = Object.entries(unsupported).find(([id]) => id === system) ?? [];
  if (reason !== undefined) throw new Refusal("host-unsupported", reason);

  const distribution = distributions[declared.name];
  const endpoint = await otherDistributions(host, distribution);
  const units = await unitsOf(host, declared.unit === undefined ? distribution.units : [withSuffix(declared.unit)]);
  const hasAgent = distribution.agent !== undefined && units.length > 0;
  if (!hasAgent && distribution.evidence.length > 0 && !(await hasAny(host, distribution.evidence))) {
    const missing = [...(distribution.agent === undefined ? [] : distribution.units), ...distribution.evidence];
    throw new Refusal(
      "distribution-mismatch",
      `The install spec says distribution.name = "${declared.name}", but this node has no ${missing.join(" or ")}. Set distribution.name to what the node runs ("containerd" for plain containerd), or distribution.unit if its unit has another name, or take the node out of the group.`,
    );
  }
  const { name: unit, file: unitFile } = await chooseUnit(host, declared, distribution, units);
  refuseOtherAgent(distribution, unitFile);
  const { data, endpoint: own, files = [] } = await readAgent(host, distribution, unitFile);
  if (own !== undefined && isElsewhere(distribution, own.value)) {
    throw new Refusal(
      "external-containerd",
      `${declared.name} on this node uses a containerd that it does not start, ${own.value} (${own.by}), so it renders no configuration. Set distribution.name to "containerd", and distribution.unit if that containerd's unit is not containerd.service.`,
    );
  }
  if (data !== undefined && !isPath(data.value)) {
    throw new Refusal(
      "data-directory-unknown",
      `${data.by} gives ${declared.name} the data directory ${data.value}, which is not an absolute path without variables, so containerd's files cannot be found. Write the absolute path there.`,
    );
  }
  return {
    distribution: data === undefined ? distribution : withData(distribution, posix.resolve(data.value)),
    unit,
    unitFile,
    endpoint,
    agentFiles: files,
  };
}

/** Whether an endpoint is not the socket of the distribution's own containerd. */
const isElsewhere = ({ socket }: Distribution, endpoint: string) => endpoint.replace(/^unix:\/\//, "") !== socket;

/** Refuses if another one runs here, unless that uses a containerd that it does not start. */
async function otherDistributions(host: Host, declared: Distribution): Promise<Recognized["endpoint"]> {
  let endpoint: Recognized["endpoint"];
  const others = Object.values(distributions).filter(({ name }) => name !== declared.name);
  // Units first: k3s and rke2 have one socket.
  for (const evidence of [unitEvidence, otherEvidence]) {
    for (const other of others) {
      const found = await evidence(host, other, declared);
      if (found === undefined) continue;
      if (declared.edited.kind === "root" && found.endpoint !== undefined) {
        endpoint = { name: other.name, ...found.endpoint };
        continue;
      }
      throw new Refusal(
        "distribution-mismatch",
        `The install spec says distribution.name = "${declared.name}", but this node runs ${other.name}: ${found.path} exists. Set distribution.name to "${other.name}".`,
      );
    }
  }
  return endpoint;
}

interface Evidence {
  path: string;
  endpoint: AgentSettings["endpoint"];
}

/** The unit of a distribution's agent, unless systemd says that it is not active. */
async function unitEvidence(host: Host, distribution: Distribution): Promise<Evidence | undefined> {
  if (distribution.agent === undefined) return undefined;
  for (const { name, file } of await unitsOf(host, distribution.units)) {
    if ((await activity(host, name)) === inactive) continue;
    const { endpoint } = await readAgent(host, distribution, file);
    return { path: file.path, endpoint: endpoint && isElsewhere(distribution, endpoint.value) ? endpoint : undefined };
  }
  return undefined;
}

/**
 * An agent's directories may be left from an earlier installation: only with a socket they show that it runs, by a unit of
 * another name.
 */
async function otherEvidence(
  host: Host,
  { evidence, agent, socket, units }: Distribution,
  declared: Distribution,
): Promise<Evidence | undefined> {
  if (agent !== undefined) {
    if (socket === declared.socket || (await unitsOf(host, units)).length > 0) return undefined;
    if (!(await hasAny(host, [socket]))) return undefined;
  }
  for (const path of evidence) if (await hasAny(host, [path])) return { path, endpoint: undefined };
  return undefined;
}

/** Exit code of `systemctl is-active` for a unit that is not. */
const inactive = 3;

const activity = async (host: Host, unit: string): Promise<number> =>
  (await host.run("systemctl", ["is-active", "--quiet", unit])).code;

async function hasAny(host: Host, paths: readonly string[]): Promise<boolean> {
  for (const path of paths) if ((await host.stat(path)) !== undefined) return true;
  return false;
}

const unsupported: Readonly<Record<string, string>> = {
  talos:
    "This node runs Talos, which has no systemd and takes containerd's configuration only from its machine configuration. Add the handler there, or use another operating system.",
  bottlerocket:
    "This node runs Bottlerocket, which generates containerd's configuration from its API and mounts it read-only. Use another operating system for confidential nodes.",
  cos: "This node runs Container-Optimized OS, which discards changes to /etc at each boot and runs no program from a writable disk. Use another node image.",
};

interface Unit {
  name: string;
  file: UnitFile;
}

async function unitsOf(host: Host, names: readonly string[]): Promise<Unit[]> {
  const found: Unit[] = [];
  for (const name of names) {
    const file = await readUnit(host, name);
    if (file !== undefined) found.push({ name, file });
  }
  return found;
}

async function chooseUnit(
  host: Host,
  declared: Declared,
  distribution: Distribution,
  found: readonly Unit[],
): Promise<{ name: string; file: UnitFile | undefined }> {
  if (found.length > 1) {
    // A server that was once an agent has both units: the running one counts.
    for (const one of found) if ((await activity(host, one.name)) === 0) return one;
  }
  if (found[0] !== undefined) return found[0];
  if ((await readUnit(host, "crio.service")) !== undefined) {
    throw new Refusal(
      "cri-o",
      "This node runs CRI-O (crio.service), not containerd. contrast-runtime configures containerd only: take the node out of the group.",
    );
  }
  const names = declared.unit === undefined ? distribution.units : ([withSuffix(declared.unit)] as const);
  // The file tree of a plan may contain nothing but configuration.
  if (!(await hasSystemd(host)) && declared.containerdVersion !== undefined) return { name: names[0], file: undefined };
  throw new Refusal(
    "unit-missing",
    `This node has no unit ${names.join(" or ")}. Set distribution.unit to the systemd unit that runs containerd; nodes without systemd are not supported.`,
  );
}

const withSuffix = (unit: string): string => (unit.endsWith(".service") ? unit : `${unit}.service`);

/** Whether the node was booted by systemd. */
const hasSystemd = async (host: Host): Promise<boolean> => (await host.stat("/run/systemd/system")) !== undefined;

/** A unit of another distribution's agent, or a containerd's own where an agent starts containerd. */
function refuseOtherAgent(distribution: Distribution, unit: UnitFile | undefined): void {
  const basename = (word: string) => word.replace(/^.*\//, "");
  const programs = new Set(unit?.execStart.slice(0, 3).map(basename));
  const own = distribution.agent?.program;
  if (unit === undefined || (own !== undefined && programs.has(own))) return;
  const other = Object.values(distributions).find(({ agent }) => agent !== undefined && programs.has(agent.program));
  if (other !== undefined) {
    throw new Refusal(
      "distribution-mismatch",
      `The install spec says distribution.name = "${distribution.name}", but ${unit.path} starts ${other.name}, which renders containerd's configuration. Set distribution.name to "${other.name}".`,
    );
  }
  if (own !== undefined && programs.has("containerd")) {
    throw new Refusal(
      "unit-of-another-program",
      `distribution.unit is the unit of ${unit.path}, which starts containerd, but on ${distribution.name} nodes ${own} starts it. Set distribution.unit to the unit that starts ${own}, or leave it out.`,
    );
  }
}
