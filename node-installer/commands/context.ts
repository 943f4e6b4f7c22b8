import { statSync } from "node:fs";
import { Refusal } from "../../runtime/refusal.ts";
import type { InstallSpec } from "../../runtime/spec.ts";
import type { Host } from "../host/host.ts";
import { createNodeHost } from "../host/node-host.ts";
import { type Environment, environmentOf } from "../install/environment.ts";
import { createLog } from "../install/log.ts";
import { type ReadSpec, readSpec } from "../install/read-spec.ts";

/** The command line's options, for every command. */
export interface Options {
  spec: string;
  hostRoot: string;
  payloads: string;
  guestRegistry?: string | undefined;
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
  return {
    spec,
    specHash,
    host,
    environment: environmentOf(
      { spec, specHash },
      { host, log, payloads: options.payloads, guestRegistry: options.guestRegistry },
    ),
  };
}
