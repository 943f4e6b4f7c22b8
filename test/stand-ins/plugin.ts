/** The provider protocol (gRPC), so that a stand-in only needs a handful of functions on property values. */
import { flushCompileCache } from "node:module";
import {
  credentials,
  type handleUnaryCall,
  Metadata,
  Server,
  ServerCredentials,
  type ServiceDefinition,
  type ServiceError,
  status,
  type UntypedServiceImplementation,
} from "@grpc/grpc-js";
import engineGrpc from "@pulumi/pulumi/proto/engine_grpc_pb.js";
import engine from "@pulumi/pulumi/proto/engine_pb.js";
import pluginMessages from "@pulumi/pulumi/proto/plugin_pb.js";
import providerGrpc from "@pulumi/pulumi/proto/provider_grpc_pb.js";
import protocol from "@pulumi/pulumi/proto/provider_pb.js";
import statusMessages from "@pulumi/pulumi/proto/status_pb.js";
import anyMessages from "google-protobuf/google/protobuf/any_pb.js";
import emptyMessages from "google-protobuf/google/protobuf/empty_pb.js";
import structMessages from "google-protobuf/google/protobuf/struct_pb.js";
import { type Properties, withoutNulls } from "./values.ts";

export type DiffKind = "add" | "delete" | "update";

export interface Diff {
  /** By property path. */
  changes: Map<string, { kind: DiffKind; replace: boolean }>;
  deleteBeforeReplace?: boolean;
}

export interface Failure {
  property: string;
  reason: string;
}

export interface Checked {
  inputs: Properties;
  failures?: Failure[];
}

export interface Log {
  /** Stays in the update's log. */
  info(message: string): void;
  warn(message: string): void;
  error(message: string): void;
  /** Shown beside the resource only while it is being worked on. */
  status(message: string): void;
}

interface About {
  urn: string;
  /** The type token in the URN. */
  type: string;
  name: string;
  log: Log;
}

/** What a provider does with its resources. `state` is what it returned last, `inputs` what `check` returned. */
export interface Provider {
  checkConfig?(inputs: Properties): Checked;
  diffConfig?(olds: Properties, news: Properties): Diff;
  /** The variables without their `<name>:config:` prefix. */
  configure?(variables: Record<string, string>): Promise<void>;
  check(request: About & { news: Properties; olds: Properties; randomSeed: Uint8Array }): Promise<Checked>;
  diff(request: About & { id: string; state: Properties; inputs: Properties; oldInputs: Properties }): Promise<Diff>;
  create(
    request: About & { inputs: Properties; preview: boolean; timeout: number },
  ): Promise<{ id: string; state: Properties }>;
  /** Resolves with undefined if the resource is gone. */
  read(
    request: About & { id: string; state: Properties; inputs: Properties },
  ): Promise<{ id: string; state: Properties; inputs: Properties } | undefined>;
  update(
    request: About & { id: string; state: Properties; inputs: Properties; preview: boolean; timeout: number },
  ): Promise<Properties>;
  delete(request: About & { id: string; state: Properties; timeout: number }): Promise<void>;
  invoke?(token: string, args: Properties): Promise<Properties>;
  cancel?(): void;
}

/** The resource exists but did not become ready: the engine keeps its state and tries again next time. */
export class NotReady extends Error {
  readonly id: string;
  readonly state: Properties;
  readonly inputs: Properties;

  constructor(message: string, id: string, state: Properties, inputs: Properties) {
    super(message);
    this.id = id;
    this.state = state;
    this.inputs = inputs;
  }
}

type Struct = InstanceType<typeof structMessages.Struct>;
const { Struct } = structMessages;

const unpack = (struct: Struct | undefined): Properties => (struct?.toJavaScript() ?? {}) as Properties;
const pack = (properties: Properties): Struct =>
  Struct.fromJavaScript(withoutNulls(properties) as Parameters<typeof Struct.fromJavaScript>[0]);

/** Serves the provider on a free port and prints the port for the engine. */
export async function serve(version: string, provider: Provider): Promise<void> {
  const server = new Server({ "grpc.max_receive_message_length": -1, "grpc.max_send_message_length": -1 });
  const service = providerGrpc.ResourceProviderService as unknown as ServiceDefinition;
  server.addService(service, methods(version, provider, engineLog(process.argv[2])));
  const port = await new Promise<number>((resolve, reject) =>
    server.bindAsync("127.0.0.1:0", ServerCredentials.createInsecure(), (error, bound) =>
      error ? reject(error) : resolve(bound),
    ),
  );
  process.stdout.write(`${port}\n`);
}

