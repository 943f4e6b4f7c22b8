import { Refusal } from "../../runtime/refusal.ts";
import type { Host } from "../host/host.ts";
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
}

/** How long to wait for systemd. A start that takes longer continues, and the gate looks at the outcome. */
const restartTimeoutMs = 120_000;

export async function unitState(host: Host, unit: string): Promise<UnitState> {
  const properties = "ActiveState,SubState,Result,NRestarts,InvocationID";
  const { code, stdout, stderr } = await host.run("systemctl", ["show", unit, `--property=${properties}`], {
    timeoutMs: 10_000,
  });
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
  };
}

/** Called before anything is written: at the restart itself it would be too late to refuse. */
export async function requireSystemd(host: Host, { unit }: Located): Promise<void> {
  try {
    await unitState(host, unit);
  } catch (error) {
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
 * systemctl cannot be run at all. A distribution that watches its drop-ins restarts containerd itself.
 */
export async function restartUnit(host: Host, { unit, restart: verb }: Located): Promise<void> {
  if (verb === "itself") return;
  // A unit that failed, or is about to be restarted, may have reached its start limit.
  if ((await unitState(host, unit)).active !== "active") await host.run("systemctl", ["reset-failed", unit]);
  const { code, stderr } = await host.run("systemctl", ["restart", unit], { timeoutMs: restartTimeoutMs });
  if (code === 127) throw new Error(`systemctl restart ${unit} could not be run: ${stderr.trim()}`);
}
