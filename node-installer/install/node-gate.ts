import type { Host } from "../host/host.ts";
import type { Reporter } from "../kubernetes/reporter.ts";

/** How long kubelet gets to report the node as Ready again, and after how long silence means that nothing changed. */
export interface NodeGateTimeouts {
  totalMs: number;
  quietMs: number;
  /** The first pause between two looks; later ones are longer, up to ten times as long. */
  pollMs: number;
}

/**
 * kubelet writes a changed condition within ten seconds (new runtime handlers in containerd 2 are such a change), but an
 * unchanged one only every five minutes; the control plane reports a dead kubelet after 40 to 50 s. So a minute without
 * news is good news.
 */
const nodeGateTimeouts: NodeGateTimeouts = { totalMs: 120_000, quietMs: 60_000, pollMs: 1_000 };

/**
 * The gate's last part, for a node that was Ready before: waits until kubelet reports that it still is, at a time after
 * `since`. Returns what is wrong, without a full stop, or undefined. An API server that does not answer proves nothing.
 */
export async function nodeGate(
  host: Host,
  reporter: Reporter,
  since: Date,
  { totalMs, quietMs, pollMs }: NodeGateTimeouts = nodeGateTimeouts,
): Promise<string | undefined> {
  const started = host.uptime();
  for (let pauseMs = pollMs; ; pauseMs = Math.min(1.3 * pauseMs, 10 * pollMs)) {
    const node = await reporter.nodeReady();
    const waited = host.uptime() - started;
    if (node?.ready !== false && (isNews(node?.heartbeat, since) || waited >= quietMs)) return undefined;
    if (node?.ready === false && waited >= totalMs) {
      return `the node was Ready before, but is not ${totalMs / 1000} s after containerd came back (${node.reason})`;
    }
    await host.delay(Math.min(pauseMs, Math.max(pollMs, (node?.ready === false ? totalMs : quietMs) - waited)));
  }
}

/** Both times come from this machine's clock; the heartbeat has no fractions of a second. */
const isNews = (heartbeat: Date | undefined, since: Date): boolean => heartbeat !== undefined && heartbeat > since;
