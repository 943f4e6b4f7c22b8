import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Server, ServerCredentials } from "@grpc/grpc-js";
import { describe, expect, test } from "vitest";
import { type Cri, openCri, type Sandbox, type SandboxConfig } from "../../../../node-installer/containerd/cri.ts";
import { CriError } from "../../../../node-installer/containerd/cri-error.ts";
import { type Expectation, gate } from "../../../../node-installer/containerd/gate.ts";
import { type Located, locate } from "../../../../node-installer/containerd/locate.ts";
import { restart, unitState } from "../../../../node-installer/containerd/restart.ts";
import { observe, type ServingState, serves } from "../../../../node-installer/containerd/serving.ts";
import type { HandlerEntry } from "../../../../node-installer/containerd/tables.ts";
import { sandboxesUsing, verifySandbox } from "../../../../node-installer/containerd/verify.ts";
import type { MemoryHost } from "../../../fakes/memory-host.ts";
import { aks, snp, tdx } from "./entries.ts";
import { nodeOf } from "./nodes.ts";

/** What a running daemon reports about itself, in the formats of containerd 1.7 and 2.x. */
interface FakeDaemon {
  unit: { active: string; sub: string; restarts: number; invocation: string };
  handlers: readonly HandlerEntry[];
  runcOptions: object | null;
  defaultRuntime: string;
  ready: { RuntimeReady: boolean; NetworkReady: boolean };
  error: Error | undefined;
  sandboxes: Sandbox[];
}

const runtime = ({ entry }: HandlerEntry) => ({
  runtimeType: entry.runtimeType,
  runtimePath: entry.runtimePath,
  PodAnnotations: entry.podAnnotations.length > 0 ? entry.podAnnotations : null,
  privileged_without_host_devices: entry.privilegedWithoutHostDevices,
  snapshotter: entry.snapshotter ?? "",
  options: entry.options ?? null,
});

async function node(changes: Partial<FakeDaemon> = {}) {
  const daemon: FakeDaemon = {
    unit: { active: "active", sub: "running", restarts: 0, invocation: "a" },
    handlers: [],
    runcOptions: { BinaryName: "", SystemdCgroup: true },
    defaultRuntime: "runc",
    ready: { RuntimeReady: true, NetworkReady: true },
    error: undefined,
    sandboxes: [],
    ...changes,
  };
  const host = nodeOf("containerd");
  host.programs.set("systemctl", ([verb]) => {
    if (verb !== "show") return {};
    const { active, sub, restarts, invocation } = daemon.unit;
    return {
      stdout: `ActiveState=${active}\nSubState=${sub}\nResult=success\nNRestarts=${restarts}\nInvocationID=${invocation}\n`,
    };
  });
  const answer = <T>(value: () => T): Promise<T> =>
    daemon.error === undefined ? Promise.resolve(value()) : Promise.reject(daemon.error);
  const cri: Cri = {
    version: () => answer(() => ({ runtimeName: "containerd", runtimeVersion: "2.2.9" })),
    status: () =>
      answer(() => ({
        conditions: Object.entries(daemon.ready).map(([type, status]) => ({
          type,
          status,
          reason: "",
          message: status ? "" : `${type} says no`,
        })),
        info: {
          config: JSON.stringify({
            containerd: {
              defaultRuntimeName: daemon.defaultRuntime,
              runtimes: {
                runc: { runtimeType: "io.containerd.runc.v2", options: daemon.runcOptions },
                ...Object.fromEntries(daemon.handlers.map((one) => [one.handler, runtime(one)])),
              },
            },
          }),
        },
      })),
    listSandboxes: () => answer(() => daemon.sandboxes),
    async runSandbox(config: SandboxConfig, handler) {
      daemon.sandboxes.push({ id: "box", metadata: config.metadata, state: "SANDBOX_READY", runtimeHandler: handler });
      return "box";
    },
    stopSandbox: async () => undefined,
    removeSandbox: async (id) => {
      daemon.sandboxes = daemon.sandboxes.filter((sandbox) => sandbox.id !== id);
    },
    close: () => undefined,
  };
  return { host, cri, daemon, located: await locate(host, { name: "containerd" }) };
}

