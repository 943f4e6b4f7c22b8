import { CriError } from "./cri-error.ts";
import {
  decoded,
  encoded,
  MalformedMessage,
  type Read,
  readNothing,
  readSandboxes,
  readSandboxId,
  readStatus,
  readVersion,
  writeNothing,
  writeRunRequest,
  writeSandboxId,
  writeStatusRequest,
} from "./cri-messages.ts";
import { GrpcError, grpcCodes, unaryCall } from "./grpc.ts";

/** Kubernetes' container runtime interface between kubelet and containerd: the few calls and fields used here. */
export interface Cri {
  version(timeoutMs: number): Promise<{ runtimeName: string; runtimeVersion: string }>;
  status(timeoutMs: number): Promise<Status>;
  listSandboxes(timeoutMs: number): Promise<Sandbox[]>;
  /** Returns the id of the started sandbox. */
  runSandbox(config: SandboxConfig, handler: string, timeoutMs: number): Promise<string>;
  stopSandbox(id: string, timeoutMs: number): Promise<void>;
  removeSandbox(id: string, timeoutMs: number): Promise<void>;
}

export interface Status {
  conditions: Condition[];
  /** What containerd adds to a verbose status; its `config` is JSON. */
  info: Record<string, string>;
}

export interface Condition {
  type: string;
  status: boolean;
  reason: string;
  message: string;
}

export interface Sandbox {
  id: string;
  metadata: SandboxMetadata;
  ready: boolean;
  runtimeHandler: string;
}

export interface SandboxMetadata {
  name: string;
  uid: string;
  namespace: string;
  attempt: number;
}

export interface SandboxConfig {
  metadata: SandboxMetadata;
  hostname: string;
  /** containerd writes the sandbox's resolv.conf from it; if it is empty, the node must have one to copy. */
  dnsConfig: { options: string[] };
  labels: Record<string, string>;
  /** The cgroup below which the sandbox's own is made; without one, containerd's, where nobody removes it. */
  linux: { cgroupParent: string };
}

/** `socket`: the path by which this process reaches it. Each call connects anew, so a restarted daemon is found at once. */
export function openCri(socket: string): Cri {
  const call = async <T>(
    method: string,
    request: Uint8Array,
    read: Read<T>,
    empty: T,
    timeoutMs: number,
  ): Promise<T> => {
    try {
      const answer = await unaryCall(socket, `/runtime.v1.RuntimeService/${method}`, request, timeoutMs);
      return decoded(read, empty, answer);
    } catch (error) {
      throw criError(method, socket, error);
    }
  };
  const nothing = encoded(writeNothing, {});
  return {
    version: (timeoutMs) => call("Version", nothing, readVersion, { runtimeName: "", runtimeVersion: "" }, timeoutMs),
    async status(timeoutMs) {
      const request = encoded(writeStatusRequest, { verbose: true });
      return await call("Status", request, readStatus, { conditions: [], info: {} }, timeoutMs);
    },
    listSandboxes: (timeoutMs) => call("ListPodSandbox", nothing, readSandboxes, [], timeoutMs),
    async runSandbox(config, handler, timeoutMs) {
      const request = encoded(writeRunRequest, { config, handler });
      return (await call("RunPodSandbox", request, readSandboxId, { id: "" }, timeoutMs)).id;
    },
    async stopSandbox(id, timeoutMs) {
      await call("StopPodSandbox", encoded(writeSandboxId, id), readNothing, {}, timeoutMs);
    },
    async removeSandbox(id, timeoutMs) {
      await call("RemovePodSandbox", encoded(writeSandboxId, id), readNothing, {}, timeoutMs);
    },
  };
}

function criError(method: string, socket: string, error: unknown): unknown {
  if (error instanceof MalformedMessage)
    return new CriError(`containerd's answer to ${method} at ${socket} cannot be read (${error.message})`);
  if (!(error instanceof GrpcError)) return error;
  const { code, message } = error;
  if (code === grpcCodes.unimplemented) {
    return new CriError(`containerd answers at ${socket}, but its CRI plugin is not running (${message})`, true);
  }
  if (code === grpcCodes.unavailable)
    return new CriError(`no containerd answers at ${socket} (${connection(message)})`);
  if (code === grpcCodes.deadlineExceeded)
    return new CriError(`containerd did not answer ${method} at ${socket} in time`);
  return new CriError(`containerd answered ${method} with: ${message}`);
}

/** What the system's word for a failed connection means. */
function connection(word: string): string {
  if (word === "ENOENT") return "there is no such socket";
  if (word === "ECONNREFUSED") return "nothing listens there";
  return word;
}
