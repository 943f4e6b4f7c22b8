import type { Cri, Sandbox, SandboxConfig } from "../../../../node-installer/containerd/cri.ts";
import type { HandlerEntry } from "../../../../node-installer/containerd/entry.ts";
import { locate } from "../../../../node-installer/containerd/locate.ts";
import { nodeOf } from "./nodes.ts";

/** What a running daemon reports about itself, in the formats of containerd 1.7 and 2.x. */
export interface FakeDaemon {
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

/** A node with such a daemon, and its CRI. */
export async function nodeWith(changes: Partial<FakeDaemon> = {}) {
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
      daemon.sandboxes.push({ id: "box", metadata: config.metadata, ready: true, runtimeHandler: handler });
      return "box";
    },
    stopSandbox: async () => undefined,
    removeSandbox: async (id) => {
      daemon.sandboxes = daemon.sandboxes.filter((sandbox) => sandbox.id !== id);
    },
  };
  return { host, cri, daemon, located: await locate(host, { name: "containerd" }) };
}