function methods(version: string, provider: Provider, logFor: (urn: string) => Log): UntypedServiceImplementation {
  const about = (urn: string): About => {
    const parts = urn.split("::");
    const type = parts[2]?.split("$").at(-1) ?? "";
    return { urn, type, name: parts.slice(3).join("::"), log: logFor(urn) };
  };
  const checkResponse = ({ inputs, failures = [] }: Checked) => {
    const response = new protocol.CheckResponse().setInputs(pack(inputs));
    for (const { property, reason } of failures)
      response.addFailures(new protocol.CheckFailure().setProperty(property).setReason(reason));
    return response;
  };
  return {
    getPluginInfo: unary(async () => new pluginMessages.PluginInfo().setVersion(version)),
    getSchema: unary(async () => new protocol.GetSchemaResponse().setSchema("{}")),
    checkConfig: unary(async (request: InstanceType<typeof protocol.CheckRequest>) => {
      const news = unpack(request.getNews());
      return checkResponse(provider.checkConfig?.(news) ?? { inputs: news });
    }),
    diffConfig: unary(async (request: InstanceType<typeof protocol.DiffRequest>) => {
      const olds = unpack(request.getOldInputs() ?? request.getOlds());
      return diffResponse(provider.diffConfig?.(olds, unpack(request.getNews())) ?? { changes: new Map() });
    }),
    configure: unary(async (request: InstanceType<typeof protocol.ConfigureRequest>) => {
      const variables: Record<string, string> = {};
      for (const [key, value] of request.getVariablesMap().entries()) variables[key.split(":").at(-1) ?? key] = value;
      await provider.configure?.(variables);
      return new protocol.ConfigureResponse().setAcceptsecrets(true).setSupportspreview(true);
    }),
    check: unary(async (request: InstanceType<typeof protocol.CheckRequest>) => {
      // The engine kills its plugins: what the next one need not compile again is kept now.
      flushCompileCache();
      const olds = unpack(request.getOlds());
      const randomSeed = request.getRandomseed_asU8();
      return checkResponse(
        await provider.check({ ...about(request.getUrn()), news: unpack(request.getNews()), olds, randomSeed }),
      );
    }),
    diff: unary(async (request: InstanceType<typeof protocol.DiffRequest>) => {
      const diff = await provider.diff({
        ...about(request.getUrn()),
        id: request.getId(),
        state: unpack(request.getOlds()),
        oldInputs: unpack(request.getOldInputs()),
        inputs: unpack(request.getNews()),
      });
      return diffResponse(withoutIgnored(diff, request.getIgnorechangesList()));
    }),
    create: unary(async (request: InstanceType<typeof protocol.CreateRequest>) => {
      const { id, state } = await provider.create({
        ...about(request.getUrn()),
        inputs: unpack(request.getProperties()),
        preview: request.getPreview(),
        timeout: request.getTimeout(),
      });
      return new protocol.CreateResponse().setId(id).setProperties(pack(state));
    }),
    read: unary(async (request: InstanceType<typeof protocol.ReadRequest>) => {
      const found = await provider.read({
        ...about(request.getUrn()),
        id: request.getId(),
        state: unpack(request.getProperties()),
        inputs: unpack(request.getInputs()),
      });
      if (!found) return new protocol.ReadResponse();
      return new protocol.ReadResponse().setId(found.id).setProperties(pack(found.state)).setInputs(pack(found.inputs));
    }),
    update: unary(async (request: InstanceType<typeof protocol.UpdateRequest>) => {
      const state = await provider.update({
        ...about(request.getUrn()),
        id: request.getId(),
        state: unpack(request.getOlds()),
        inputs: unpack(request.getNews()),
        preview: request.getPreview(),
        timeout: request.getTimeout(),
      });
      return new protocol.UpdateResponse().setProperties(pack(state));
    }),
    delete: unary(async (request: InstanceType<typeof protocol.DeleteRequest>) => {
      await provider.delete({
        ...about(request.getUrn()),
        id: request.getId(),
        state: unpack(request.getProperties()),
        timeout: request.getTimeout(),
      });
      return new emptyMessages.Empty();
    }),
    invoke: unary(async (request: InstanceType<typeof protocol.InvokeRequest>) => {
      if (!provider.invoke) throw new Error(`${request.getTok()} is not a function of this stand-in`);
      return new protocol.InvokeResponse().setReturn(
        pack(await provider.invoke(request.getTok(), unpack(request.getArgs()))),
      );
    }),
    cancel: unary(async () => {
      provider.cancel?.();
      return new emptyMessages.Empty();
    }),
  };
}

