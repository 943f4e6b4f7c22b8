import { describe, expect, test } from "vitest";
import { CriError } from "../../../../node-installer/containerd/cri-error.ts";
import { daemonGate, type Expectation } from "../../../../node-installer/containerd/gate.ts";
import type { Located } from "../../../../node-installer/containerd/locate.ts";
import { readServing } from "../../../../node-installer/containerd/serving.ts";
import type { MemoryHost } from "../../../fakes/memory-host.ts";
import { aks, snp, tdx } from "./entries.ts";
import { type FakeDaemon, nodeWith } from "./fake-daemon.ts";

type Node = Awaited<ReturnType<typeof nodeWith>>;
const timeouts = { startMs: 200_000, totalMs: 60_000, stableMs: 2_000, callMs: 1_000, pollMs: 200 };

const pass = ({ host, located, cri }: Node, expectation: Partial<Expectation> = {}) =>
  daemonGate(host, located, cri, { entries: [], removed: [], before: undefined, ...expectation }, timeouts);

/** Changes the daemon when the host's clock has moved on. */
function later(host: MemoryHost, afterMs: number, change: () => void): void {
  const start = host.time;
  const { delay } = host;
  host.delay = async (ms) => {
    await delay.call(host, ms);
    if (host.time - start >= afterMs) change();
  };
}

