import type { Host } from "../host/host.ts";
import type { Reporter } from "../kubernetes/reporter.ts";

/** How long kubelet gets to call the node ready again, and when its silence says that nothing changed. */
export interface NodeGateTimeouts {
  totalMs: number;
  quietMs: number;
  pollMs: number;
}

/**
 * Kubelet writes a changed condition within ten seconds (new runtime handlers of containerd 2 are such a change), an
 * unchanged one every five minutes only; of a kubelet that died the control plane says so after 40 to 50 s. So a minute
 * without news is good news.
 */
export const nodeGateTimeouts: NodeGateTimeouts = { totalMs: 120_000, quietMs: 60_000, pollMs: 1_000 };

/**
 * The gate's last part, for a node that was ready before: waits until kubelet says of a time after `since` that it still
 * is. What is wrong, as a sentence without an end, or undefined. An API server that does not answer proves nothing.
 */
export async function nodeGate(
  host: Host,
  reporter: Reporter,
  since: Date,
  { totalMs, quietMs, pollMs }: NodeGateTimeouts = nodeGateTimeouts,
): Promise<string | undefined> {
  const started = host.uptime();
  for (;;) {
    const node = await reporter.nodeReady();
    const waited = host.uptime() - started;
    if (node?.ready !== false && (isNews(node?.heartbeat, since) || waited >= quietMs)) return undefined;
    if (node?.ready === false && waited >= totalMs) {
      return `the node was Ready before, and is not ${totalMs / 1000} s after containerd came back (${node.reason})`;
    }
    await host.delay(pollMs);
  }
}

/** Both times are of this machine's clock, the heartbeat's without its fraction of a second. */
const isNews = (heartbeat: Date | undefined, since: Date): boolean => heartbeat !== undefined && heartbeat > since;
