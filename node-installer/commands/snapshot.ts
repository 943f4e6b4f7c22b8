import { writeFile } from "node:fs/promises";
import { hostname } from "node:os";
import { validateImports } from "../containerd/validate.ts";
import { type Bundle, recordingHost } from "../host/bundle.ts";
import type { Host } from "../host/host.ts";
import { withoutSecrets } from "../host/secrets.ts";
import { containerdOn, type Daemon } from "../install/daemon.ts";
import { sentence } from "../install/log.ts";
import { runtimesDirectory } from "../install/payload.ts";
import { planFor } from "../install/read-only.ts";
import { readSpec } from "../install/read-spec.ts";
import type { InstallSpec } from "../runtime/spec.ts";
import { type Options, openHost } from "./context.ts";

export async function snapshot(options: Options): Promise<number> {
  const { spec } = await readSpec(options.spec);
  const bundle = `${JSON.stringify(await takeSnapshot(openHost(options), spec, process.env.NODE_NAME ?? hostname()), null, 1)}\n`;
  if (options.output === undefined) options.print(bundle);
  else await writeFile(options.output, bundle, { mode: 0o600 });
  return 0;
}

/** Runs plan and host check on a host that records what they read. A refusal is a fact about the node like any other. */
export async function takeSnapshot(host: Host, spec: InstallSpec, node: string): Promise<Bundle> {
  const calls: Bundle["calls"] = {};
  const users: Bundle["users"] = {};
  let serving: Bundle["serving"];
  const recording = recordingHost(host, calls);
  const daemon = containerdOn(recording, spec.distribution);
  const listening: Daemon = {
    ...daemon,
    async observe(located, timeoutMs) {
      const state = await daemon.observe(located, timeoutMs);
      serving = JSON.parse(JSON.stringify(state));
      return state;
    },
    async sandboxesUsing(located, handler) {
      const pods = await daemon.sandboxesUsing(located, handler);
      users[handler] = pods;
      return pods;
    },
  };
  const ignore = (error: unknown) => {
    calls[`note ${Object.keys(calls).length}`] = withoutSecrets(sentence(error));
  };
  await recordUsers(listening, spec).catch(ignore);
  await recordImports(recording, daemon).catch(ignore);
  await planFor(recording, listening, spec).catch(ignore);
  await readHostFacts(recording, daemon).catch(ignore);
  await recording.freeSpace(runtimesDirectory).catch(ignore);
  for (const path of ["/etc/os-release", "/proc/version"]) await recording.readFile(path).catch(() => undefined);
  await recording.readDirectory(runtimesDirectory);
  const bundle = { schemaVersion: 1 as const, takenAt: host.now().toISOString(), node, calls, users };
  return serving === undefined ? bundle : { ...bundle, serving };
}

/** A later spec may no longer list a handler: its plan then asks which pods use it. */
async function recordUsers(daemon: Daemon, spec: InstallSpec): Promise<void> {
  const located = await daemon.locate();
  for (const { handler } of spec.runtimes) await daemon.sandboxesUsing(located, handler);
}

/** A plan that edits nothing does not read the imports, but one for a later spec may have to. */
async function recordImports(host: Host, daemon: Daemon): Promise<void> {
  const located = await daemon.locate();
  await validateImports(host, located, (await daemon.read(located)).configuration, []);
}

async function readHostFacts(host: Host, daemon: Daemon): Promise<void> {
  const located = await daemon.locate();
  await host.run("systemctl", [
    "show",
    located.unit,
    "--property=Id,FragmentPath,DropInPaths,ActiveState,SubState,NRestarts,KillMode",
  ]);
  const { hostFacts } = await import("../install/host-findings.ts");
  await hostFacts(host, located);
}