describe("the gate", () => {
  test("opens when all holds for a while", async () => {
    const one = await nodeWith({ handlers: [snp, aks] });
    const before = await readServing(one.cri, 1000);
    const start = one.host.time;
    expect(await pass(one, { entries: [snp, aks], removed: [tdx.handler], before })).toEqual({
      ok: true,
      problems: [],
    });
    expect(one.host.time - start).toBeGreaterThanOrEqual(timeouts.stableMs);
    expect(one.host.time - start).toBeLessThan(timeouts.stableMs * 2);
  });

  test.each([-86_400_000, 86_400_000])("keeps its times when somebody sets the clock by %i ms", async (ms) => {
    const one = await nodeWith({ handlers: [snp], error: new CriError("starts") });
    const start = one.host.time;
    later(one.host, 1_000, () => {
      one.host.skew = ms;
    });
    later(one.host, 30_000, () => {
      one.daemon.error = undefined;
    });
    expect(await pass(one, { entries: [snp] })).toEqual({ ok: true, problems: [] });
    expect(one.host.time - start).toBeLessThan(timeouts.totalMs);
  });

  const differing = { ...snp, entry: { ...snp.entry, options: { ConfigPath: "/elsewhere" } } };
  test.each<[string, Partial<FakeDaemon>, Partial<Expectation>, RegExp]>([
    ["our handler is missing", {}, { entries: [snp] }, /handler contrast-cc-metal-qemu-snp-0123abcd is not served/],
    [
      "our handler has other options",
      { handlers: [differing] },
      { entries: [snp] },
      /options of handler .* is \{"ConfigPath":"\/elsewhere"\} instead of/,
    ],
    ["a removed handler is still there", { handlers: [tdx] }, { removed: [tdx.handler] }, /still served/],
    ["CRI is not served at all", { error: new CriError("its CRI plugin is not running", true) }, {}, /CRI plugin/],
    [
      "the unit failed",
      { unit: { active: "failed", sub: "failed", restarts: 5, invocation: "a" } },
      {},
      /containerd.service is failed/,
    ],
    [
      "the unit is started in vain",
      { unit: { active: "activating", sub: "auto-restart", restarts: 2, invocation: "a" } },
      {},
      /auto-restart/,
    ],
  ])("stays shut soon when %s", async (_, changes, expectation, problem) => {
    const one = await nodeWith(changes);
    const start = one.host.time;
    const result = await pass(one, expectation);
    expect(result.ok).toBe(false);
    expect(result.problems.join()).toMatch(problem);
    expect(one.host.time - start).toBeLessThan(timeouts.totalMs / 2);
  });

  test.each<[string, Partial<FakeDaemon>, RegExp]>([
    ["containerd hangs", { error: new CriError("containerd did not answer Version in time") }, /in time.*after 60 s/],
    ["the runtime is not ready", { ready: { RuntimeReady: false, NetworkReady: true } }, /RuntimeReady says no/],
  ])("waits its time and stays shut when %s", async (_, changes, problem) => {
    const one = await nodeWith(changes);
    const start = one.host.time;
    const result = await pass(one);
    expect(result.ok).toBe(false);
    expect(result.problems.join()).toMatch(problem);
    expect(one.host.time - start).toBeGreaterThanOrEqual(timeouts.totalMs);
  });

  test.each<[string, Partial<FakeDaemon>, RegExp]>([
    ["another handler is gone", { handlers: [snp] }, /handler .*tdx.* is not served/],
    [
      "another handler changed",
      { handlers: [snp, tdx], runcOptions: null },
      /options of handler runc is \{\} instead of \{"SystemdCgroup":true\}/,
    ],
    ["the default runtime changed", { handlers: [snp, tdx], defaultRuntime: "crun" }, /default runtime is "crun"/],
    [
      "the network went",
      { handlers: [snp, tdx], ready: { RuntimeReady: true, NetworkReady: false } },
      /network is no longer ready/,
    ],
  ])("stays shut when %s", async (_, changes, problem) => {
    const before = await readServing((await nodeWith({ handlers: [tdx] })).cri, 1000);
    expect((await pass(await nodeWith(changes), { entries: [snp], before })).problems.join()).toMatch(problem);
  });

  test("does not require what was not there before", async () => {
    const ready = { RuntimeReady: true, NetworkReady: false };
    const before = await readServing((await nodeWith({ ready })).cri, 1000);
    expect((await pass(await nodeWith({ ready }), { before })).ok).toBe(true);
  });

  test("waits for a daemon that is slow to start, and notices one that keeps restarting", async () => {
    const late = await nodeWith({ error: new CriError("no containerd answers") });
    later(late.host, 30_000, () => {
      late.daemon.error = undefined;
    });
    expect((await pass(late)).ok).toBe(true);

    const restless = await nodeWith();
    later(restless.host, 0, () => {
      restless.daemon.unit.invocation += "x";
    });
    expect((await pass(restless)).problems.join()).toMatch(/keeps restarting/);

    const quick = await nodeWith({ unit: { active: "activating", sub: "start", restarts: 0, invocation: "a" } });
    later(quick.host, 0, () => {
      quick.daemon.unit.restarts += 1;
    });
    const start = quick.host.time;
    expect((await pass(quick)).problems.join()).toMatch(/restarted 3 times/);
    expect(quick.host.time - start).toBeLessThan(timeouts.totalMs / 2);
  });

  test("waits longer for a start that systemd has not given up, but not for ever", async () => {
    const starting = { active: "activating", sub: "start", restarts: 0, invocation: "a" };
    const slow = await nodeWith({ unit: { ...starting }, error: new CriError("no containerd answers") });
    later(slow.host, timeouts.totalMs * 2, () => {
      slow.daemon.unit.active = "active";
    });
    later(slow.host, timeouts.totalMs * 2.5, () => {
      slow.daemon.error = undefined;
    });
    expect((await pass(slow)).ok).toBe(true);

    const never = await nodeWith({ unit: starting });
    const start = never.host.time;
    expect((await pass(never)).problems.join()).toMatch(/activating.*after 2\d\d s/);
    expect(never.host.time - start).toBeLessThan(timeouts.startMs + timeouts.totalMs);
  });

  test("does not wait for what waiting cannot heal, although the network may come back", async () => {
    const before = await readServing((await nodeWith({ handlers: [tdx] })).cri, 1000);
    const ready = { RuntimeReady: true, NetworkReady: false };
    const one = await nodeWith({ handlers: [snp, tdx], runcOptions: null, ready });
    const start = one.host.time;
    expect((await pass(one, { entries: [snp], before })).problems.join()).toMatch(/options of handler runc/);
    expect(one.host.time - start).toBeLessThan(timeouts.totalMs / 2);
    const network = await nodeWith({ handlers: [snp, tdx], ready });
    later(network.host, timeouts.totalMs / 2, () => {
      network.daemon.ready.NetworkReady = true;
    });
    expect((await pass(network, { entries: [snp], before })).ok).toBe(true);
  });

  test("waits if the distribution restarts containerd itself", async () => {
    const one = await nodeWith();
    later(one.host, 5_000, () => {
      one.daemon.handlers = [snp];
    });
    const located: Located = { ...one.located, restart: "itself" };
    expect((await pass({ ...one, located }, { entries: [snp] })).ok).toBe(true);
    expect((await pass(await nodeWith(), { entries: [snp] })).ok).toBe(false);
  });
});
