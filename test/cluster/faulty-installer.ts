import { spawnSync } from "node:child_process";
import { appendFileSync } from "node:fs";
import { exitCodeOf } from "../../node-installer/commands/exit-codes.ts";
import { type Cri, openCri } from "../../node-installer/containerd/cri.ts";
import { gateTimeouts } from "../../node-installer/containerd/gate.ts";
import type { Host } from "../../node-installer/host/host.ts";
import { createNodeHost } from "../../node-installer/host/node-host.ts";
import { converge } from "../../node-installer/install/converge.ts";
import { containerdOn } from "../../node-installer/install/daemon.ts";
import { environmentOf } from "../../node-installer/install/environment.ts";
import { createLog } from "../../node-installer/install/log.ts";
import { readSpec } from "../../node-installer/install/read-spec.ts";
import { steps } from "../../node-installer/install/steps.ts";
import { grantedTickets } from "../../node-installer/kubernetes/tickets.ts";

/**
 * The installer's `install` with fault injection: a separate program that runs on a node instead of the real one. Every
 * step, every call that changes the node and every call of its CRI is a point, named after what it does. Before or after
 * one of the points the process kills itself, or runs a shell command (a foreign writer's, for example).
 */
export interface Fault {
  point: string;
  /** Which of several points with that name; the first is 1. */
  occurrence: number;
  when: "before" | "after";
  /** A shell command, run while the installer is paused. */
  command?: string;
  /** The process continues; otherwise it is killed. */
  survives?: boolean;
}
export interface FaultyRun {
  spec: string;
  payloads: string;
  fault?: Fault;
  /** A file for the names of all points that were passed, one per line. */
  record?: string;
  /** The first look for a ticket finds another node with it: the point `wait for the ticket`. */
  waits?: boolean;
}

/** What it ends with, on the last line of standard output: a code for whoever refuses or fails, or none. */
export interface FaultyEnd {
  code?: string;
}

const { spec: specFile, payloads, fault, record, waits } = JSON.parse(process.argv[2] ?? "") as FaultyRun;
const passed = new Map<string, number>();

async function point<T>(name: string, action: () => Promise<T>): Promise<T> {
  // Names must not contain times or process IDs, which differ from run to run.
  const point = name.replace(/\.\d{8}T[\d.]+Z\./g, ".TIME.");
  const occurrence = (passed.get(point) ?? 0) + 1;
  passed.set(point, occurrence);
  if (record !== undefined) appendFileSync(record, `${point}\n`);
  const strike = (when: Fault["when"]) => {
    if (fault?.point !== point || fault.occurrence !== occurrence || fault.when !== when) return;
    if (fault.command !== undefined) spawnSync("sh", ["-ec", fault.command], { stdio: "inherit" });
    if (fault.survives !== true) process.kill(process.pid, "SIGKILL");
  };
  strike("before");
  try {
    return await action();
  } finally {
    // Also after a failed call, because a rollback begins there.
    strike("after");
  }
}

/** The names of the calls that change something. The lock is not one of them; programs are named by their command line. */
const changing = {
  makeDirectory: "mkdir",
  createFile: "write",
  rename: "rename to",
  replaceFile: "replace",
  syncDirectory: "fsync",
  remove: "remove",
  removeTree: "remove",
  copyPayloadFile: "copy to",
} as const satisfies Partial<Record<keyof Host, string>>;

function pointed(host: Host): Host {
  const wrapped = { ...host } as Record<string, unknown>;
  for (const [method, verb] of Object.entries(changing)) {
    const call = host[method as keyof typeof changing] as (...args: unknown[]) => Promise<unknown>;
    // A call that moves bytes changes its second path.
    const path = (args: unknown[]) => args[method === "rename" || method === "copyPayloadFile" ? 1 : 0];
    wrapped[method] = (...args: unknown[]) => point(`${verb} ${path(args)}`, () => call(...args));
  }
  wrapped.run = (...[command, args, options]: Parameters<Host["run"]>) =>
    point(`run ${[command.split("/").at(-1), ...args].join(" ")}`, () => host.run(command, args, options));
  return wrapped as unknown as Host;
}

function pointedCri(cri: Cri): Cri {
  const entries = Object.entries(cri).map(([name, call]) => [
    name,
    (...args: unknown[]) => point(`cri ${name}`, () => (call as (...words: unknown[]) => Promise<unknown>)(...args)),
  ]);
  return Object.fromEntries(entries) as Cri;
}

// Long enough to recognize a stable CRI, and short enough to wait for it a hundred times.
gateTimeouts.stableMs = 500;

for (const [name, step] of Object.entries(steps)) {
  const { apply } = step;
  step.apply = (attempt) => point(`step ${name}`, () => apply(attempt));
}

const end = (how: FaultyEnd) => write(`${JSON.stringify(how)}\n`);
const write = (text: string) => void process.stdout.write(text);
const spec = await readSpec(specFile);
const host = pointed(createNodeHost({ root: "/" }));
const environment = environmentOf(spec, { host, log: createLog(host, spec.spec.group, write), payloads });
if (waits) {
  let looked = false;
  environment.cluster.tickets = {
    ...grantedTickets,
    async acquire() {
      if (looked) return { held: true };
      looked = true;
      return point("wait for the ticket", async () => ({ held: false, askAgainMs: 1_000 }));
    },
  };
}
const daemon = containerdOn(host, spec.spec.distribution, async (socket) => pointedCri(openCri(socket)));
try {
  await converge({ ...environment, daemon });
  end({});
} catch (error) {
  process.stderr.write(`${(error as Error).message}\n`);
  process.exitCode = exitCodeOf(error);
  end(error instanceof Error && "code" in error ? { code: String(error.code) } : {});
}