type Node = Awaited<ReturnType<typeof node>>;
const timeouts = { totalMs: 60_000, stableMs: 2_000, callMs: 1_000, pollMs: 200 };

const pass = ({ host, located, cri }: Node, expectation: Partial<Expectation> = {}) =>
  gate(host, located, cri, { entries: [], removed: [], before: undefined, ...expectation }, timeouts);

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
    const one = await node({ handlers: [snp, aks] });
    const before = await observe(one.cri, 1000);
    const start = one.host.time;
    expect(await pass(one, { entries: [snp, aks], removed: [tdx.handler], before })).toEqual({
      ok: true,
      problems: [],
    });
    expect(one.host.time - start).toBeGreaterThanOrEqual(timeouts.stableMs);
    expect(one.host.time - start).toBeLessThan(timeouts.stableMs * 2);
  });

  test.each([-86_400_000, 86_400_000])("keeps its times when somebody sets the clock by %i ms", async (ms) => {
    const one = await node({ handlers: [snp], error: new CriError("starts") });
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
    const one = await node(changes);
    const start = one.host.time;
    const result = await pass(one, expectation);
    expect(result.ok).toBe(false);
    expect(result.problems.join()).toMatch(problem);
    expect(one.host.time - start).toBeLessThan(timeouts.totalMs / 2);
  });

  test.each<[string, Partial<FakeDaemon>, RegExp]>([
    ["containerd hangs", { error: new CriError("containerd did not answer Version in time") }, /in time.*after 60 s/],
    ["the runtime is not ready", { ready: { RuntimeReady: false, NetworkReady: true } }, /RuntimeReady says no/],
    [
      "the unit does not come up",
      { unit: { active: "activating", sub: "start", restarts: 0, invocation: "a" } },
      /activating/,
    ],
  ])("waits its time and stays shut when %s", async (_, changes, problem) => {
    const one = await node(changes);
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
    const before = await observe((await node({ handlers: [tdx] })).cri, 1000);
    expect((await pass(await node(changes), { entries: [snp], before })).problems.join()).toMatch(problem);
  });

  test("does not require what was not there before", async () => {
    const ready = { RuntimeReady: true, NetworkReady: false };
    const before = await observe((await node({ ready })).cri, 1000);
    expect((await pass(await node({ ready }), { before })).ok).toBe(true);
  });

  test("waits for a daemon that is slow to start, and notices one that keeps restarting", async () => {
    const late = await node({ error: new CriError("no containerd answers") });
    later(late.host, 30_000, () => {
      late.daemon.error = undefined;
    });
    expect((await pass(late)).ok).toBe(true);

    const restless = await node();
    later(restless.host, 0, () => {
      restless.daemon.unit.invocation += "x";
    });
    expect((await pass(restless)).problems.join()).toMatch(/keeps restarting/);

    const quick = await node({ unit: { active: "activating", sub: "start", restarts: 0, invocation: "a" } });
    later(quick.host, 0, () => {
      quick.daemon.unit.restarts += 1;
    });
    const start = quick.host.time;
    expect((await pass(quick)).problems.join()).toMatch(/restarted 3 times/);
    expect(quick.host.time - start).toBeLessThan(timeouts.totalMs / 2);
  });

  test("waits if the distribution restarts containerd itself", async () => {
    const one = await node();
    later(one.host, 5_000, () => {
      one.daemon.handlers = [snp];
    });
    const located: Located = { ...one.located, restart: "itself" };
    expect((await pass({ ...one, located }, { entries: [snp] })).ok).toBe(true);
    expect((await pass(await node(), { entries: [snp] })).ok).toBe(false);
  });
});

