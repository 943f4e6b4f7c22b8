import { CriError } from "./cri-error.ts";
import {
  decoded,
  encoded,
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
  const call = async (method: string, request: Uint8Array, timeoutMs: number): Promise<Buffer> => {
    try {
      return await unaryCall(socket, `/runtime.v1.RuntimeService/${method}`, request, timeoutMs);
    } catch (error) {
      throw error instanceof GrpcError ? criError(method, socket, error) : error;
    }
  };
  const nothing = encoded(writeNothing, {});
  return {
    async version(timeoutMs) {
      const answer = await call("Version", nothing, timeoutMs);
      return decoded(readVersion, { runtimeName: "", runtimeVersion: "" }, answer);
    },
    async status(timeoutMs) {
      const answer = await call("Status", encoded(writeStatusRequest, { verbose: true }), timeoutMs);
      return decoded(readStatus, { conditions: [], info: {} }, answer);
    },
    listSandboxes: async (timeoutMs) => decoded(readSandboxes, [], await call("ListPodSandbox", nothing, timeoutMs)),
    async runSandbox(config, handler, timeoutMs) {
      const answer = await call("RunPodSandbox", encoded(writeRunRequest, { config, handler }), timeoutMs);
      return decoded(readSandboxId, { id: "" }, answer).id;
    },
    async stopSandbox(id, timeoutMs) {
      await call("StopPodSandbox", encoded(writeSandboxId, id), timeoutMs);
    },
    async removeSandbox(id, timeoutMs) {
      await call("RemovePodSandbox", encoded(writeSandboxId, id), timeoutMs);
    },
  };
}

function criError(method: string, socket: string, { code, message }: GrpcError): CriError {
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
