import { writeFile } from "node:fs/promises";
import { hostname } from "node:os";
import { type InstallSpec, runtimeDirectory } from "../../runtime/spec.ts";
import { validateImports } from "../containerd/validate.ts";
import { type Bundle, type Calls, recordingHost } from "../host/bundle.ts";
import { type Host, unlessSlow } from "../host/host.ts";
import { pristinePath, readJournal } from "../host/journal.ts";
import { distrusted } from "../host/owners.ts";
import { containerdOn, type Daemon } from "../install/daemon.ts";
import { planFor } from "../install/dry-run.ts";
import { hostFacts } from "../install/host-findings.ts";
import { observeDisk, observeHost } from "../install/observe.ts";
import { runtimesDirectory } from "../install/payload.ts";
import { readSpec } from "../install/read-spec.ts";
import { redaction, servedOfOurs } from "../install/redaction.ts";
import { type Options, openHost } from "./context.ts";

export async function snapshot(options: Options): Promise<number> {
  const { spec } = await readSpec(options.spec);
  const bundle = `${JSON.stringify(await takeSnapshot(openHost(options), spec, process.env.NODE_NAME ?? hostname()), null, 1)}\n`;
  if (options.output === undefined) options.print(bundle);
  else await writeFile(options.output, bundle, { mode: 0o600 });
  return 0;
}

/**
 * Runs plan and host check on a host that records what of their readings may leave it. What fails on the node fails alike
 * where the bundle is read, so that failures are no part of it. Throws `TooSlow`: nobody could tell there what is missing.
 */
export async function takeSnapshot(
  host: Host,
  spec: InstallSpec,
  node: string,
  daemonOn: (host: Host) => Daemon = (recording) => containerdOn(recording, spec.distribution),
): Promise<Bundle> {
  const calls: Calls = {};
  const users: Bundle["users"] = {};
  const processes: Bundle["processes"] = {};
  let serving: Bundle["serving"];
  const redacting = redaction(spec.runtimes.map(({ kataConfig }) => kataConfig.content));
  const recording: Host = {
    ...recordingHost(host, calls, redacting),
    // Asked of the node itself, so that of its processes only their number is recorded.
    async runningBelow(directory) {
      const found = await host.runningBelow(directory);
      processes[directory] = found.length;
      return found;
    },
  };
  const daemon = daemonOn(recording);
  const listening: Daemon = {
    ...daemon,
    async serving(located, timeoutMs) {
      const state = await daemon.serving(located, timeoutMs);
      serving = servedOfOurs(state);
      return state;
    },
    async sandboxesUsing(located, handler) {
      const pods = await daemon.sandboxesUsing(located, handler);
      users[handler] = pods.length;
      return pods;
    },
  };
  await recordUsers(recording, listening, spec).catch(unlessSlow);
  await recordImports(recording, daemon).catch(unlessSlow);
  // A plan for no runtime asks nothing about the directory where a later spec puts its runtimes.
  await distrusted(recording, [runtimesDirectory], runtimesDirectory).catch(unlessSlow);
  await planFor(recording, listening, spec).catch(unlessSlow);
  await daemon
    .locate()
    .then((located) => hostFacts(recording, located))
    .catch(unlessSlow);
  await recording.freeSpace(runtimesDirectory).catch(unlessSlow);
  await recording.readFile(pristinePath).catch(unlessSlow);
  redacting.finish(calls);
  const pending = await anyPending(host, spec, daemonOn(host)).catch(unlessSlow);
  const bundle = { schemaVersion: 2 as const, takenAt: host.now().toISOString(), node, calls, users, processes };
  return { ...bundle, ...(serving !== undefined && { serving }), ...(pending !== undefined && { pending }) };
}

/** undefined: its containerd does not answer. */
async function anyPending(host: Host, spec: InstallSpec, daemon: Daemon): Promise<boolean | undefined> {
  const journal = await readJournal(host, spec);
  const observation = await observeHost({ daemon, spec }, journal, { criTimeoutMs: 2_000 });
  if (observation.serving === undefined) return undefined;
  return (await observeDisk({ host, daemon, spec }, observation)).pending.length > 0;
}

/** A later spec may no longer list a handler: its plan then asks what uses it. */
async function recordUsers(host: Host, daemon: Daemon, spec: InstallSpec): Promise<void> {
  for (const { handler } of spec.runtimes) await host.runningBelow(runtimeDirectory(handler));
  const located = await daemon.locate();
  for (const { handler } of spec.runtimes) await daemon.sandboxesUsing(located, handler);
}

/** A plan that edits nothing does not read the imports, but one for a later spec may have to. */
async function recordImports(host: Host, daemon: Daemon): Promise<void> {
  const located = await daemon.locate();
  await validateImports(host, located, (await daemon.read(located)).configuration, [], []);
}