describe("what a daemon serves", () => {
  test("is read alike from 1.7 and 2.x, and survives the journal", async () => {
    const { cri } = await node({ handlers: [aks], runcOptions: null });
    const state = await observe(cri, 1000);
    expect(JSON.parse(JSON.stringify(state))).toEqual(state);
    expect(serves(state, [aks])).toEqual([]);
    expect(serves(state, [aks, snp])).toHaveLength(1);
    const full = await observe((await node({ runcOptions: { Root: "", IoUid: 0, NoNewKeyring: false } })).cri, 1000);
    expect(full.handlers.runc).toEqual(state.handlers.runc satisfies ServingState["handlers"][string] | undefined);
  });
});

describe("restart", () => {
  test("once, and the start limit of a failed unit is reset first", async () => {
    for (const [active, expected] of [
      ["active", ["restart"]],
      ["failed", ["reset-failed", "restart"]],
    ] as const) {
      const { host, located } = await node({ unit: { active, sub: "x", restarts: 0, invocation: "a" } });
      await restart(host, located);
      const verbs = host.points
        .filter((point) => point.startsWith("run systemctl "))
        .map((point) => point.split(" ")[2]);
      expect(verbs.filter((verb) => verb !== "show" && verb !== "is-active")).toEqual(expected);
    }
  });

  test("not if the distribution does it", async () => {
    const { host, located } = await node();
    host.points.length = 0;
    await restart(host, { ...located, restart: "itself" });
    expect(host.points).toEqual([]);
  });

  test("the state of a unit", async () => {
    const { host } = await node({ unit: { active: "active", sub: "running", restarts: 3, invocation: "abc" } });
    expect(await unitState(host, "containerd.service")).toEqual({
      active: "active",
      sub: "running",
      result: "success",
      restarts: 3,
      invocation: "abc",
    });
  });
});

