import { afterEach, beforeEach, expect, test } from "vitest";
import { CriError } from "../../../../node-installer/containerd/cri-error.ts";
import { armedPath } from "../../../../node-installer/host/guard.ts";
import { journalPath } from "../../../../node-installer/host/journal.ts";
import { restartsOf } from "../../../../node-installer/host/restart-budget.ts";
import { converge } from "../../../../node-installer/install/converge.ts";
import type { Environment } from "../../../../node-installer/install/environment.ts";
import { labelledNow } from "../../../../node-installer/install/labelled.ts";
import { createLog } from "../../../../node-installer/install/log.ts";
import { RolledBack } from "../../../../node-installer/install/rolled-back.ts";
import { watchLoop } from "../../../../node-installer/install/watch-loop.ts";
import { ApiError } from "../../../../node-installer/kubernetes/api.ts";
import { type Cluster, withoutKubernetes } from "../../../../node-installer/kubernetes/connect.ts";
import { isReady } from "../../../../node-installer/kubernetes/status.ts";
import { Refusal } from "../../../../runtime/refusal.ts";
import type { InstallSpec } from "../../../../runtime/spec.ts";
import { configPath, MemoryNode } from "../../../fakes/memory-node.ts";

/* A handler's label is there exactly while the daemon serves it and the host passes its checks. */

let node: MemoryNode;
let cluster: Cluster;
let old: InstallSpec;
let next: InstallSpec;
/** What the node's labels are, and were. */
let labels: string[];
let history: string[][] = [];
/** The labels that were set whenever a taint was lifted. */
let lifted: [taint: string, labels: string[]][] = [];
let wasReady: boolean[] = [];
const one = () => old.runtimes[0]?.handler ?? "";
const two = () => next.runtimes[0]?.handler ?? "";

beforeEach(async () => {
  node = new MemoryNode();
  old = node.spec([node.runtime("00000001")]);
  next = node.spec([node.runtime("00000002")]);
  cluster = withoutKubernetes(() => node.host.now());
  labels = [];
  const { setServed, report } = cluster.reporter;
  cluster.reporter.setServed = async (handlers, also) => {
    labels = [...handlers];
    history.push(labels);
    if (also?.lifted !== undefined) lifted.push([also.lifted, labels]);
    if (also?.status !== undefined) wasReady.push(isReady(also.status));
    await setServed(handlers, also);
  };
  cluster.reporter.report = (status) => {
    wasReady.push(isReady(status));
    report(status);
  };
  await converge(node.environment(old, cluster));
  [history, wasReady, lifted] = [[], [], []];
});
afterEach(() => node.close());

/** Runs the loop until `isOver` says so before a wait. */
async function watch(
  spec: () => InstallSpec,
  isOver: (waits: number) => boolean,
  change: (environment: Environment) => Partial<Environment> = () => ({}),
): Promise<void> {
  const stop = new AbortController();
  let waits = 0;
  const host = node.host;
  const delay = host.delay.bind(host);
  const waited = () => {
    waits += 1;
    if (isOver(waits) || waits > 5_000) stop.abort();
  };
  host.delay = async (ms) => {
    waited();
    await delay(ms);
  };
  try {
    await watchLoop({
      host,
      log: createLog(host, old.group, (line) => node.log.push(line)),
      cluster,
      signal: stop.signal,
      readSpec: async () => ({ spec: spec(), specHash: node.environment(spec()).specHash }),
      environment: (given) => {
        const environment = { ...node.environment(given.spec, cluster), signal: stop.signal };
        return { ...environment, ...change(environment) };
      },
      async sleep(ms) {
        waited();
        await delay(ms);
      },
    });
  } finally {
    host.delay = delay;
  }
}

test("a replaced runtime takes pods while its node waits for its turn, and until right before the edit", async () => {
  let asked = 0;
  cluster.tickets.acquire = async () => {
    asked += 1;
    expect(labels).toEqual([one()]);
    return asked < 50 ? { held: false, askAgainMs: 1_000 } : { held: true };
  };
  const rename = node.host.replaceFile.bind(node.host);
  let atTheEdit: string[] | undefined;
  node.host.replaceFile = (path, ...rest) => {
    if (path === configPath) atTheEdit ??= labels;
    return rename(path, ...rest);
  };
  await watch(
    () => next,
    () => cluster.reporter.current()?.state === "ready",
  );
  expect(asked).toBe(50);
  expect(atTheEdit).toEqual([]);
  expect(labels).toEqual([two()]);
});

test("a pod that came while the node waited keeps its runtime, which takes no more", async () => {
  cluster.tickets.acquire = async () => {
    node.sandboxes = [{ handler: one(), name: "default/late" }];
    return { held: true };
  };
  await watch(
    () => next,
    () => cluster.reporter.current()?.state === "blocked",
  );
  expect(node.served?.toSorted()).toEqual([one(), two()]);
  expect(cluster.reporter.current()?.pods).toEqual(["default/late"]);
  expect(labels).toEqual([two()]);
});

