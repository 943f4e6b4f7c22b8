import type { Host } from "../host/host.ts";
import { Refusal } from "../runtime/refusal.ts";
import type { Located } from "./locate.ts";

/** A systemd unit as systemd sees it now. */
export interface UnitState {
  /** "active", "activating", "failed", "inactive", … */
  active: string;
  /** "running", "auto-restart", … */
  sub: string;
  /** Why it ended last: "success", "exit-code", "timeout", … */
  result: string;
  /** Restarts by systemd itself since the unit was last started by somebody. */
  restarts: number;
  /** New with every start. */
  invocation: string;
}

/** How long systemd is waited for. A start that takes longer goes on by itself, and the gate looks at what becomes of it. */
const restartTimeoutMs = 120_000;

export async function unitState(host: Host, unit: string): Promise<UnitState> {
  const properties = "ActiveState,SubState,Result,NRestarts,InvocationID";
  const { code, stdout, stderr } = await host.run("systemctl", ["show", unit, `--property=${properties}`], {
    timeoutMs: 10_000,
  });
  if (code !== 0) throw new Error(`systemctl show ${unit} failed with exit code ${code}: ${stderr.trim()}`);
  const values = new Map(stdout.split("\n").map((line) => [line.split("=", 1)[0], line.slice(line.indexOf("=") + 1)]));
  return {
    active: values.get("ActiveState") ?? "unknown",
    sub: values.get("SubState") ?? "unknown",
    result: values.get("Result") ?? "unknown",
    restarts: Number(values.get("NRestarts") ?? 0),
    invocation: values.get("InvocationID") ?? "",
  };
}

/** Before anything is written: a restart that cannot be asked for would come too late to be refused. */
export async function requireSystemd(host: Host, { unit }: Located): Promise<void> {
  try {
    await unitState(host, unit);
  } catch (error) {
    throw new Refusal(
      "systemd-unreachable",
      `systemd of this node cannot be asked for ${unit}: ${(error as Error).message}. ` +
        "The installer's pod needs root, the host's root directory, and the host's process namespace (hostPID).",
      { cause: error },
    );
  }
}

/**
 * Restarts containerd once, by the distribution's verb. Whether it came back is for the gate to say: this throws only
 * where systemd cannot be asked at all. A distribution that watches its drop-ins restarts by itself.
 */
export async function restart(host: Host, { unit, restart: verb }: Located): Promise<void> {
  if (verb === "itself") return;
  // A unit that failed, or is about to be started again, may have used up its starts.
  if ((await unitState(host, unit)).active !== "active") await host.run("systemctl", ["reset-failed", unit]);
  const { code, stderr } = await host.run("systemctl", ["restart", unit], { timeoutMs: restartTimeoutMs });
  if (code === 127) throw new Error(`systemctl restart ${unit} could not be run: ${stderr.trim()}`);
}
