import { describe, expect, test } from "vitest";
import type { Sandbox } from "../../../../node-installer/containerd/cri.ts";
import { removeStaleSandboxes, sandboxesUsing, verifySandbox } from "../../../../node-installer/containerd/sandbox.ts";
import { dialSecondsOf } from "../../../../runtime/guest-start.ts";
import type { MemoryHost } from "../../../fakes/memory-host.ts";
import { snp, tdx } from "./entries.ts";
import { nodeWith } from "./fake-daemon.ts";

describe("a sandbox", () => {
  const shim = (path: string, sandbox: string) => `${path}\0-namespace\0k8s.io\0-id\0${sandbox}\0-address\0/x\0`;
  const start = (host: MemoryHost, pid: number, commandLine: string, pids = `${pid}`) => {
    host.put(`/proc/${pid}/cmdline`, commandLine);
    host.put(`/proc/${pid}/status`, `Name:\tshim\nPid:\t${pid}\nNSpid:\t${pids}\nVmSize:\t1 kB\n`);
  };

  const stale = (id: string, runtimeHandler: string): Sandbox => {
    const metadata = { name: "contrast-runtime-verify", namespace: "contrast-runtime-system", uid: id, attempt: 0 };
    return { id, metadata, ready: false, runtimeHandler };
  };

  test("runs our shim and is removed afterwards; what an earlier attempt left is no concern of it", async () => {
    const { host, cri, daemon } = await nodeWith();
    start(host, 17, shim(snp.entry.runtimePath, "box"));
    daemon.sandboxes = [stale("old", snp.handler)];
    const { removeSandbox } = cri;
    cri.removeSandbox = async (id, timeoutMs) => {
      if (id === "old") throw new Error("failed to destroy network");
      await removeSandbox(id, timeoutMs);
    };
    expect((await verifySandbox(host, cri, snp)).leftOver).toEqual([]);
    expect(daemon.sandboxes.map(({ id }) => id)).toEqual(["old"]);
  });

  test("of any handler of ours that an earlier attempt left is removed, and one that cannot be is only told", async () => {
    const { host, cri, daemon } = await nodeWith();
    daemon.sandboxes = [stale("old", snp.handler), stale("bad", tdx.handler), stale("another", tdx.handler)];
    const { stopSandbox } = cri;
    cri.stopSandbox = async (id, timeoutMs) => {
      if (id === "bad") throw new Error("failed to destroy network");
      await stopSandbox(id, timeoutMs);
    };
    expect(await removeStaleSandboxes(host, cri)).toEqual(["sandbox bad: failed to destroy network"]);
    expect(daemon.sandboxes.map(({ id }) => id)).toEqual(["bad"]);
  });

  test.each([
    ["one tree", "/sys/fs/cgroup/contrast-runtime-verify"],
    ["a tree for each controller", "/sys/fs/cgroup/memory/contrast-runtime-verify"],
  ])("has a cgroup of its own, which is removed with what Kata leaves in it: %s", async (_, cgroup) => {
    const { host, cri } = await nodeWith();
    const { runSandbox } = cri;
    let parent: string | undefined;
    cri.runSandbox = async (config, handler, timeoutMs) => {
      parent = config.linux.cgroupParent;
      await host.makeDirectory(`${cgroup}/kata_box`, 0o755);
      start(host, 17, shim(snp.entry.runtimePath, "box"));
      return runSandbox(config, handler, timeoutMs);
    };
    await verifySandbox(host, cri, snp);
    expect(parent).toBe("/contrast-runtime-verify");
    expect([...host.nodes.keys()].filter((path) => path.includes("contrast-runtime-verify"))).toEqual([]);
  });

  test("has as long to start as its runtime waits for the guest, and more", async () => {
    const { host, cri } = await nodeWith();
    start(host, 17, shim(snp.entry.runtimePath, "box"));
    const { runSandbox } = cri;
    let limit = 0;
    cri.runSandbox = (config, handler, timeoutMs) => {
      limit = timeoutMs;
      return runSandbox(config, handler, timeoutMs);
    };
    for (const key of ["dial_timeout = 600", "reconnect_timeout_ms = 600000"]) {
      limit = 0;
      await verifySandbox(host, cri, snp, dialSecondsOf(`[agent.kata]\n${key}\n`));
      expect(limit, key).toBeGreaterThan(600_000);
    }
  });

  test.each([
    [
      "a guest that does not boot",
      "Failed to Check if grpc server is working: rpc error: code = DeadlineExceeded desc = timed out connecting to vsock 42:1024: unknown",
      /the VM was started, but its guest did not answer within 120 s \(dial_timeout\)/,
    ],
    [
      "one of runtime-rs that does not boot",
      "start sandbox\n\nCaused by:\n    vsock: failed to connect to Vsock { vsock_cid: 42, port: 1024 } within 120s (attempts=9)",
      /its guest did not answer within 120 s .* containerd says: start sandbox Caused by: vsock: failed to connect/,
    ],
    [
      "an agent that refuses",
      "failed to mount /run/x: ENOENT\n\nStack backtrace:\n   0: <unknown>\n   1: <unknown>",
      /cannot run: its guest came up, and its agent refused: failed to mount \/run\/x: ENOENT\. Look at [^<]*$/,
    ],
    [
      "a VMM that is missing",
      "failed to launch qemu: no such file",
      /cannot run: failed to launch qemu: no such file$/,
    ],
  ])("tells of %s in words that a person understands", async (_, message, said) => {
    const { host, cri } = await nodeWith();
    cri.runSandbox = async () => {
      throw new Error(message);
    };
    await expect(verifySandbox(host, cri, snp)).rejects.toThrow(said);
  });

  test("with another shim is an error, and is removed as well", async () => {
    const { host, cri, daemon } = await nodeWith();
    start(host, 17, shim("/usr/bin/containerd-shim-runc-v2", "box"));
    start(host, 18, shim(snp.entry.runtimePath, "another"));
    await expect(verifySandbox(host, cri, snp)).rejects.toThrow(/it runs \/usr\/bin\/containerd-shim-runc-v2/);
    expect(daemon.sandboxes).toEqual([]);
  });

  test("does not run our shim because a pod's process has its arguments, nor another shim for that", async () => {
    const { host, cri } = await nodeWith();
    start(host, 18, shim(snp.entry.runtimePath, "box"), "18\t1");
    await expect(verifySandbox(host, cri, snp)).rejects.toThrow(/no process was started for it/);
    start(host, 17, shim("/usr/bin/containerd-shim-runc-v2\u001b[2J", "box"));
    await expect(verifySandbox(host, cri, snp)).rejects.toThrow(/it runs \/usr\/bin\/containerd-shim-runc-v2[ -~]*$/);
    start(host, 17, shim(snp.entry.runtimePath, "box"));
    await verifySandbox(host, cri, snp);
  });

  test("that the kubelet ended before it was looked at is started anew, a few times", async () => {
    const { host, cri, daemon } = await nodeWith();
    const { runSandbox } = cri;
    let started = 0;
    let ended = 9;
    cri.runSandbox = async (config, handler, timeoutMs) => {
      const id = await runSandbox(config, handler, timeoutMs);
      started += 1;
      start(host, 17, started > ended ? shim(snp.entry.runtimePath, id) : "");
      if (started <= ended) daemon.sandboxes = daemon.sandboxes.map((each) => ({ ...each, ready: false }));
      return id;
    };
    await verifySandbox(host, cri, snp);
    expect([started, daemon.sandboxes]).toEqual([10, []]);
    [started, ended] = [0, 99];
    await expect(verifySandbox(host, cri, snp)).rejects.toThrow(/it was stopped 10 times before .*less busy$/);
    expect(started).toBe(10);
  });

  test("that the kubelet ends as soon as it is started was seen while it was", async () => {
    const { host, cri, daemon } = await nodeWith();
    const { runSandbox } = cri;
    let started = 0;
    cri.runSandbox = async (config, handler, timeoutMs) => {
      started += 1;
      const id = await runSandbox(config, handler, timeoutMs);
      start(host, 17, shim(snp.entry.runtimePath, "another"));
      start(host, 18, shim(snp.entry.runtimePath, id));
      await host.delay(60_000);
      await host.delay(60_000);
      start(host, 18, "");
      daemon.sandboxes = daemon.sandboxes.map((each) => ({ ...each, ready: false }));
      return id;
    };
    await verifySandbox(host, cri, snp);
    expect([started, daemon.sandboxes]).toEqual([1, []]);
  });

  test("whose end containerd has not noticed yet is started anew, too", async () => {
    const { host, cri, daemon } = await nodeWith();
    const { runSandbox, listSandboxes } = cri;
    let started = 0;
    let looks = 0;
    cri.runSandbox = async (config, handler, timeoutMs) => {
      const id = await runSandbox(config, handler, timeoutMs);
      started += 1;
      if (started > 1) start(host, 17, shim(snp.entry.runtimePath, id));
      return id;
    };
    cri.listSandboxes = async (timeoutMs) => {
      looks += 1;
      if (looks === 3) daemon.sandboxes = daemon.sandboxes.map((each) => ({ ...each, ready: false }));
      return listSandboxes(timeoutMs);
    };
    await verifySandbox(host, cri, snp);
    expect([started, daemon.sandboxes]).toEqual([2, []]);
  });

  test("that stays ready without a process of its own is an error, and is not tried again", async () => {
    const { host, cri } = await nodeWith();
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
    const { host, cri, daemon } = await nodeWith();
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
    const { cri, daemon } = await nodeWith();
    const of = (name: string, namespace: string, runtimeHandler: string): Sandbox => ({
      id: name,
      metadata: { name, namespace, uid: name, attempt: 0 },
      ready: true,
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