test("a pod that is bound and has no sandbox yet keeps the runtime, whose removal is then the stack's change, not a repair", async () => {
  let bound = ["default/waits-for-a-volume"];
  cluster.reporter.podsUsing = async (handler) => (handler === one() ? bound : []);
  let meanwhile: readonly string[] | undefined;
  await watch(
    () => next,
    () => {
      if (cluster.reporter.current()?.state === "blocked") [meanwhile, bound] = [node.served?.toSorted(), []];
      return cluster.reporter.current()?.state === "ready";
    },
  );
  expect(meanwhile).toEqual([one(), two()]);
  expect(node.served).toEqual([two()]);
  expect(cluster.reporter.current()?.reason).not.toContain("Another program");
  expect(new Set((await restartsOf(node.host)).map((restart) => restart.for))).toEqual(new Set(["change"]));
});

test("after a rollback the runtime that serves again takes pods again", async () => {
  node.breaks.add(two());
  await watch(
    () => next,
    () => cluster.reporter.current()?.state === "failed",
  );
  expect(history).toContainEqual([]);
  expect(labels).toEqual([one()]);
  // Also in an installer that starts later.
  labels = [];
  await watch(
    () => next,
    () => cluster.reporter.current()?.code === "failed-before",
  );
  expect(labels).toEqual([one()]);
});

test("a runtime that is removed, and not replaced, takes no pods from the first moment on", async () => {
  const both = node.spec([...old.runtimes, ...next.runtimes]);
  await converge(node.environment(both, cluster));
  expect(labels.toSorted()).toEqual([one(), two()]);
  cluster.tickets.acquire = async () => {
    expect(labels).toEqual([two()]);
    return { held: true };
  };
  await watch(
    () => next,
    () => cluster.reporter.current()?.state === "ready",
  );
  expect(node.served).toEqual([two()]);
});

test("a handler on trial has no label, whatever becomes of the trial", async () => {
  const trial = node.spec([...old.runtimes, ...next.runtimes]);
  const gate = async () => {
    throw new Error("the gate cannot be asked");
  };
  await watch(
    () => trial,
    (waits) => waits > 3,
    (environment) => ({ daemon: { ...environment.daemon, gate } }),
  );
  expect(node.host.text(armedPath)).toBeDefined();
  expect(labels).toEqual([one()]);
});

test("nor has one that is served already, and whose installer was killed before the gate", async () => {
  const trial = node.spec([...old.runtimes, ...next.runtimes]);
  node.host.onPoint = (point, when) => {
    if (point === "run systemctl restart containerd.service" && when === "after") node.host.kill();
  };
  await converge(node.environment(trial, cluster)).catch(() => undefined);
  node.host.revive();
  expect(node.served?.toSorted()).toEqual([one(), two()]);
  expect(await labelledNow(node.environment(trial, cluster))).toEqual([one()]);
});

test.each([
  ["that was imaged anew, and kept its labels, loses them", true],
  ["that serves keeps its labels", false],
])("a node %s before its new installer does anything that takes time", async (_, isNew) => {
  if (isNew) {
    node.close();
    node = new MemoryNode();
    node.runtime("00000001");
  }
  [labels, history] = [[one()], []];
  let atFirst: string[] | undefined;
  cluster.confinement.require = async () => {
    atFirst ??= labels;
  };
  await watch(
    () => old,
    () => cluster.reporter.current()?.state === "ready",
  );
  expect(atFirst).toEqual(isNew ? [] : [one()]);
  expect(history.slice(isNew ? 0 : 1).some((each) => each.length === 0)).toBe(isNew);
  expect(labels).toEqual([one()]);
});

test("an unreadable journal takes no label of what the daemon serves", async () => {
  node.host.put(journalPath, "{");
  for (const spec of [old, next]) {
    await watch(
      () => spec,
      () => cluster.reporter.current()?.code === "journal-unreadable",
    );
    expect(labels).toEqual([one()]);
  }
});

test("nor does it keep one that the host can no longer run, also if the spec does not list it", async () => {
  node.host.put(journalPath, "{");
  await watch(
    () => next,
    () => cluster.reporter.current()?.code === "journal-unreadable",
    () => ({
      unfit: async (_, runtimes) => runtimes.filter(({ host }) => host.tee === "snp").map(({ handler }) => handler),
    }),
  );
  expect(node.served).toEqual([one()]);
  expect(labels).toEqual([]);
});

