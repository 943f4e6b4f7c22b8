import { statSync } from "node:fs";
import { Refusal } from "../../runtime/refusal.ts";
import type { InstallSpec } from "../../runtime/spec.ts";
import type { Located } from "../containerd/locate.ts";
import type { Host } from "../host/host.ts";
import { createNodeHost } from "../host/node-host.ts";
import { containerdOn } from "../install/daemon.ts";
import type { Environment } from "../install/environment.ts";
import { createLog, type Log } from "../install/log.ts";
import { type ReadSpec, readSpec } from "../install/read-spec.ts";
import { type Cluster, withoutKubernetes } from "../kubernetes/connect.ts";

/** The command line's options, for every command. */
export interface Options {
  spec: string;
  hostRoot: string;
  payloads: string;
  json: boolean;
  retry: boolean;
  deep: boolean;
  kubernetes: boolean;
  bundle: string | undefined;
  output: string | undefined;
  /** stdout and stderr, replaceable by tests. */
  print: (text: string) => void;
  printError: (text: string) => void;
}

export function openHost(options: Options): Host {
  let isDirectory = false;
  try {
    isDirectory = statSync(options.hostRoot).isDirectory();
  } catch {
    // Refused below.
  }
  if (!isDirectory) {
    throw new Refusal(
      "bad-arguments",
      `--host-root ${options.hostRoot} is not a directory: give the node's root, such as / or /host.`,
    );
  }
  return createNodeHost({ root: options.hostRoot });
}

export interface Opened extends ReadSpec {
  host: Host;
  environment: Environment;
}

/**
 * Opens spec, host and containerd, with the log on stdout, for the commands that change something. `override`: what the
 * command wants instead of what the spec says.
 */
export async function openEnvironment(options: Options, override: Partial<InstallSpec> = {}): Promise<Opened> {
  const { spec: written, specHash } = await readSpec(options.spec);
  const spec = { ...written, ...override };
  const host = openHost(options);
  const log = createLog(host, spec.group, options.print);
  return { spec, specHash, host, environment: await environmentOf({ spec, specHash }, host, log, options) };
}

export type Connect = (spec: InstallSpec, host: Host, log: Log) => Promise<Cluster>;
const disconnected: Connect = async (_spec, host) => withoutKubernetes(() => host.now());

export async function environmentOf(
  { spec, specHash }: ReadSpec,
  host: Host,
  log: Log,
  options: Options,
  connect = disconnected,
): Promise<Environment> {
  return {
    host,
    daemon: containerdOn(host, spec.distribution),
    spec,
    specHash,
    payloads: options.payloads,
    cluster: await connect(spec, host, log),
    log,
    checkHost: (located) => requireHost(host, spec, located, log),
  };
}

async function requireHost(host: Host, spec: InstallSpec, located: Located, log: Log): Promise<void> {
  if (spec.runtimes.length === 0) return;
  const { hostFindings } = await import("../install/host-findings.ts");
  const findings = await hostFindings(host, located, spec);
  for (const finding of findings) log.warn("host-finding", { ...finding });
  const [error, ...others] = findings.filter(({ severity }) => severity === "error");
  if (error === undefined) return;
  const errors = [error, ...others];
  throw new Refusal(
    others.length === 0 ? error.code : "host-unfit",
    `This host cannot run the runtimes in the spec: ${errors.map(({ message }) => message).join(" ")}`,
  );
}
