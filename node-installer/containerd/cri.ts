import { type ChannelOptions, Client, credentials, type ServiceError, status } from "@grpc/grpc-js";
import protobuf from "protobufjs/light.js";
import { CriError } from "./cri-error.ts";

/** Kubernetes' container runtime interface between kubelet and containerd: the few calls and fields used here. */
export interface Cri {
  version(timeoutMs: number): Promise<{ runtimeName: string; runtimeVersion: string }>;
  /** `info`: what containerd adds to a verbose status; its `config` is JSON. */
  status(timeoutMs: number): Promise<{ conditions: Condition[]; info: Record<string, string> }>;
  listSandboxes(timeoutMs: number): Promise<Sandbox[]>;
  /** Returns the id of the started sandbox. */
  runSandbox(config: SandboxConfig, handler: string, timeoutMs: number): Promise<string>;
  stopSandbox(id: string, timeoutMs: number): Promise<void>;
  removeSandbox(id: string, timeoutMs: number): Promise<void>;
  close(): void;
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
  /** "SANDBOX_READY", "SANDBOX_NOTREADY" */
  state: string;
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

/** `socket`: the path by which this process reaches it. Nothing is sent before the first call. */
export function openCri(socket: string): Cri {
  const client = new Client(`unix:${socket}`, credentials.createInsecure(), channelOptions);
  const call = <Response>(method: string, request: object, timeoutMs: number): Promise<Response> => {
    const { path, requestType, responseType } = methodNamed(method);
    const serialize = (message: object) => Buffer.from(requestType.encode(requestType.fromObject(message)).finish());
    const deserialize = (bytes: Buffer) => responseType.toObject(responseType.decode(bytes), plainObjects);
    return new Promise((resolve, reject) => {
      const deadline = Date.now() + timeoutMs;
      client.makeUnaryRequest(path, serialize, deserialize, request, { deadline }, (error, response) =>
        error === null ? resolve(response as Response) : reject(criError(method, socket, error)),
      );
    });
  };
  return {
    version: (timeoutMs) => call("Version", {}, timeoutMs),
    async status(timeoutMs) {
      const answer = await call<{ status: { conditions: Condition[] } | null; info: Record<string, string> }>(
        "Status",
        { verbose: true },
        timeoutMs,
      );
      return { conditions: answer.status?.conditions ?? [], info: answer.info };
    },
    listSandboxes: async (timeoutMs) => (await call<{ items: Sandbox[] }>("ListPodSandbox", {}, timeoutMs)).items,
    async runSandbox(config, handler, timeoutMs) {
      const request = { config, runtimeHandler: handler };
      return (await call<{ podSandboxId: string }>("RunPodSandbox", request, timeoutMs)).podSandboxId;
    },
    stopSandbox: (id, timeoutMs) => call("StopPodSandbox", { podSandboxId: id }, timeoutMs),
    removeSandbox: (id, timeoutMs) => call("RemovePodSandbox", { podSandboxId: id }, timeoutMs),
    close: () => client.close(),
  };
}

/** Reconnects to a restarted daemon at once, not after gRPC's usual exponential backoff. */
const channelOptions: ChannelOptions = {
  "grpc.initial_reconnect_backoff_ms": 100,
  "grpc.min_reconnect_backoff_ms": 100,
  "grpc.max_reconnect_backoff_ms": 500,
  "grpc.enable_channelz": 0,
  "grpc.service_config_disable_resolution": 1,
};

function criError(method: string, socket: string, error: ServiceError): CriError {
  if (error.code === status.UNIMPLEMENTED) {
    return new CriError(`containerd answers at ${socket}, but its CRI plugin is not running (${error.details})`, true);
  }
  if (error.code === status.UNAVAILABLE)
    return new CriError(`no containerd answers at ${socket} (${connection(error)})`);
  if (error.code === status.DEADLINE_EXCEEDED)
    return new CriError(`containerd did not answer ${method} at ${socket} in time`);
  return new CriError(`containerd answered ${method} with: ${error.details}`);
}

/** gRPC wraps the one word that matters, such as ECONNREFUSED, in a sentence about its resolver. */
function connection({ details }: ServiceError): string {
  const code = /\b(E[A-Z]{3,})\b/.exec(details)?.[1];
  if (code === "ENOENT") return "there is no such socket";
  if (code === "ECONNREFUSED") return "nothing listens there";
  return code ?? details;
}

const field = (type: string, id: number): { type: string; id: number } => ({ type, id });
const list = (type: string, id: number): { rule: "repeated"; type: string; id: number } => ({
  rule: "repeated",
  type,
  id,
});
const map = (id: number): { keyType: "string"; type: "string"; id: number } => ({
  keyType: "string",
  type: "string",
  id,
});
const rpc = (name: string): { requestType: string; responseType: string } => ({
  requestType: `${name}Request`,
  responseType: `${name}Response`,
});

/** From k8s.io/cri-api, pkg/apis/runtime/v1/api.proto; field numbers never change. */
const schema = {
  nested: {
    runtime: {
      nested: {
        v1: {
          nested: {
            RuntimeService: {
              methods: {
                Version: rpc("Version"),
                Status: rpc("Status"),
                ListPodSandbox: rpc("ListPodSandbox"),
                RunPodSandbox: rpc("RunPodSandbox"),
                StopPodSandbox: rpc("StopPodSandbox"),
                RemovePodSandbox: rpc("RemovePodSandbox"),
              },
            },
            VersionRequest: { fields: {} },
            VersionResponse: { fields: { runtimeName: field("string", 2), runtimeVersion: field("string", 3) } },
            StatusRequest: { fields: { verbose: field("bool", 1) } },
            StatusResponse: { fields: { status: field("RuntimeStatus", 1), info: map(2) } },
            RuntimeStatus: { fields: { conditions: list("RuntimeCondition", 1) } },
            RuntimeCondition: {
              fields: {
                type: field("string", 1),
                status: field("bool", 2),
                reason: field("string", 3),
                message: field("string", 4),
              },
            },
            ListPodSandboxRequest: { fields: {} },
            ListPodSandboxResponse: { fields: { items: list("PodSandbox", 1) } },
            PodSandboxState: { values: { SANDBOX_READY: 0, SANDBOX_NOTREADY: 1 } },
            PodSandbox: {
              fields: {
                id: field("string", 1),
                metadata: field("PodSandboxMetadata", 2),
                state: field("PodSandboxState", 3),
                runtimeHandler: field("string", 7),
              },
            },
            PodSandboxMetadata: {
              fields: {
                name: field("string", 1),
                uid: field("string", 2),
                namespace: field("string", 3),
                attempt: field("uint32", 4),
              },
            },
            PodSandboxConfig: {
              fields: {
                metadata: field("PodSandboxMetadata", 1),
                hostname: field("string", 2),
                dnsConfig: field("DNSConfig", 4),
                labels: map(6),
                linux: field("LinuxPodSandboxConfig", 8),
              },
            },
            DNSConfig: { fields: { options: list("string", 3) } },
            LinuxPodSandboxConfig: { fields: { cgroupParent: field("string", 1) } },
            RunPodSandboxRequest: {
              fields: { config: field("PodSandboxConfig", 1), runtimeHandler: field("string", 2) },
            },
            RunPodSandboxResponse: { fields: { podSandboxId: field("string", 1) } },
            StopPodSandboxRequest: { fields: { podSandboxId: field("string", 1) } },
            StopPodSandboxResponse: { fields: {} },
            RemovePodSandboxRequest: { fields: { podSandboxId: field("string", 1) } },
            RemovePodSandboxResponse: { fields: {} },
          },
        },
      },
    },
  },
};

/** Plain protobuf, because gRPC's own loader takes as long to load as everything else. */
const service = protobuf.Root.fromJSON(schema as protobuf.INamespace).lookupService("runtime.v1.RuntimeService");
const plainObjects: protobuf.IConversionOptions = { defaults: true, enums: String };

function methodNamed(name: string): { path: string; requestType: protobuf.Type; responseType: protobuf.Type } {
  const { requestType, responseType } = service.methods[name] ?? {};
  if (requestType === undefined || responseType === undefined) throw new Error(`the schema has no ${name}`);
  return {
    path: `/runtime.v1.RuntimeService/${name}`,
    requestType: service.lookupType(requestType),
    responseType: service.lookupType(responseType),
  };
}
