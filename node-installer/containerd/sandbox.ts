import { randomUUID } from "node:crypto";
import { startMarginSeconds } from "../../runtime/guest-start.ts";
import { listed } from "../../runtime/printable.ts";
import type { Host } from "../host/host.ts";
import type { Cri, Sandbox } from "./cri.ts";
import type { HandlerEntry } from "./entry.ts";

export interface VerifyTimeouts {
  callMs: number;
  /** How long to keep trying to remove a sandbox. */
  removeMs: number;
  /** How long containerd may take to notice that a shim has ended. */
  exitMs: number;
}

const verifyTimeouts: VerifyTimeouts = { callMs: 30_000, removeMs: 15_000, exitMs: 10_000 };

/** For a runtime whose configuration does not say how long it waits. */
const usualDialSeconds = 120;

/** What a sandbox that ran our shim has shown. */
export interface Proof {
  /** How long it took to start. */
  seconds: number;
  /** What of it could not be removed, in words. */
  leftOver: string[];
}

/**
 * The kubelet stops every sandbox that it did not start itself, within seconds: it may be gone before we look at it, on a
 * busy node again and again, which says nothing about the handler.
 */
const attempts = 10;

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
  dialSeconds = usualDialSeconds,
  timeouts: VerifyTimeouts = verifyTimeouts,
): Promise<Proof> {
  for (let attempt = 1; ; attempt += 1) {
    const { shims, ready, seconds, leftOver } = await startAndLook(host, cri, handler, dialSeconds, timeouts);
    if (shims.includes(entry.runtimePath)) return { seconds, leftOver };
    if (shims.length === 0 && !ready && attempt < attempts) continue;
    const found =
      shims.length > 0
        ? `it runs ${listed(shims)}`
        : ready
          ? "no process was started for it"
          : `it was stopped ${attempts} times before its process was seen, as kubelet does with sandboxes that it does not know. Try again when the node is less busy`;
    throw new Error(`a sandbox of handler ${handler} does not run the shim ${entry.runtimePath}: ${found}`);
  }
}

interface Sight extends Proof {
  /** The programs that ran as the shim of the sandbox. */
  shims: string[];
  /** Whether it was still ready after they were looked for. */
  ready: boolean;
}

async function startAndLook(
  host: Host,
  cri: Cri,
  handler: string,
  dialSeconds: number,
  timeouts: VerifyTimeouts,
): Promise<Sight> {
  const uid = randomUUID();
  const config = {
    metadata: { ...metadata, uid },
    hostname: metadata.name,
    dnsConfig: { options: ["ndots:1"] },
    labels: {},
    linux: { cgroupParent: `/${metadata.name}` },
  };
  const began = host.uptime();
  let sight: Omit<Sight, "leftOver">;
  try {
    const known = new Set(await host.readDirectory("/proc"));
    const running = cri.runSandbox(config, handler, (dialSeconds + startMarginSeconds) * 1000);
    running.catch(() => undefined); // Told below, also if looking fails first.
    const seen = await shimsMeanwhile(host, known, running);
    const id = await running;
    const seconds = Math.round((host.uptime() - began) / 1000);
    const shims = programsOf(seen, id);
    sight = { ...(shims.length > 0 ? { shims, ready: true } : await look(host, cri, id, timeouts)), seconds };
  } catch (error) {
    // The start is what failed: what cannot be removed after it is not worth another message.
    await removeOwn(host, cri, uid, timeouts).catch(() => undefined);
    await removeCgroups(host);
    throw new Error(startFailure(handler, error, dialSeconds), { cause: error });
  }
  await removeOwn(host, cri, uid, timeouts);
  return { ...sight, leftOver: await removeCgroups(host) };
}

/**
 * The shims that appear while a sandbox is started. A VM takes its time, and the kubelet stops the sandbox within a second
 * or two after that: on a slow node always before anybody has looked.
 */
async function shimsMeanwhile(host: Host, known: Set<string>, running: Promise<unknown>): Promise<Shim[]> {
  const seen: Shim[] = [];
  for (let started = false; !started; ) {
    started = await Promise.race([running.then(() => true), host.delay(lookMs).then(() => false)]);
    seen.push(...(await shimsOf(host, known)));
  }
  return seen;
}

/** Often enough for the slow ones; the quick ones are seen afterwards. */
const lookMs = 500;

/**
 * containerd learns that a shim has ended from its exit, and for a moment after that still says that its sandbox is ready:
 * only one that stays ready without a process never had one.
 */
async function look(
  host: Host,
  cri: Cri,
  id: string,
  { callMs, exitMs }: VerifyTimeouts,
): Promise<Pick<Sight, "shims" | "ready">> {
  const began = host.uptime();
  for (;;) {
    const shims = programsOf(await shimsOf(host), id);
    const sandboxes = await cri.listSandboxes(callMs);
    const ready = sandboxes.some((sandbox) => sandbox.id === id && sandbox.ready);
    if (shims.length > 0 || !ready || host.uptime() - began >= exitMs) return { shims, ready };
    await host.delay(200);
  }
}