describe("a sandbox", () => {
  const shim = (path: string, sandbox: string) => `${path}\0-namespace\0k8s.io\0-id\0${sandbox}\0-address\0/x\0`;
  const start = (host: MemoryHost, pid: number, commandLine: string, pids = `${pid}`) => {
    host.put(`/proc/${pid}/cmdline`, commandLine);
    host.put(`/proc/${pid}/status`, `Name:\tshim\nPid:\t${pid}\nNSpid:\t${pids}\nVmSize:\t1 kB\n`);
  };

  test("runs our shim and is removed afterwards, as is what an earlier attempt left", async () => {
    const { host, cri, daemon } = await node();
    start(host, 17, shim(snp.entry.runtimePath, "box"));
    const metadata = { name: "contrast-runtime-verify", namespace: "contrast-runtime-system", uid: "x", attempt: 0 };
    daemon.sandboxes = [{ id: "old", metadata, state: "SANDBOX_NOTREADY", runtimeHandler: snp.handler }];
    await verifySandbox(host, cri, snp);
    expect(daemon.sandboxes).toEqual([]);
  });

  test("with another shim is an error, and is removed as well", async () => {
    const { host, cri, daemon } = await node();
    start(host, 17, shim("/usr/bin/containerd-shim-runc-v2", "box"));
    start(host, 18, shim(snp.entry.runtimePath, "another"));
    await expect(verifySandbox(host, cri, snp)).rejects.toThrow(/it runs \/usr\/bin\/containerd-shim-runc-v2/);
    expect(daemon.sandboxes).toEqual([]);
  });

  test("does not run our shim because a pod's process has its arguments, nor another shim for that", async () => {
    const { host, cri } = await node();
    start(host, 18, shim(snp.entry.runtimePath, "box"), "18\t1");
    await expect(verifySandbox(host, cri, snp)).rejects.toThrow(/no process was started for it/);
    start(host, 17, shim("/usr/bin/containerd-shim-runc-v2\u001b[2J", "box"));
    await expect(verifySandbox(host, cri, snp)).rejects.toThrow(/it runs \/usr\/bin\/containerd-shim-runc-v2[ -~]*$/);
    start(host, 17, shim(snp.entry.runtimePath, "box"));
    await verifySandbox(host, cri, snp);
  });

  test("that the kubelet ended before it was looked at is started anew, a few times", async () => {
    const { host, cri, daemon } = await node();
    const { runSandbox } = cri;
    let started = 0;
    let ended = 2;
    cri.runSandbox = async (config, handler, timeoutMs) => {
      const id = await runSandbox(config, handler, timeoutMs);
      started += 1;
      start(host, 17, started > ended ? shim(snp.entry.runtimePath, id) : "");
      if (started <= ended) daemon.sandboxes = daemon.sandboxes.map((each) => ({ ...each, state: "SANDBOX_NOTREADY" }));
      return id;
    };
    await verifySandbox(host, cri, snp);
    expect([started, daemon.sandboxes]).toEqual([3, []]);
    [started, ended] = [0, 9];
    await expect(verifySandbox(host, cri, snp)).rejects.toThrow(/no process was started for it/);
    expect(started).toBe(3);
  });

  test("that is ready without a process of its own is an error at once", async () => {
    const { host, cri } = await node();
    const { runSandbox } = cri;
    let started = 0;
    cri.runSandbox = (...args) => {
      started += 1;
      return runSandbox(...args);
    };
    await expect(verifySandbox(host, cri, snp)).rejects.toThrow(/no process was started for it/);
    expect(started).toBe(1);
  });

  test("that cannot be stopped is tried again for a while: the kubelet may be stopping it, too", async () => {
    const { host, cri, daemon } = await node();
    start(host, 17, shim(snp.entry.runtimePath, "box"));
    let failures = 3;
    cri.stopSandbox = async () => {
      failures -= 1;
      if (failures >= 0) throw new Error('failed to delete "eth0": no such device');
    };
    await verifySandbox(host, cri, snp);
    expect(daemon.sandboxes).toEqual([]);
    failures = 1000;
    await expect(verifySandbox(host, cri, snp)).rejects.toThrow(/no such device/);
  });

  test("of a pod counts as use, our own does not", async () => {
    const { cri, daemon } = await node();
    const of = (name: string, namespace: string, runtimeHandler: string): Sandbox => ({
      id: name,
      metadata: { name, namespace, uid: name, attempt: 0 },
      state: "SANDBOX_READY",
      runtimeHandler,
    });
    daemon.sandboxes = [
      of("web", "shop", snp.handler),
      of("db", "shop", ""),
      of("db", "shop", tdx.handler),
      of("contrast-runtime-verify", "contrast-runtime-system", snp.handler),
    ];
    expect(await sandboxesUsing(cri, snp.handler)).toEqual(["shop/web"]);
  });
});

describe("the connection", () => {
  test("reports what exactly is wrong", async () => {
    const directory = mkdtempSync(join(tmpdir(), "cri-"));
    const socket = join(directory, "s.sock");
    const cri = openCri(socket);
    await expect(cri.version(1000)).rejects.toThrow(/no containerd answers at/);

    const server = new Server();
    await new Promise<void>((resolve, reject) =>
      server.bindAsync(`unix:${socket}`, ServerCredentials.createInsecure(), (error) =>
        error ? reject(error) : resolve(),
      ),
    );
    // The same connection finds the daemon that has started meanwhile.
    const missing: unknown = await retried(() => cri.version(1000));
    expect(missing).toMatchObject({ name: "CriError", withoutPlugin: true });
    cri.close();
    server.forceShutdown();
    rmSync(directory, { recursive: true, force: true });
  });

  /** The error of a call, once it is no longer that nobody answers. */
  async function retried(call: () => Promise<unknown>): Promise<unknown> {
    for (;;) {
      const error = await call().catch((reason: unknown) => reason);
      if (!(error instanceof CriError) || !error.message.startsWith("no containerd")) return error;
    }
  }
});
