import { installerName, policyNames, stateLabel } from "../../runtime/names.ts";
import { type CountingOptions, countingApi } from "./counting-api.ts";
import { simulatedInstaller } from "./simulated-installer.ts";
import { seededRandom, VirtualClock } from "./virtual-clock.ts";

export interface Simulation extends Partial<Pick<CountingOptions, "away" | "mostPerSecond" | "latencyMs">> {
  nodes: number;
  atOnce: number;
  /** Milliseconds from the ticket to the commit. */
  holdMs: number;
  /** Milliseconds within which all nodes come. Default: 5,000. */
  comeWithinMs?: number;
  /** The nodes come with the group's startup taint, to a group of which as many others are Ready already. */
  join?: { ready: number };
  /** Virtual hours in which the nodes go on after that. */
  steadyHours?: number;
  seed?: number;
}

const group = "g";
const namespace = "contrast-runtime-system";
const handler = "contrast-cc-metal-qemu-snp-00000001";
const specHash = "0".repeat(64);
const startupTaint = "example.com/not-ready";

/** The installers of a group and their API server, in one process and by one virtual clock. */
export async function simulateFleet(simulation: Simulation) {
  const { nodes, atOnce, holdMs, comeWithinMs = 5_000, steadyHours = 0, join } = simulation;
  const clock = new VirtualClock();
  const random = seededRandom(simulation.seed ?? 1);
  const api = countingApi({ clock, latencyMs: 10, staleMs: 100, ...simulation });
  api.enforce(Object.values(policyNames(group)));
  let [between, mostBetween, rolledOutAt, longest] = [0, 0, 0, 0];
  /** As its controller keeps it, a second behind. */
  const daemonSet = {
    metadata: { name: installerName(group), uid: "daemon-set" },
    status: { desiredNumberScheduled: nodes + (join?.ready ?? 0), numberReady: join?.ready ?? 0 },
  };
  api.memory.objects.set(`/apis/apps/v1/namespaces/${namespace}/daemonsets/${installerName(group)}`, daemonSet);
  const isReady = async () => {
    await clock.delay(1_000);
    daemonSet.status.numberReady += 1;
  };

  const install = async (index: number) => {
    const nodeName = `node-${index}`;
    api.memory.objects.set(`/api/v1/nodes/${nodeName}`, {
      metadata: { name: nodeName, uid: `node-uid-${index}` },
      ...(join !== undefined && { spec: { taints: [{ key: startupTaint, effect: "NoSchedule" }] } }),
    });
    await clock.delay(comeWithinMs * random());
    const came = clock.time;
    const installer = simulatedInstaller({
      ...{ api: api.client(nodeName), group, namespace, nodeName, atOnce, handler, specHash, random },
      startupTaint: join && startupTaint,
      now: () => new Date(clock.time),
      uptime: () => clock.time,
      delay: (ms) => clock.delay(ms),
    });
    await installer.prepare();
    await installer.takeTicket();
    between += 1;
    mostBetween = Math.max(mostBetween, between);
    await clock.delay(holdMs);
    await installer.passGate();
    between -= 1;
    await installer.succeed();
    rolledOutAt = Math.max(rolledOutAt, clock.time);
    longest = Math.max(longest, clock.time - came);
    void isReady();
    await installer.flush();
    return installer;
  };

  const all = Array.from({ length: nodes }, (_, index) => install(index));
  const installers = await clock.until(Promise.all(all));
  const rollout = { ...api.total, byKind: { ...api.total.byKind } };
  const peak = Math.max(...api.perSecond.values());
  if (steadyHours > 0) await clock.until(Promise.all(installers.map((one) => one.stay(steadyHours * 3_600_000))));
  const states: Record<string, number> = {};
  for (const object of api.memory.objects.values()) {
    const labels = (object.metadata.labels ?? {}) as Record<string, string>;
    const state = labels[stateLabel(group)];
    if (state !== undefined) states[state] = (states[state] ?? 0) + 1;
  }
  return {
    states,
    mostBetween,
    seconds: rolledOutAt / 1000,
    /** From a node's coming to its handler's label, of the slowest. */
    longestSeconds: longest / 1000,
    idealSeconds: ((nodes / atOnce) * holdMs) / 1000,
    peakPerSecond: peak,
    rollout,
    perNode: (total: number) => total / nodes,
    mostOfOneNode: Math.max(...[...api.ofNode.values()].map(({ requests }) => requests)),
    steady: {
      requests: api.total.requests - rollout.requests,
      writes: api.total.writes - rollout.writes,
    },
    steadyHours,
  };
}