test("a host that can no longer run the runtime loses its label within a look, and says why", async () => {
  let fit = true;
  await watch(
    () => old,
    () => {
      if (!fit) return cluster.reporter.current()?.code === "snp-off";
      fit = cluster.reporter.current()?.state !== "ready";
      return false;
    },
    () => ({
      unfit: async (_, runtimes) => (fit ? [] : runtimes.map(({ handler }) => handler)),
      checkHost: async () => {
        if (!fit) throw new Refusal("snp-off", "SEV-SNP is off.");
      },
    }),
  );
  expect(labels).toEqual([]);
  expect(node.served).toEqual([one()]);
});

test.each([
  ["containerd's CRI is slow", "serving"],
  ["containerd --version is slow", "locate"],
] as const)("%s once: no label and no readiness is lost; if it stays so, they are", async (_, what) => {
  let looks = 0;
  let isSlow = () => false;
  const answers = (environment: Environment): Partial<Environment> => {
    const { daemon } = environment;
    looks += 1;
    const locate: typeof daemon.locate = async () => {
      if (what === "locate" && isSlow()) throw new Error("containerd --version has not answered");
      return daemon.locate();
    };
    const serving: typeof daemon.serving = async (...given) => {
      if (what === "serving" && isSlow()) throw new CriError("containerd did not answer Status in time");
      return daemon.serving(...given);
    };
    return { daemon: { ...daemon, locate, serving } };
  };
  isSlow = () => looks === 2;
  await watch(
    () => old,
    () => looks > 3,
    answers,
  );
  expect(history.filter((each) => each.length === 0)).toEqual([]);
  expect(new Set(wasReady)).toEqual(new Set([true]));
  [looks, isSlow] = [0, () => looks >= 2];
  await watch(
    () => old,
    () => looks > 3,
    answers,
  );
  expect(wasReady.at(-1)).toBe(false);
  // Where containerd was found before, it is still asked; one that does not answer for long serves nothing.
  expect(labels).toEqual(what === "locate" ? [one()] : []);
});

test("an API server that does not answer once does not make a ready node unready; twice, it waits", async () => {
  let failures = 0;
  let asked = 0;
  cluster.reporter.retryToken = async () => {
    asked += 1;
    if (asked > 1 && asked <= 1 + failures) throw new ApiError(0, "Unreachable", "no answer");
    return undefined;
  };
  failures = 1;
  await watch(
    () => old,
    () => asked > 3,
  );
  expect(new Set(wasReady)).toEqual(new Set([true]));
  [failures, asked] = [2, 0];
  await watch(
    () => old,
    () => asked > 4,
  );
  expect(wasReady).toContain(false);
  expect(wasReady.at(-1)).toBe(true);
  expect(labels).toEqual([one()]);
});

test("an unfinished change is undone without the API server, which may be away because of it", async () => {
  const both = node.spec([...old.runtimes, ...next.runtimes]);
  node.breaks.add(two());
  node.host.onPoint = (point, when) => {
    if (point === "run systemctl restart containerd.service" && when === "after") node.host.kill();
  };
  await converge(node.environment(both, cluster)).catch(() => undefined);
  node.host.revive();
  expect(node.served).toBeUndefined();
  const away = async () => {
    throw new ApiError(0, "Unreachable", "no answer");
  };
  Object.assign(cluster.reporter, { retryToken: away, setServed: away, podsUsing: away });
  Object.assign(cluster.tickets, { acquire: away, annotate: away, release: away });
  await watch(
    () => both,
    (waits) => waits > 20,
  );
  expect(node.served).toEqual([one()]);
  expect(cluster.reporter.current()).toMatchObject({ state: "waiting", code: "api-unavailable" });
});

const startupTaint = "example.com/not-ready";

test("the startup taint is lifted when every runtime of the list is served, and not before", async () => {
  const third = node.runtime("00000003");
  const spec = { ...node.spec([...old.runtimes, third]), startupTaint };
  cluster.tickets.acquire = async () => {
    expect(lifted).toEqual([]);
    return { held: true };
  };
  await converge(node.environment(spec, cluster));
  const both = [one(), third.handler].sort();
  expect(lifted).toEqual([[startupTaint, both]]);
  // Somebody puts it back: the next look takes it again.
  await converge(node.environment(spec, cluster));
  expect(lifted).toEqual([
    [startupTaint, both],
    [startupTaint, both],
  ]);
});

test("a node that cannot have one of the runtimes keeps its startup taint, whatever else it serves", async () => {
  const spec = { ...old, startupTaint };
  await converge({ ...node.environment(spec, cluster), unfit: async () => [one()] });
  expect(labels).toEqual([]);
  expect(lifted).toEqual([]);
});

test("a node that was rolled back keeps its startup taint", async () => {
  node.breaks.add(two());
  await expect(converge(node.environment({ ...next, startupTaint }, cluster))).rejects.toBeInstanceOf(RolledBack);
  expect(lifted).toEqual([]);
});

test("a group without runtimes holds no node back", async () => {
  await converge(node.environment({ ...node.spec([]), startupTaint }, cluster));
  expect(lifted.at(-1)).toEqual([startupTaint, []]);
});
