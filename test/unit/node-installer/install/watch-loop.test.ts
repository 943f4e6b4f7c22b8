import { afterEach, beforeEach, expect, test } from "vitest";
import { journalPath } from "../../../../node-installer/host/journal.ts";
import { converge } from "../../../../node-installer/install/converge.ts";
import { createLog } from "../../../../node-installer/install/log.ts";
import { watchLoop } from "../../../../node-installer/install/watch-loop.ts";
import { ApiError } from "../../../../node-installer/kubernetes/api.ts";
import { type Cluster, withoutKubernetes } from "../../../../node-installer/kubernetes/connect.ts";
import { Refusal } from "../../../../runtime/refusal.ts";
import type { InstallSpec } from "../../../../runtime/spec.ts";
import { adminsFile, configPath, MemoryNode } from "../../../fakes/memory-node.ts";

let node: MemoryNode;
let cluster: Cluster;
let spec: InstallSpec;
let labels: string[][];
beforeEach(() => {
  node = new MemoryNode();
  spec = node.spec([node.runtime("00000001")]);
  cluster = withoutKubernetes(() => node.host.now());
  labels = [];
  const { setServed } = cluster.reporter;
  cluster.reporter.setServed = async (handlers) => {
    labels.push([...handlers]);
    await setServed(handlers);
  };
});
afterEach(() => node.close());

const handler = () => spec.runtimes[0]?.handler ?? "";
const state = () => cluster.reporter.current()?.state;

/** Runs the loop; `onSleep` is called before each wait with its number, and ends the loop by returning true. */
async function watch(onSleep: (count: number) => boolean, read: () => InstallSpec = () => spec): Promise<void> {
  const stop = new AbortController();
  let count = 0;
  await watchLoop({
    host: node.host,
    log: createLog(node.host, spec.group, (line) => node.log.push(line)),
    cluster,
    signal: stop.signal,
    readSpec: async () => {
      const current = read();
      return { spec: current, specHash: node.environment(current).specHash };
    },
    environment: (given) => ({ ...node.environment(given.spec, cluster), signal: stop.signal }),
    async sleep(ms) {
      count += 1;
      if (onSleep(count) || count > 2_000) stop.abort();
      await node.host.delay(ms);
    },
  });
}

test("the status says how long the sandbox took to start that proved a handler", async () => {
  spec = { ...spec, verifySandbox: true };
  const shim = spec.runtimes[0]?.containerd.runtimePath ?? "";
  node.host.put("/proc/17/cmdline", `${shim}\0-id\x001\0`);
  node.host.put("/proc/17/status", "NSpid:\t17\n");
  await watch(() => state() === "ready");
  expect(cluster.reporter.current()?.reason).toBe(`Serves ${handler()}. A sandbox of ${handler()} started in 1 s.`);
  expect(cluster.metrics.sandboxSeconds).toEqual({ [handler()]: 1 });
});

test("an unreadable journal is reported, and does not end the loop", async () => {
  await node.host.makeDirectory(journalPath, 0o700);
  await watch((count) => count > 20);
  expect(state()).toBe("failed");
  expect(node.served).toEqual([]);
});

test("installs, labels after the gate, and ends without uninstalling anything", async () => {
  await watch(() => true);
  expect(node.served).toEqual([handler()]);
  expect(labels.at(-1)).toEqual([handler()]);
  expect(labels[0]).toEqual([]);
  expect(state()).toBe("ready");
});

test("follows a changed spec", async () => {
  const next = node.spec([node.runtime("00000002")]);
  let current = spec;
  await watch(
    () => {
      current = next;
      return node.served?.includes(next.runtimes[0]?.handler ?? "") ?? false;
    },
    () => current,
  );
  expect(node.served).toEqual([next.runtimes[0]?.handler]);
});

