import type { InstallSpec } from "../../runtime/spec.ts";
import type { Cri } from "../containerd/cri.ts";
import type { Expectation, GateResult } from "../containerd/gate.ts";
import type { Located } from "../containerd/locate.ts";
import type { ServingState } from "../containerd/serving.ts";
import type { HandlerEntry } from "../containerd/tables.ts";
import type { Host } from "../host/host.ts";

export type { Expectation };

/**
 * containerd on one host, as the steps of an installation use it: the room `../containerd` bound to a host and one
 * connection. An interface, so that tests can substitute a daemon that breaks on command.
 */
export interface Daemon {
  locate(): Promise<Located>;
  read(located: Located): Promise<{ edited: Buffer | undefined; configuration: Buffer | undefined }>;
  validate(located: Located, next: Buffer | undefined, entries: HandlerEntry[]): Promise<void>;
  restart(located: Located): Promise<void>;
  /** What the running daemon serves; throws if its CRI does not answer. */
  observe(located: Located, timeoutMs: number): Promise<ServingState>;
  gate(located: Located, expectation: Expectation): Promise<GateResult>;
  /** Starts a sandbox with the handler, finds its shim, removes the sandbox; throws if any of this fails. */
  verifySandbox(located: Located, entry: HandlerEntry): Promise<void>;
  /** `namespace/name` of the pods that use the handler. */
  sandboxesUsing(located: Located, handler: string): Promise<string[]>;
  close(): void;
}

/** The real one. Everything that speaks gRPC is loaded on first use: `plan` on a file tree never needs it. */
export function containerdOn(
  host: Host,
  distribution: InstallSpec["distribution"],
  openCri: (socket: string) => Promise<Cri> = async (socket) => (await import("../containerd/cri.ts")).openCri(socket),
): Daemon {
  let open: { socket: string; cri: Cri } | undefined;
  const connect = async (located: Located): Promise<Cri> => {
    const socket = await host.localPath(located.socket);
    if (open?.socket !== socket) {
      open?.cri.close();
      open = { socket, cri: await openCri(socket) };
    }
    return open.cri;
  };
  const gateRoom = () => import("../containerd/gate.ts");
  const verifyRoom = () => import("../containerd/verify.ts");

  return {
    locate: async () => (await import("../containerd/locate.ts")).locate(host, distribution),
    read: async (located) => (await import("../containerd/locate.ts")).readConfiguration(host, located),
    validate: async (located, next, entries) =>
      (await import("../containerd/validate.ts")).validate(host, located, next, entries),
    restart: async (located) => (await import("../containerd/restart.ts")).restart(host, located),
    observe: async (located, timeoutMs) =>
      (await import("../containerd/serving.ts")).observe(await connect(located), timeoutMs),
    gate: async (located, expectation) => (await gateRoom()).gate(host, located, await connect(located), expectation),
    verifySandbox: async (located, entry) => (await verifyRoom()).verifySandbox(host, await connect(located), entry),
    sandboxesUsing: async (located, handler) => (await verifyRoom()).sandboxesUsing(await connect(located), handler),
    close: () => open?.cri.close(),
  };
}
