import { randomUUID } from "node:crypto";
import { listed } from "../../runtime/printable.ts";
import type { Host } from "../host/host.ts";
import type { Cri, Sandbox } from "./cri.ts";
import type { HandlerEntry } from "./entry.ts";

export interface VerifyTimeouts {
  /** A confidential VM with a lot of memory starts slowly. */
  startMs: number;
  callMs: number;
  /** How long to keep trying to remove a sandbox. */
  removeMs: number;
}

const verifyTimeouts: VerifyTimeouts = { startMs: 180_000, callMs: 30_000, removeMs: 15_000 };

/** The kubelet stops every sandbox that it did not start itself, within seconds: it may be gone before we look at it. */
const attempts = 3;

/** Cannot clash with a pod: Kubernetes has no pod of this name in this namespace. */
const metadata = { name: "contrast-runtime-verify", namespace: "contrast-runtime-system", attempt: 0 };

/**
 * Starts a sandbox with the handler, finds its shim's process, and removes the sandbox. Configuration alone proves nothing:
 * some releases of containerd show `runtime_path` and run another shim. Throws if that does not work.
 */
export async function verifySandbox(
  host: Host,
  cri: Cri,
  { handler, entry }: HandlerEntry,
  timeouts: VerifyTimeouts = verifyTimeouts,
): Promise<void> {
  await removeSandboxes(host, cri, handler, timeouts);
  for (let attempt = 1; ; attempt += 1) {
    const { shims, ready } = await startAndLook(host, cri, handler, timeouts);
    if (shims.includes(entry.runtimePath)) return;
    if (shims.length === 0 && !ready && attempt < attempts) continue;
    const found = shims.length === 0 ? "no process was started for it" : `it runs ${listed(shims)}`;
    throw new Error(`a sandbox of handler ${handler} does not run the shim ${entry.runtimePath}: ${found}`);
  }
}

/** The programs that ran as the shim of a new sandbox, and whether it was still ready after they were looked for. */
async function startAndLook(
  host: Host,
  cri: Cri,
  handler: string,
  timeouts: VerifyTimeouts,
): Promise<{ shims: string[]; ready: boolean }> {
  const config = {
    metadata: { ...metadata, uid: randomUUID() },
    hostname: metadata.name,
    dnsConfig: { options: ["ndots:1"] },
    labels: {},
  };
  try {
    const id = await cri.runSandbox(config, handler, timeouts.startMs);
    const shims = await shimsOf(host, id);
    const sandboxes = await cri.listSandboxes(timeouts.callMs);
    return { shims, ready: sandboxes.some((sandbox) => sandbox.id === id && sandbox.state === "SANDBOX_READY") };
  } finally {
    await removeSandboxes(host, cri, handler, timeouts);
  }
}

/** Removes our sandboxes of this handler, including those left by an earlier attempt. */
async function removeSandboxes(host: Host, cri: Cri, handler: string, timeouts: VerifyTimeouts): Promise<void> {
  for (const sandbox of await cri.listSandboxes(timeouts.callMs)) {
    if (sandbox.runtimeHandler === handler && isOurs(sandbox)) await removeSandbox(host, cri, sandbox.id, timeouts);
  }
}

/** Stopping fails if the kubelet stops the same sandbox at the same time, as network plugins then find nothing to delete. */
async function removeSandbox(host: Host, cri: Cri, id: string, { callMs, removeMs }: VerifyTimeouts): Promise<void> {
  const started = host.uptime();
  for (;;) {
    try {
      await cri.stopSandbox(id, callMs);
      await cri.removeSandbox(id, callMs);
      return;
    } catch (error) {
      if (host.uptime() - started >= removeMs) throw error;
      await host.delay(500);
    }
  }
}

const isOurs = (sandbox: Sandbox): boolean =>
  sandbox.metadata.name === metadata.name && sandbox.metadata.namespace === metadata.namespace;

/**
 * The programs that run as a sandbox's shim: containerd starts each with `-id <sandbox>`. A process chooses its arguments
 * itself, and a pod that learns of the sandbox may name it in its own: only processes of the host's PID namespace count,
 * where no pod starts any, unless it has `hostPID`. That is the kernel's word and anybody's to read. What a process
 * executes (running.ts) would say less here: whoever mounts the runtime's directory can execute the very shim.
 */
async function shimsOf(host: Host, sandbox: string): Promise<string[]> {
  const programs: string[] = [];
  for (const pid of await host.readDirectory("/proc")) {
    if (!/^\d+$/.test(pid)) continue;
    const words = (await ofProcess(host, pid, "cmdline")).split("\0");
    const program = words[0];
    if (program === undefined || words[words.indexOf("-id") + 1] !== sandbox) continue;
    if (isHosts(await ofProcess(host, pid, "status"))) programs.push(program);
  }
  return programs;
}

/** The kernel lists a process's PID in every namespace that sees it, from that of the /proc that is read inwards. */
const isHosts = (status: string): boolean => /^NSpid:\t\d+$/m.test(status);

/** Empty for a process that has ended meanwhile. */
async function ofProcess(host: Host, pid: string, file: string): Promise<string> {
  try {
    return (await host.readFile(`/proc/${pid}/${file}`)).toString("utf8");
  } catch {
    return "";
  }
}

/**
 * The pods on this node that use a handler, as `namespace/name`, including those whose sandbox has ended: without the
 * handler, containerd may not be able to remove it.
 */
export async function sandboxesUsing(cri: Cri, handler: string, timeoutMs = verifyTimeouts.callMs): Promise<string[]> {
  const sandboxes = await cri.listSandboxes(timeoutMs);
  return sandboxes
    .filter((sandbox) => sandbox.runtimeHandler === handler && !isOurs(sandbox))
    .map(({ metadata: { namespace, name } }) => `${namespace}/${name}`)
    .sort();
}
