import type { InstallSpec } from "../../runtime/spec.ts";
import type { Cri } from "../containerd/cri.ts";
import type { HandlerEntry } from "../containerd/entry.ts";
import type { Expectation, GateResult } from "../containerd/gate.ts";
import type { Located } from "../containerd/locate.ts";
import type { OnDisk, PendingContext } from "../containerd/pending.ts";
import type { Proof } from "../containerd/sandbox.ts";
import type { ServingState } from "../containerd/serving.ts";
import type { ValidationContext } from "../containerd/validate.ts";
import type { Host } from "../host/host.ts";

export type { Expectation };

/**
 * containerd on one host, as the steps of an installation use it: a step (`restartDaemon`) calls a method (`daemon.restart`),
 * which calls a function of ../containerd (`restartUnit`) with the host and the CRI. An interface, so that tests
 * can substitute a daemon that breaks on command.
 */
export interface Daemon {
  /** `installed`: the file that holds our tables already. */
  locate(installed?: string): Promise<Located>;
  read(located: Located): Promise<{ edited: Buffer | undefined; configuration: Buffer | undefined }>;
  /** What containerd's files would make it serve if it started now. */
  onDisk(located: Located, configuration: Buffer | undefined): Promise<OnDisk>;
  /** What a restart would load that the running daemon has not; without a full stop. */
  pending(located: Located, context: PendingContext): Promise<string[]>;
  validate(
    located: Located,
    next: Buffer | undefined,
    entries: HandlerEntry[],
    context: ValidationContext,
  ): Promise<void>;
  /** Whether this containerd can read its configuration as it is on disk. */
  loads(located: Located): Promise<boolean>;
  restart(located: Located): Promise<void>;
  /** It is starting with its file as it is now: another restart would gain nothing. */
  isStarting(located: Located): Promise<boolean>;
  /** What the running daemon serves; throws if its CRI does not answer. */
  serving(located: Located, timeoutMs: number): Promise<ServingState>;
  gate(located: Located, expectation: Expectation): Promise<GateResult>;
  /** Starts a sandbox with the handler, finds its shim, removes the sandbox; throws if any of this fails. */
  verifySandbox(located: Located, entry: HandlerEntry, dialSeconds: number | undefined): Promise<Proof>;
  /** Removes the sandboxes of ours that an earlier run left behind, whatever their handler; returns what is in the way. */
  removeStaleSandboxes(located: Located): Promise<string[]>;
  /** What may write to the file, in words. */
  writers(located: Located): Promise<string[]>;
  /** Why the CRI does not answer, as far as containerd's files or its journal tell; without a full stop. */
  whyDown(located: Located): Promise<string | undefined>;
  /** `namespace/name` of the pods that use the handler. */
  sandboxesUsing(located: Located, handler: string): Promise<string[]>;
}

/** The real one. Its parts are loaded on first use: `plan` on a file tree needs few of them. */
export function containerdOn(
  host: Host,
  distribution: InstallSpec["distribution"],
  openCri: (socket: string) => Promise<Cri> = async (socket) => (await import("../containerd/cri.ts")).openCri(socket),
): Daemon {
  const connect = async (located: Located): Promise<Cri> => openCri(await host.localPath(located.socket));

  return {
    locate: async (installed) => (await import("../containerd/locate.ts")).locate(host, distribution, installed),
    read: async (located) => (await import("../containerd/locate.ts")).readConfiguration(host, located),
    validate: async (located, next, entries, context) =>
      (await import("../containerd/validate.ts")).validateConfiguration(host, located, next, entries, context),
    loads: async (located) => (await import("../containerd/validate.ts")).loadsConfiguration(host, located),
    onDisk: async (located, configuration) =>
      (await import("../containerd/pending.ts")).readOnDisk(host, located, configuration),
    pending: async (located, context) =>
      (await import("../containerd/pending.ts")).pendingChanges(host, located, context),
    isStarting: async (located) => (await import("../containerd/restart.ts")).isStartingWith(host, located),
    restart: async (located) => (await import("../containerd/restart.ts")).restartUnit(host, located),
    serving: async (located, timeoutMs) =>
      (await import("../containerd/serving.ts")).readServing(await connect(located), timeoutMs),
    gate: async (located, expectation) =>
      (await import("../containerd/gate.ts")).daemonGate(host, located, await connect(located), expectation),
    verifySandbox: async (located, entry, dialSeconds) =>
      (await import("../containerd/sandbox.ts")).verifySandbox(host, await connect(located), entry, dialSeconds),
    removeStaleSandboxes: async (located) =>
      (await import("../containerd/sandbox.ts")).removeStaleSandboxes(host, await connect(located)),
    writers: async (located) => (await import("../containerd/writers.ts")).possibleWriters(host, located),
    whyDown: async (located) => (await import("../containerd/why-down.ts")).whyDown(host, located),
    sandboxesUsing: async (located, handler) =>
      (await import("../containerd/sandbox.ts")).sandboxesUsing(await connect(located), handler),
  };
}
