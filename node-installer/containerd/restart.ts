import { Refusal } from "../../runtime/refusal.ts";
import { type Host, ifInTime, unlessSlow } from "../host/host.ts";
import type { Located } from "./locate.ts";

/** A systemd unit as systemd sees it now. */
export interface UnitState {
  /** "active", "activating", "failed", "inactive", … */
  active: string;
  /** "running", "auto-restart", … */
  sub: string;
  /** How it ended last: "success", "exit-code", "timeout", … */
  result: string;
  /** Restarts by systemd itself since somebody last started the unit. */
  restarts: number;
  /** New for every start. */
  invocation: string;
  /** When its main process started, in microseconds since the machine did; undefined: unknown, or there is none. */
  startedMicroseconds: number | undefined;
}

/** How long to wait for systemd. A start that takes longer continues, and the gate looks at the outcome. */
const restartTimeoutMs = 120_000;

export async function unitState(host: Host, unit: string): Promise<UnitState> {
  const properties = "ActiveState,SubState,Result,NRestarts,InvocationID,ExecMainStartTimestampMonotonic";
  const { code, stdout, stderr } = await host.run("systemctl", ["show", unit, `--property=${properties}`]);
  if (code !== 0) throw new Error(`systemctl show ${unit} failed with exit code ${code}: ${stderr.trim()}`);
  const values = new Map(stdout.split("\n").map((line) => [line.split("=", 1)[0], line.slice(line.indexOf("=") + 1)]));
  // Old releases of systemd leave out what they do not know.
  const value = (name: string): string => values.get(name) ?? "unknown";
  return {
    active: value("ActiveState"),
    sub: value("SubState"),
    result: value("Result"),
    restarts: Number(values.get("NRestarts") ?? 0),
    invocation: value("InvocationID"),
    startedMicroseconds: Number(values.get("ExecMainStartTimestampMonotonic") ?? 0) || undefined,
  };
}

/** systemd runs its start, however long that takes; not: it has failed, and systemd waits before the next attempt. */
export const isStarting = ({ active, sub }: UnitState): boolean => active === "activating" && !sub.startsWith("auto-");

/**
 * When the unit's process started, by the clock that dates files, in milliseconds. Counted back from now, because systemd
 * prints times of day in the node's own words, and a clock that was set since would make them worthless.
 */
export function startTimeOf(host: Host, unit: UnitState): number | undefined {
  if (unit.startedMicroseconds === undefined) return undefined;
  const ago = host.uptime() - unit.startedMicroseconds / 1000;
  return ago < 0 ? undefined : host.now().getTime() - ago;
}

/** Less than any program needs from its restart to its first read, more than both clocks' resolution. */
const resolutionMs = 20;

/**
 * Whether the unit is starting with the file as it is: then waiting is quicker than another restart. A start that systemd
 * has had to repeat is no start to wait for.
 */
export async function isStartingWith(host: Host, { unit, file }: Located): Promise<boolean> {
  const state = await unitState(host, unit);
  if (!isStarting(state) || state.restarts > 0) return false;
  const started = startTimeOf(host, state);
  const stat = await host.stat(file);
  return started !== undefined && stat !== undefined && Number(stat.ctimeNs / 1_000_000n) + resolutionMs < started;
}

/** Called before anything is written: at the restart itself it would be too late to refuse. */
export async function requireSystemd(host: Host, { unit }: Located): Promise<void> {
  try {
    await unitState(host, unit);
  } catch (error) {
    unlessSlow(error);
    throw new Refusal(
      "systemd-unreachable",
      `This node's systemd cannot be asked about ${unit}: ${(error as Error).message}. ` +
        "The installer's pod needs root, the host's root directory, and the host's process namespace (hostPID).",
      { cause: error },
    );
  }
}

/**
 * Restarts containerd once, with the distribution's verb. The gate decides whether it came back: this throws only if
 * systemctl cannot be run at all, or systemd cannot be asked about the unit. A distribution that watches its drop-ins
 * restarts containerd itself.
 */
export async function restartUnit(host: Host, { unit, restart: verb }: Located): Promise<void> {
  if (verb === "itself") return;
  // A unit that failed, or is about to be restarted, may have reached its start limit.
  if ((await unitState(host, unit)).active !== "active") await ifInTime(host.run("systemctl", ["reset-failed", unit]));
  const done = await ifInTime(host.run("systemctl", ["restart", unit], { timeoutMs: restartTimeoutMs }));
  if (done?.code === 127) throw new Error(`systemctl restart ${unit} could not be run: ${done.stderr.trim()}`);
}
