import type { InstallSpec } from "../../runtime/spec.ts";
import type { Located } from "../containerd/locate.ts";
import type { Host } from "../host/host.ts";
import type { Cluster } from "../kubernetes/connect.ts";
import type { Daemon } from "./daemon.ts";
import type { Log } from "./log.ts";

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
  /** Labels, status and Events of the node, and the tickets that its group's nodes take turns with. */
  cluster: Cluster;
  /** Lines for stdout and for the node's own log. */
  log: Log;
  /** Refuses if the host cannot run the runtimes. */
  checkHost: (located: Located) => Promise<void>;
  /** Aborted: do not begin to change containerd's file. A change that has begun is completed. */
  signal?: AbortSignal;
}
