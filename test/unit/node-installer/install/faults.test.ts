import { expect, test } from "vitest";
import { converge } from "../../../../node-installer/install/converge.ts";
import { RollbackFailed, RolledBack } from "../../../../node-installer/install/undo.ts";
import type { InstallSpec, RuntimeSpec } from "../../../../runtime/spec.ts";
import { configPath, MemoryNode } from "../../../fakes/memory-node.ts";

/**
 * Fault injection: every call that changes the host, and every program and probe, fails once; and the process is killed
 * once before it, once after it, and with the loss of what was not synced to the disk: all of it, and each part alone, as
 * a disk may write the rest in any order. Then the host is
 * left alone (the guard's script runs, no installer), and finally the installer is started again. Whenever things have
 * settled, the node must serve, with the old bytes or the new ones.
 */
type Fault = "fails" | "killed before" | "killed after" | "power lost";
const faults: Fault[] = ["fails", "killed before", "killed after", "power lost"];

interface Scenario {
  name: string;
  /** Brings the node to where the change begins, and returns what should change. */
  arrange: (node: MemoryNode) => Promise<InstallSpec>;
  /** Handlers that are served if all went well. */
  wanted: (spec: InstallSpec) => string[];
}

const first = (node: MemoryNode) => node.runtime("00000001");
const scenarios: Scenario[] = [
  {
    name: "first installation of two handlers",
    arrange: async (node) => node.spec([first(node), node.runtime("00000002")]),
    wanted: (spec) => spec.runtimes.map(({ handler }) => handler),
  },
  {
    name: "one handler takes another's place",
    async arrange(node) {
      await converge(node.environment(node.spec([first(node)])));
      return node.spec([node.runtime("00000002")]);
    },
    wanted: (spec) => spec.runtimes.map(({ handler }) => handler),
  },
  {
    name: "a handler that breaks the CRI",
    async arrange(node) {
      await converge(node.environment(node.spec([first(node)])));
      const bad: RuntimeSpec = node.runtime("0000000b");
      node.breaks.add(bad.handler);
      return node.spec([first(node), bad]);
    },
    wanted: (spec) => spec.runtimes.slice(0, 1).map(({ handler }) => handler),
  },
  {
    name: "uninstall",
    async arrange(node) {
      await converge(node.environment(node.spec([first(node)])));
      return node.spec([]);
    },
    wanted: () => [],
  },
];

const attempt = (node: MemoryNode, spec: InstallSpec): Promise<unknown> =>
  converge(node.environment(spec)).then(
    () => undefined,
    (error: unknown) => error,
  );

/**
 * One run with a fault at the n-th point; without one, the fault-free run. Returns the points that it came to, and what was
 * not synced at the end.
 */
async function trial(
  scenario: Scenario,
  fault?: { at: number; kind: Fault; lost?: string },
): Promise<{ points: string[]; unsynced: string[] }> {
  const node = new MemoryNode();
  try {
    const spec = await scenario.arrange(node);
    const { host } = node;
    const old = host.text(configPath);
    host.settle();
    host.points.length = 0;
    let count = 0;
    host.onPoint = (_point, when) => {
      if (fault === undefined) return;
      if (when === "before") count += 1;
      if (count !== fault.at) return;
      if (fault.kind === "fails" && when === "before") throw Object.assign(new Error("EIO: injected"), { code: "EIO" });
      if (fault.kind === "killed before" && when === "before") host.kill();
      if (when === "after" && (fault.kind === "killed after" || fault.kind === "power lost")) host.kill();
    };
    const error = await attempt(node, spec);
    const failedForGood = host.alive && (error instanceof RolledBack || error instanceof RollbackFailed);
    const points = [...host.points];
    const unsynced = host.unsynced();
    host.revive();

    // No installer runs: only the host, at boot before containerd is started.
    if (fault?.kind === "power lost") {
      host.losePower(fault.lost === undefined ? undefined : [fault.lost]);
      node.boot();
    }
    node.runGuard();
    settled(node, old, spec, scenario);

    // The pod comes back; a broken change may be tried once more before it counts as failed.
    for (let run = 0; run < 3; run += 1) await attempt(node, spec);
    settled(node, old, spec, scenario);
    const wanted = scenario.wanted(spec).toSorted();
    if (!failedForGood) expect(node.served?.toSorted()).toEqual(wanted);
    const leftovers = Object.keys(host.tree()).filter((path) => /guard|staged|staging|candidate/.test(path));
    expect(leftovers).toEqual([]);
    return { points, unsynced };
  } finally {
    node.close();
  }
}

/** The invariant: the CRI answers, file and daemon agree on old or new, and the files they name exist. */
function settled(node: MemoryNode, old: string | undefined, spec: InstallSpec, scenario: Scenario): void {
  const file = node.host.text(configPath);
  expect(node.served, "the CRI must serve").toBeDefined();
  const inFile = [...(file ?? "").matchAll(/runtimes\.(contrast-[a-z0-9-]+)\]/g)]
    .map(([, handler = ""]) => handler)
    .toSorted();
  expect(node.served?.toSorted(), "daemon and file must agree").toEqual(inFile);
  for (const handler of inFile) {
    expect(node.host.text(`/opt/edgeless/${handler}/bin/containerd-shim-contrast-cc-v2`)).toBe(
      `shim of ${handler.slice(-8)}`,
    );
  }
  if (file !== old) expect(inFile, "old bytes or the new state").toEqual(scenario.wanted(spec).toSorted());
}

/** The gate looks many times; a fault at its third look shows nothing that the first two did not. */
function worthTrying(points: string[]): number[] {
  const seen = new Map<string, number>();
  return points.flatMap((point, index) => {
    const times = (seen.get(point) ?? 0) + 1;
    seen.set(point, times);
    return times <= 2 || !/^(probe|run systemctl show)/.test(point) ? [index + 1] : [];
  });
}

for (const scenario of scenarios) {
  test(`every fault during: ${scenario.name}`, { timeout: 3_600_000 }, async () => {
    const { points } = await trial(scenario);
    const seen = new Set<string>();
    for (const at of worthTrying(points)) {
      for (const kind of faults) {
        const { unsynced } = await named(`${kind} at ${at} (${points[at - 1]})`, trial(scenario, { at, kind }));
        if (kind !== "power lost" || unsynced.length < 2 || seen.has(unsynced.join())) continue;
        seen.add(unsynced.join());
        for (const lost of unsynced.filter((path) => !path.startsWith("/var/log"))) {
          await named(`${kind} at ${at} (${points[at - 1]}) without ${lost}`, trial(scenario, { at, kind, lost }));
        }
      }
    }
  });
}

const named = <T>(name: string, running: Promise<T>): Promise<T> =>
  running.catch((error: unknown) => {
    throw new Error(`${name}: ${(error as Error).message}`, { cause: error });
  });
