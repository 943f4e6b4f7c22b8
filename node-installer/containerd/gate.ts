import type { Host } from "../host/host.ts";
import type { Cri } from "./cri.ts";
import { CriError } from "./cri-error.ts";
import type { HandlerEntry } from "./entry.ts";
import type { Located } from "./locate.ts";
import { isStarting, type UnitState, unitState } from "./restart.ts";
import { foreignChanges, mismatches, networkLoss, readServing, reasons, type ServingState } from "./serving.ts";

/** What a daemon must show after a restart. */
export interface Expectation {
  /** Served with exactly these options. */
  entries: readonly HandlerEntry[];
  /** Ours before; must no longer be served. */
  removed: readonly string[];
  /** Everything else must be as it was here; `undefined`: nothing is known about it. */
  before: ServingState | undefined;
}

export interface GateTimeouts {
  /** How long systemd may take to start it: it ends a start that takes too long itself, by the unit's own limit. */
  startMs: number;
  /** How long the daemon then gets until everything holds: on nodes with many pods, that can take five minutes. */
  totalMs: number;
  /** How long everything must hold, and how long a problem that waiting cannot solve must persist. */
  stableMs: number;
  /** Limit of one CRI call. */
  callMs: number;
  pollMs: number;
}

export interface GateResult {
  ok: boolean;
  /** Sentences without a full stop; empty if ok. */
  problems: string[];
}

/** Twice the longest start, for a change and its rollback, is less than the guard on the host waits (guard.sh). */
export const gateTimeouts: GateTimeouts = {
  startMs: 720_000,
  totalMs: 300_000,
  stableMs: 2_000,
  callMs: 10_000,
  pollMs: 200,
};

/**
 * Waits until the unit is active and stays active, the CRI answers and is ready, and our handlers are served with our
 * options and all others as before. Never throws because of what it finds: the caller decides by the result.
 */
export async function daemonGate(
  host: Host,
  located: Located,
  cri: Cri,
  expectation: Expectation,
  timeouts: GateTimeouts = gateTimeouts,
): Promise<GateResult> {
  const began = host.uptime();
  let up = began;
  let previous: Look | undefined;
  let since = began;
  for (;;) {
    const look = await lookAt(host, located, cri, expectation, timeouts);
    const now = host.uptime();
    if (previous === undefined || !sameLook(previous, look)) since = now;
    previous = look;
    if (look.conclusive && (look.keepsRestarting || now - since >= timeouts.stableMs))
      return { ok: look.problems.length === 0, problems: look.problems };
    // As long as systemd is starting it, nothing has gone wrong: a restart would only begin the same start anew.
    if (look.unit !== undefined && isStarting(look.unit) && now - began < timeouts.startMs) up = now;
    if (now - up >= timeouts.totalMs || now - began >= timeouts.startMs) {
      const problems =
        look.problems.length > 0 ? look.problems : [`${located.unit} does not stay up: it keeps restarting`];
      const seconds = Math.round((now - began) / 1000);
      return { ok: false, problems: problems.map((problem) => `${problem}, after ${seconds} s`) };
    }
    await host.delay(timeouts.pollMs);
  }
}

/** After this many restarts by systemd itself, a unit that is down is assumed not to come up. */
const hopeless = 2;

interface Look {
  problems: string[];
  /** Waiting will not change this: all is well, or the daemon runs with another configuration. */
  conclusive: boolean;
  /** A unit that restarts so quickly that no two looks are alike. */
  keepsRestarting: boolean;
  unit: UnitState | undefined;
}

const sameLook = (a: Look, b: Look): boolean =>
  a.problems.join() === b.problems.join() &&
  a.unit?.invocation === b.unit?.invocation &&
  a.unit?.restarts === b.unit?.restarts;

async function lookAt(
  host: Host,
  { unit: name, restart }: Located,
  cri: Cri,
  { entries, removed, before }: Expectation,
  { callMs }: GateTimeouts,
): Promise<Look> {
  let unit: UnitState | undefined;
  try {
    unit = await unitState(host, name);
    if (unit.active !== "active") {
      const again = unit.restarts > 0 ? `, restarted ${unit.restarts} times` : "";
      const problem = `${name} is ${unit.active} (${unit.sub}, last result ${unit.result}${again})`;
      const conclusive = unit.active === "failed" || unit.restarts >= hopeless;
      return { problems: [problem], conclusive, keepsRestarting: unit.restarts > hopeless, unit };
    }
    const state = await readServing(cri, callMs);
    if (!state.runtimeReady) {
      const problem = `containerd's runtime is not ready (${reasons(state)})`;
      return { problems: [problem], conclusive: false, keepsRestarting: false, unit };
    }
    const ours = new Set([...entries.map(({ handler }) => handler), ...removed]);
    const loaded = mismatches(state, { entries, removed });
    const others = before === undefined ? [] : foreignChanges(before, state, ours);
    const network = before === undefined ? [] : networkLoss(before, state);
    const different = loaded.length + others.length > 0;
    return {
      problems: [...loaded, ...others, ...network],
      // The network comes back by itself; what a daemon has loaded does not change any more, but where the distribution
      // restarts containerd itself, the old one still answers for a while.
      conclusive: different ? restart === "systemctl" : network.length === 0,
      keepsRestarting: false,
      unit,
    };
  } catch (error) {
    const conclusive = error instanceof CriError && error.withoutPlugin;
    const problem = error instanceof Error ? error.message : String(error);
    return { problems: [problem], conclusive, keepsRestarting: false, unit };
  }
}
