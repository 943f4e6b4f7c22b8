import { Refusal } from "../../runtime/refusal.ts";
import type { InstallSpec, RuntimeSpec } from "../../runtime/spec.ts";
import type { Located } from "../containerd/locate.ts";
import type { Host } from "../host/host.ts";
import { type Cluster, withoutKubernetes } from "../kubernetes/connect.ts";
import { containerdOn, type Daemon } from "./daemon.ts";
import type { Log } from "./log.ts";
import type { ReadSpec } from "./read-spec.ts";

/** Everything outside of it that an installation works with; passed in, so that tests can make each part fail. */
export interface Environment {
  /** The node's files, programs and clock. */
  host: Host;
  /** The node's containerd. */
  daemon: Daemon;
  /** What the node should be like. */
  spec: InstallSpec;
  /** SHA-256 of the spec's bytes, by which the cluster and the journal name it. */
  specHash: string;
  /** The directory, in this process's file system, with a folder for each payload. */
  payloads: string;
  /** The file, in this process's file system, with what guests are told about registries. */
  guestRegistry?: string | undefined;
  /** Labels, status and Events of the node, and the tickets that its group's nodes take turns with. */
  cluster: Cluster;
  /** Lines for stdout and for the node's own log. */
  log: Log;
  /** Refuses if the host cannot run the runtimes. */
  checkHost: (located: Located) => Promise<void>;
  /** Of these runtimes the handlers that the host cannot run now. Only reads, and says nothing. */
  unfit: (located: Located, runtimes: readonly Pick<RuntimeSpec, "handler" | "host">[]) => Promise<string[]>;
  /** Aborted: do not begin to change containerd's file. A change that has begun is completed. */
  signal?: AbortSignal;
}

/** The environment on a host: its own containerd, and no cluster unless one is given. */
export function environmentOf(
  { spec, specHash }: ReadSpec,
  { cluster, ...given }: Pick<Environment, "host" | "log" | "payloads" | "guestRegistry"> & { cluster?: Cluster },
): Environment {
  const { host, log } = given;
  return {
    ...given,
    daemon: containerdOn(host, spec.distribution),
    spec,
    specHash,
    cluster: cluster ?? withoutKubernetes(() => host.now()),
    checkHost: (located) => requireHost(host, spec, located, log),
    unfit: async (located, runtimes) =>
      runtimes.length === 0 ? [] : (await import("./host-findings.ts")).unfitFor(host, located, runtimes),
  };
}

async function requireHost(host: Host, spec: InstallSpec, located: Located, log: Log): Promise<void> {
  if (spec.runtimes.length === 0) return;
  const { hostFindings } = await import("./host-findings.ts");
  const findings = await hostFindings(host, located, spec);
  for (const finding of findings) log.warn("host-finding", { ...finding });
  const [error, ...others] = findings.filter(({ severity }) => severity === "error");
  if (error === undefined) return;
  const sentences = [error, ...others].map(({ message }) => message);
  throw new Refusal(
    others.length === 0 ? error.code : "host-unfit",
    `This host cannot run the runtimes in the spec: ${sentences.join(" ")}`,
  );
}