test("repairs drift of containerd's file at growing intervals: a program that keeps changing it is not fought", async () => {
  let drifts = 0;
  const began = node.host.time;
  const said: string[] = [];
  await watch(() => {
    said.push(cluster.reporter.current()?.reason ?? "");
    if (node.host.text(configPath)?.includes(handler())) {
      drifts += 1;
      node.host.put(configPath, adminsFile);
      node.start();
    }
    return node.host.time - began > 3_600_000;
  });
  expect(drifts).toBeGreaterThan(2);
  // 1, 2, 4, 8, 16 and 30 minutes apart.
  expect(drifts).toBeLessThan(9);
  expect(cluster.metrics.repairs).toBe(drifts - 1);
  expect(said.join("\n")).toMatch(/it was repaired 2 times in the last 24 hours, last at/);
});

test("a program that spoils the file every half hour ends at the day's budget, and the status says who may do it", async () => {
  const began = node.host.time;
  const { starts } = node;
  let [next, theirs] = [began + 60_000, 0];
  await watch(() => {
    node.host.time += 60_000;
    if (node.host.time >= next) {
      next += 1_800_000;
      theirs += 1;
      node.host.put(configPath, adminsFile);
      node.start();
    }
    return node.host.time - began > 12 * 3_600_000 || cluster.reporter.current()?.code === "restart-budget";
  });
  expect(node.starts - starts - theirs).toBeLessThanOrEqual(12);
  expect(cluster.reporter.current()).toMatchObject({ state: "failed", code: "restart-budget" });
  expect(cluster.reporter.current()?.reason).toMatch(/repair: 1\d\).*was last written at/);
  expect(node.served).toEqual([]);
});

test("reports a failed change, and retries it only when asked by a token", async () => {
  node.breaks.add(handler());
  let token: string | undefined;
  cluster.reporter.retryToken = async () => token;
  await watch((count) => count > 40);
  expect(state()).toBe("failed");
  expect(cluster.metrics.rollbacks).toBe(1);
  expect(node.served).toEqual([]);

  token = "again";
  node.breaks.clear();
  await watch(() => state() === "ready");
  expect(node.served).toEqual([handler()]);
  expect(cluster.reporter.current()?.retry).toBe("again");
});

test("after a failed change the status keeps the earlier handlers, even in an installer that has just started", async () => {
  await converge(node.environment(spec));
  const served = handler();
  const bad = node.runtime("0000000b");
  node.breaks.add(bad.handler);
  spec = node.spec([...spec.runtimes, bad]);
  await watch(() => true);
  expect(cluster.reporter.current()).toMatchObject({ state: "failed", handlers: [served] });
});

test("without an API server nothing is edited; once it answers, the loop continues", async () => {
  let up = false;
  cluster.reporter.setServed = async () => {
    if (!up) throw new ApiError(503, "ServiceUnavailable", "no answer");
  };
  await watch(() => {
    if (up) return state() === "ready";
    expect(state()).toBe("waiting");
    expect(node.host.text(configPath)).toBe(adminsFile);
    up = true;
    return false;
  });
  expect(node.served).toEqual([handler()]);
});

test("an installer that may do more than it should does nothing, says so, and starts once it is confined", async () => {
  let confined = false;
  let asked = 0;
  cluster.confinement.require = async () => {
    asked += 1;
    if (!confined) throw new Refusal("unconfined", "This installer's token may do more than it should.");
  };
  await watch(() => {
    if (confined) return state() === "ready";
    expect(cluster.reporter.current()).toMatchObject({ state: "failed", code: "unconfined" });
    expect(node.host.text(configPath)).toBe(adminsFile);
    confined = true;
    return false;
  });
  expect(node.served).toEqual([handler()]);
  expect(asked).toBeGreaterThan(2);
});

test("it looks again before each ticket: a policy may have been deleted while payloads were copied", async () => {
  cluster.confinement.require = async (now) => {
    if (now) throw new Refusal("unconfined", "This installer's token may do more than it should.");
  };
  await watch(() => true);
  expect(cluster.reporter.current()).toMatchObject({ state: "failed", code: "unconfined" });
  expect(node.host.text(configPath)).toBe(adminsFile);
});

