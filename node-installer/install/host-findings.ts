import { posix } from "node:path";
import type { InstallSpec, RuntimeSpec } from "../../runtime/spec.ts";
import type { Located } from "../containerd/locate.ts";
import { stateDirectory } from "../host/files.ts";
import type { Host } from "../host/host.ts";
import { checkHost, type Finding, gatherHostFacts, type HostFacts } from "../requirements/check-host.ts";
import { runtimesDirectory } from "./payload.ts";

/** Every directory of the host that an installation writes to. */
const writtenDirectories = ({ file }: Located): string[] => [
  runtimesDirectory,
  posix.dirname(file),
  stateDirectory,
  "/etc/systemd/system",
];

export const hostFacts = (host: Host, located: Located): Promise<HostFacts> =>
  gatherHostFacts(host, writtenDirectories(located));

/** What the host lacks for the runtimes of the spec. */
export async function hostFindings(host: Host, located: Located, spec: InstallSpec): Promise<Finding[]> {
  const requirements = spec.runtimes.map((runtime) => runtime.host);
  return checkHost(await hostFacts(host, located), requirements);
}

/** Those of the runtimes, by handler, that the host cannot run. */
export async function unfitFor(
  host: Host,
  located: Located,
  runtimes: readonly Pick<RuntimeSpec, "handler" | "host">[],
): Promise<string[]> {
  const facts = await hostFacts(host, located);
  return runtimes
    .filter((runtime) => checkHost(facts, [runtime.host]).some(({ severity }) => severity === "error"))
    .map(({ handler }) => handler);
}