function diffResponse({ changes, deleteBeforeReplace = false }: Diff) {
  const { PropertyDiff, DiffResponse } = protocol;
  const response = new DiffResponse()
    .setChanges(changes.size > 0 ? DiffResponse.DiffChanges.DIFF_SOME : DiffResponse.DiffChanges.DIFF_NONE)
    .setHasdetaileddiff(true)
    .setDeletebeforereplace(deleteBeforeReplace);
  const kinds = {
    add: [PropertyDiff.Kind.ADD, PropertyDiff.Kind.ADD_REPLACE],
    delete: [PropertyDiff.Kind.DELETE, PropertyDiff.Kind.DELETE_REPLACE],
    update: [PropertyDiff.Kind.UPDATE, PropertyDiff.Kind.UPDATE_REPLACE],
  } as const;
  for (const [path, { kind, replace }] of changes) {
    response.addDiffs(path.split(/[.[]/, 1)[0] ?? path);
    if (replace) response.addReplaces(path);
    const change = new PropertyDiff().setKind(kinds[kind][replace ? 1 : 0]).setInputdiff(kind === "delete");
    response.getDetaileddiffMap().set(path, change);
  }
  return response;
}

/** Without the changes at or below the paths that the program ignores. */
function withoutIgnored(diff: Diff, ignored: string[]): Diff {
  const isIgnored = (path: string) =>
    ignored.some((prefix) => path === prefix || path.startsWith(`${prefix}.`) || path.startsWith(`${prefix}[`));
  return { ...diff, changes: new Map([...diff.changes].filter(([path]) => !isIgnored(path))) };
}

function unary<Request, Response>(
  handler: (request: Request) => Promise<Response>,
): handleUnaryCall<Request, Response> {
  return (call, callback) => {
    handler(call.request).then(
      (response) => spoken.then(() => callback(null, response)),
      (error: Error) => spoken.then(() => callback(rpcError(error))),
    );
  };
}

function rpcError(error: Error): Partial<ServiceError> {
  const metadata = new Metadata();
  if (error instanceof NotReady) {
    const detail = new protocol.ErrorResourceInitFailed()
      .setId(error.id)
      .setProperties(pack(error.state))
      .setInputs(pack(error.inputs))
      .setReasonsList([error.message]);
    const packed = new anyMessages.Any();
    packed.pack(detail.serializeBinary(), "pulumirpc.ErrorResourceInitFailed");
    const details = new statusMessages.Status()
      .setCode(status.UNKNOWN)
      .setMessage(error.message)
      .setDetailsList([packed]);
    metadata.add("grpc-status-details-bin", Buffer.from(details.serializeBinary()));
  }
  return { code: status.UNKNOWN, details: error.message, metadata };
}

/** Log messages that have not reached the engine yet. They are sent one after another to keep their order. */
let spoken: Promise<void> = Promise.resolve();

function engineLog(address: string | undefined): (urn: string) => Log {
  if (!address) throw new Error("This program is a plugin of the Pulumi engine, which passes it an address.");
  const client = new engineGrpc.EngineClient(address, credentials.createInsecure());
  const { INFO, WARNING, ERROR } = engine.LogSeverity;
  return (urn) => {
    const speaker =
      (severity: typeof INFO | typeof WARNING | typeof ERROR, ephemeral: boolean) => (message: string) => {
        const request = new engine.LogRequest().setSeverity(severity).setMessage(message).setUrn(urn);
        const said = () => new Promise<void>((resolve) => client.log(request.setEphemeral(ephemeral), () => resolve()));
        spoken = spoken.then(said);
      };
    return {
      info: speaker(INFO, false),
      warn: speaker(WARNING, false),
      error: speaker(ERROR, false),
      status: speaker(INFO, true),
    };
  };
}