test("a spec that cannot be read leaves the node as it is", async () => {
  await converge(node.environment(spec, cluster));
  await watch(
    () => true,
    () => {
      throw new Refusal("bad-spec", "The install spec is not valid.");
    },
  );
  expect(cluster.reporter.current()).toMatchObject({ state: "failed", code: "bad-spec" });
  expect(node.served).toEqual([handler()]);
});

test("a node whose CRI is down loses its labels", async () => {
  await converge(node.environment(spec, cluster));
  node.breaks.add(handler());
  node.start();
  labels.length = 0;
  await watch(() => true);
  expect(labels.at(-1)).toEqual([]);
  expect(cluster.reporter.current()).toMatchObject({ state: "failed", code: "cri-broken-before" });
});

test("a node of another group keeps that group's labels", async () => {
  await converge(node.environment(node.spec([node.runtime("00000002")], "others"), cluster));
  labels.length = 0;
  await watch(() => true);
  expect(labels).toEqual([]);
  expect(cluster.reporter.current()?.code).toBe("other-group");
});

test.each([
  ["refuses", "failed", true],
  ["has nothing to do", "ready", false],
])("whoever asks for another attempt on another group's node is answered, when it %s", async (_, state, isListed) => {
  await converge(node.environment(node.spec([node.runtime("00000002")], "others"), cluster));
  if (!isListed) spec = { ...spec, runtimes: [] };
  cluster.reporter.retryToken = async () => "again";
  await watch(() => true);
  expect(cluster.reporter.current()).toMatchObject({ state, retry: "again" });
});

test("of a group that shall have nothing, another group's node is done, and stays as it is", async () => {
  await converge(node.environment(node.spec([node.runtime("00000002")], "others"), cluster));
  labels.length = 0;
  const before = node.host.tree();
  spec = { ...spec, runtimes: [] };
  await watch(() => true);
  expect(cluster.reporter.current()).toMatchObject({ state: "ready", handlers: [] });
  expect(node.host.tree()).toEqual(before);
  expect(labels).toEqual([]);
});

test("installers of a group's former name let go of a node that is taken over, and say nothing of what it serves", async () => {
  await watch((count) => {
    if (count === 1)
      node.host.put(journalPath, node.host.text(journalPath)?.replace(`"${spec.group}"`, '"renamed"') ?? "");
    return state() === "failed" || count > 5;
  });
  expect(cluster.reporter.current()).toMatchObject({ state: "failed", code: "other-group", handlers: [] });
});

test("if stopped while waiting for its turn, it has changed nothing", async () => {
  let asked = 0;
  cluster.tickets.acquire = async () => {
    asked += 1;
    return { held: false, askAgainMs: 1_000 };
  };
  const stop = new AbortController();
  const delay = node.host.delay.bind(node.host);
  node.host.delay = async (ms) => {
    if (asked > 2) stop.abort();
    await delay(ms);
  };
  await watchLoop({
    host: node.host,
    log: createLog(node.host, spec.group, () => undefined),
    cluster,
    signal: stop.signal,
    readSpec: async () => ({ spec, specHash: "0" }),
    environment: () => ({ ...node.environment(spec, cluster), signal: stop.signal }),
    sleep: async () => undefined,
  });
  expect(cluster.reporter.current()).toMatchObject({ state: "waiting", code: "take-ticket" });
  expect(node.host.text(configPath)).toBe(adminsFile);
  cluster.tickets.acquire = async () => ({ held: true });
});

test("a failed node that went without a ticket looks for one until it has it, and not after that", async () => {
  let [owes, asked] = [false, 0];
  cluster.tickets.acquire = async () => {
    owes = true;
    return { held: true };
  };
  cluster.tickets.owes = () => owes;
  cluster.tickets.annotate = async () => {
    asked += 1;
    owes = asked < 3;
  };
  node.breaks.add(handler());
  await watch((count) => count > 500);
  expect(state()).toBe("failed");
  expect(asked).toBe(3);
});
