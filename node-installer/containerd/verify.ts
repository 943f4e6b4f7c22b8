import { randomUUID } from "node:crypto";
import type { Host } from "../host/host.ts";
import type { Cri, Sandbox } from "./cri.ts";
import type { HandlerEntry } from "./tables.ts";

export interface VerifyTimeouts {
  /** A confidential VM with much memory takes its time. */
  startMs: number;
  callMs: number;
}

export const verifyTimeouts: VerifyTimeouts = { startMs: 180_000, callMs: 30_000 };

/** Kubernetes' own namespaces cannot clash with it: no pod has this name there. */
const metadata = { name: "contrast-runtime-verify", namespace: "contrast-runtime-system", attempt: 0 };

/**
 * Starts a sandbox with the handler and finds its shim's process, then removes it: configuration alone proves nothing,
 * for there are releases of containerd that show `runtime_path` and run another shim. Throws where that does not work.
 */
export async function verifySandbox(
  host: Host,
  cri: Cri,
  { handler, entry }: HandlerEntry,
  { startMs, callMs }: VerifyTimeouts = verifyTimeouts,
): Promise<void> {
  await removeSandboxes(cri, handler, callMs);
  const config = {
    metadata: { ...metadata, uid: randomUUID() },
    hostname: metadata.name,
    dnsConfig: { options: ["ndots:1"] },
    labels: {},
  };
  try {
    const id = await cri.runSandbox(config, handler, startMs);
    const shims = await shimsOf(host, id);
    if (!shims.includes(entry.runtimePath)) {
      const found = shims.length === 0 ? "no process was started for it" : `it runs ${shims.join(", ")}`;
      throw new Error(`a sandbox of handler ${handler} does not run the shim ${entry.runtimePath}: ${found}`);
    }
  } finally {
    await removeSandboxes(cri, handler, callMs);
  }
}

/** Those of this handler, also what an earlier try has left. */
async function removeSandboxes(cri: Cri, handler: string, timeoutMs: number): Promise<void> {
  for (const sandbox of await cri.listSandboxes(timeoutMs)) {
    if (sandbox.runtimeHandler !== handler || !isOurs(sandbox)) continue;
    await cri.stopSandbox(sandbox.id, timeoutMs);
    await cri.removeSandbox(sandbox.id, timeoutMs);
  }
}

const isOurs = (sandbox: Sandbox): boolean =>
  sandbox.metadata.name === metadata.name && sandbox.metadata.namespace === metadata.namespace;

/** The programs that run as shim of a sandbox: containerd starts each with `-id <sandbox>`. */
async function shimsOf(host: Host, sandbox: string): Promise<string[]> {
  const programs: string[] = [];
  for (const pid of await host.readDirectory("/proc")) {
    if (!/^\d+$/.test(pid)) continue;
    const words = await commandLine(host, pid);
    const program = words[0];
    if (program !== undefined && words[words.indexOf("-id") + 1] === sandbox) programs.push(program);
  }
  return programs;
}

/** Processes come and go while one looks. */
async function commandLine(host: Host, pid: string): Promise<string[]> {
  try {
    return (await host.readFile(`/proc/${pid}/cmdline`)).toString("utf8").split("\0");
  } catch {
    return [];
  }
}

/**
 * The pods on this node that use a handler, as `namespace/name`; also those whose sandbox has ended, for without its
 * handler containerd may not be able to remove it.
 */
export async function sandboxesUsing(cri: Cri, handler: string, timeoutMs = verifyTimeouts.callMs): Promise<string[]> {
  const sandboxes = await cri.listSandboxes(timeoutMs);
  return sandboxes
    .filter((sandbox) => sandbox.runtimeHandler === handler && !isOurs(sandbox))
    .map(({ metadata: { namespace, name } }) => `${namespace}/${name}`)
    .sort();
}