/** A guest that does not come up, in the words of either runtime: those of a dead connection. */
const noAnswer = /timed out connecting to (vsock|hybrid|unix)|grpc server is working|vsock: failed to connect/i;
const whereToLook = "Look at the lines of kata and qemu in the journal of containerd's unit on the node";

/** Where the message ends that a person understands: an error of the guest's own goes on with addresses and causes. */
const backtrace = /\s*(Stack backtrace:|\n\s+0: <unknown>).*$/s;

function startFailure(handler: string, error: unknown, dialSeconds: number): string {
  const message = error instanceof Error ? error.message : String(error);
  const said = message.replace(backtrace, "").replace(/\s+/g, " ").trim();
  const subject = `a sandbox of handler ${handler} cannot run`;
  if (noAnswer.test(said))
    return (
      `${subject}: the VM was started, but its guest did not answer within ${dialSeconds} s (dial_timeout): its kernel or its root file system does not come up. ` +
      `${whereToLook}. containerd says: ${said}`
    );
  return backtrace.test(message)
    ? `${subject}: its guest came up, and its agent refused: ${said}. ${whereToLook}`
    : `${subject}: ${said}`;
}

/** The sandbox of one attempt. Its id may be unknown, if containerd did not answer in time. */
async function removeOwn(host: Host, cri: Cri, uid: string, timeouts: VerifyTimeouts): Promise<void> {
  for (const sandbox of await cri.listSandboxes(timeouts.callMs)) {
    if (sandbox.metadata.uid === uid) await removeSandbox(host, cri, sandbox.id, timeouts);
  }
}

/**
 * Removes what earlier attempts left, such as one that a power loss ended, of whatever handler. Called before containerd's
 * file is edited. Returns what could not be removed: each attempt has its own uid, so nothing depends on it.
 */
export async function removeStaleSandboxes(
  host: Host,
  cri: Cri,
  timeouts: VerifyTimeouts = verifyTimeouts,
): Promise<string[]> {
  const problems: string[] = [];
  for (const sandbox of (await cri.listSandboxes(timeouts.callMs)).filter(isOurs)) {
    await removeSandbox(host, cri, sandbox.id, timeouts).catch((error: unknown) => {
      problems.push(`sandbox ${sandbox.id}: ${error instanceof Error ? error.message : String(error)}`);
    });
  }
  return [...problems, ...(await removeCgroups(host))];
}

const cgroups = "/sys/fs/cgroup";

/**
 * The cgroups below which the sandbox was. On version 2 they are one tree, on version 1 one for each controller. Kata
 * leaves its own behind: where kubelet is the parent, it removes the whole tree, and here we are.
 */
async function removeCgroups(host: Host): Promise<string[]> {
  const names = await host.readDirectory(cgroups);
  const problems: string[] = [];
  for (const path of [cgroups, ...names.map((name) => `${cgroups}/${name}`)].map(
    (each) => `${each}/${metadata.name}`,
  )) {
    if ((await host.stat(path))?.kind !== "directory") continue;
    await removeCgroup(host, path).catch((error: unknown) => problems.push(`${path}: ${(error as Error).message}`));
  }
  return problems;
}

/** Its files are the kernel's and go with it; of a process that has just ended, it keeps the directory for a moment. */
async function removeCgroup(host: Host, path: string, patience = 10): Promise<void> {
  for (const name of await host.readDirectory(path)) {
    if ((await host.stat(`${path}/${name}`))?.kind === "directory")
      await removeCgroup(host, `${path}/${name}`, patience);
  }
  try {
    await host.remove(path);
  } catch (error) {
    if (patience === 0 || (error as NodeJS.ErrnoException).code !== "EBUSY") throw error;
    await host.delay(200);
    await removeCgroup(host, path, patience - 1);
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

interface Shim {
  /** The sandbox's id. */
  sandbox: string;
  program: string;
}

/**
 * The programs that run as shims: containerd starts each with `-id <sandbox>`. A process chooses its arguments
 * itself, and a pod that learns of the sandbox may name it in its own: only processes of the host's PID namespace count,
 * where no pod starts any, unless it has `hostPID`. That is the kernel's word and anybody's to read. What a process
 * executes (running.ts) would say less here: whoever mounts the runtime's directory can execute the very shim.
 * Processes that are `known` are not looked at; shims that were seen become known.
 */
async function shimsOf(host: Host, known?: Set<string>): Promise<Shim[]> {
  const shims: Shim[] = [];
  for (const pid of await host.readDirectory("/proc")) {
    if (!/^\d+$/.test(pid) || known?.has(pid)) continue;
    const words = (await ofProcess(host, pid, "cmdline")).split("\0");
    const [program] = words;
    const sandbox = words.includes("-id") ? words[words.indexOf("-id") + 1] : undefined;
    if (program === undefined || sandbox === undefined) continue;
    if (!isHosts(await ofProcess(host, pid, "status"))) continue;
    shims.push({ sandbox, program });
    known?.add(pid);
  }
  return shims;
}

const programsOf = (shims: readonly Shim[], id: string): string[] =>
  shims.filter(({ sandbox }) => sandbox === id).map(({ program }) => program);

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
