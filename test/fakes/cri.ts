import type { Cri } from "../../node-installer/containerd/cri.ts";
import { isTable, type Table } from "../../node-installer/containerd/document.ts";

/** What a containerd's CRI plugin tells of. */
export interface Serving {
  /** Its version. */
  runs: string;
  /** The tables of its runtimes, as it has loaded them. */
  runtimes: Table;
  defaultRuntime: unknown;
  sandboxes: { handler: string; name: string }[];
}

/** The CRI of a containerd that is a model; `call` decides whether it answers. */
export const criOf = (daemon: Serving, call: <T>(name: string, answer: () => T) => Promise<T>): Cri => ({
  version: () => call("Version", () => ({ runtimeName: "containerd", runtimeVersion: `v${daemon.runs}` })),
  status: () =>
    call("Status", () => {
      const runtimes = Object.entries(daemon.runtimes).map(([name, runtime]) => {
        const table = isTable(runtime) ? runtime : {};
        return [
          name,
          {
            runtimeType: table.runtime_type,
            runtimePath: table.runtime_path,
            PodAnnotations: table.pod_annotations,
            privileged_without_host_devices: table.privileged_without_host_devices ?? false,
            snapshotter: table.snapshotter,
            options: table.options,
          },
        ];
      });
      const { defaultRuntime } = daemon;
      const config = { containerd: { defaultRuntimeName: defaultRuntime, runtimes: Object.fromEntries(runtimes) } };
      const conditions = ["RuntimeReady", "NetworkReady"].map((type) => ({
        type,
        status: true,
        reason: "",
        message: "",
      }));
      return { conditions, info: { config: JSON.stringify(config) } };
    }),
  listSandboxes: () =>
    call("ListPodSandbox", () =>
      daemon.sandboxes.map(({ handler, name: full }, index) => {
        const [namespace = "", name = ""] = full.split("/");
        return {
          id: String(index),
          metadata: { name, namespace, uid: "", attempt: 0 },
          ready: true,
          runtimeHandler: handler,
        };
      }),
    ),
  runSandbox: () => call("RunPodSandbox", () => "1"),
  stopSandbox: () => call("StopPodSandbox", () => undefined),
  removeSandbox: (id) =>
    call("RemovePodSandbox", () => {
      daemon.sandboxes = daemon.sandboxes.filter((_, index) => String(index) !== id);
    }),
});
