import { spawnSync } from "node:child_process";
import { appendFileSync } from "node:fs";
import { environmentOf, type Options } from "../../node-installer/commands/context.ts";
import { exitCodeOf } from "../../node-installer/commands/exit-codes.ts";
import { type Cri, openCri } from "../../node-installer/containerd/cri.ts";
import { gateTimeouts } from "../../node-installer/containerd/gate.ts";
import type { Host } from "../../node-installer/host/host.ts";
import { createNodeHost } from "../../node-installer/host/node-host.ts";
import { converge } from "../../node-installer/install/converge.ts";
import { containerdOn } from "../../node-installer/install/daemon.ts";
import { createLog } from "../../node-installer/install/log.ts";
import { readSpec } from "../../node-installer/install/read-spec.ts";
import { steps } from "../../node-installer/install/steps.ts";

/**
 * The installer's `install` with a hand inside: a program of its own that runs on a node in the real one's place. Every
 * step, every call that changes the node and every call of its CRI is a point, named after what it does; before or
 * after one of them the process kills itself, or a shell command runs (a foreign writer's, say).
 */
export interface Fault {
  point: string;
  /** Of several points of that name; the first is 1. */
  occurrence: number;
  when: "before" | "after";
  /** Shell, run while the installer stands still. */
  command?: string;
  /** The process goes on; else it is killed. */
  survives?: boolean;
}
export interface FaultyRun {
  spec: string;
  payloads: string;
  fault?: Fault;
  /** A file for the names of all points that were passed, a line each. */
  record?: string;
}

const { spec: specFile, payloads, fault, record } = JSON.parse(process.argv[2] ?? "") as FaultyRun;
const passed = new Map<string, number>();

async function point<T>(name: string, action: () => Promise<T>): Promise<T> {
  // Times and process ids are another run's when the point is asked for.
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
    // Also after what failed: a rollback begins there.
    strike("after");
  }
}

/** What the calls that change something are called by. The lock is not one of them, and programs are told by their words. */
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
    // The path that changes is the second one where bytes move.
    const path = (args: unknown[]) => args[method === "rename" || method === "copyPayloadFile" ? 1 : 0];
    wrapped[method] = (...args: unknown[]) => point(`${verb} ${path(args)}`, () => call(...args));
  }
  wrapped.run = (...[command, args, options]: Parameters<Host["run"]>) =>
    point(`run ${[command.split("/").at(-1), ...args].join(" ")}`, () => host.run(command, args, options));
  return wrapped as unknown as Host;
}

function pointedCri(cri: Cri): Cri {
  const entries = Object.entries(cri).map(([name, call]) =>
    name === "close"
      ? [name, call]
      : [
          name,
          (...args: unknown[]) =>
            point(`cri ${name}`, () => (call as (...words: unknown[]) => Promise<unknown>)(...args)),
        ],
  );
  return Object.fromEntries(entries) as Cri;
}

// Long enough to tell a CRI that stays from one that does not, and short where it is waited for a hundred times.
gateTimeouts.stableMs = 500;

for (const step of steps) {
  const { apply } = step;
  step.apply = (work) => point(`step ${step.name}`, () => apply(work));
}

const write = (text: string) => void process.stdout.write(text);
const options: Options = {
  spec: specFile,
  hostRoot: "/",
  payloads,
  json: false,
  retry: false,
  deep: false,
  kubernetes: false,
  bundle: undefined,
  output: undefined,
  print: write,
  printError: write,
};
const spec = await readSpec(specFile);
const host = pointed(createNodeHost({ root: "/" }));
const environment = await environmentOf(spec, host, createLog(host, spec.spec.group, write), options);
const daemon = containerdOn(host, spec.spec.distribution, async (socket) => pointedCri(openCri(socket)));
try {
  await converge({ ...environment, daemon });
} catch (error) {
  process.stderr.write(`${(error as Error).message}\n`);
  process.exitCode = exitCodeOf(error);
} finally {
  daemon.close();
}
