import * as pulumi from "@pulumi/pulumi";

/** What a program registers, without an engine: inputs as they would be sent, and the options that mocks do not show. */
export interface Recorded {
  type: string;
  name: string;
  parent?: string;
  inputs: Record<string, unknown>;
  options: Record<string, unknown>;
}

export interface RecordOptions {
  stack?: string;
  /** Outputs of a resource that its inputs do not hold. */
  outputs?: (resource: { type: string; name: string; inputs: Record<string, unknown> }) => Record<string, unknown>;
  /** Result of a function of a provider. */
  call?: (token: string, inputs: Record<string, unknown>) => Record<string, unknown>;
  /** Configuration by full key, structured values as JSON. */
  config?: Record<string, string>;
  secretKeys?: string[];
  preview?: boolean;
}

/** Runs a program (which registers resources, and may wait) under mocks and returns what it registered, sorted. */
export async function record(program: () => unknown, options: RecordOptions = {}): Promise<Recorded[]> {
  const recorded: Recorded[] = [];
  await pulumi.runtime.setMocks(
    {
      newResource: ({ type, name, inputs }) => ({
        id: `${name}-id`,
        state: { ...inputs, ...serverOutputs(type, inputs), ...options.outputs?.({ type, name, inputs }) },
      }),
      call: ({ token, inputs }) => options.call?.(token, inputs) ?? {},
    },
    "contrast-runtime",
    options.stack ?? "test",
    options.preview ?? false,
  );
  pulumi.runtime.setAllConfig(options.config ?? {}, options.secretKeys ?? []);
  process.env.PULUMI_CONFIG_SECRET_KEYS = JSON.stringify(options.secretKeys ?? []);

  const monitor = pulumi.runtime.getMonitor() as unknown as Monitor;
  const register = monitor.registerResource.bind(monitor);
  monitor.registerResource = (request, callback) => {
    if (request.getType() !== "pulumi:pulumi:Stack") recorded.push(describe(request));
    return register(request, callback);
  };
  await program();
  // Ends when the last registration, and what follows from it, is done.
  await pulumi.runtime.disconnect();
  const key = ({ type, name }: Recorded) => `${type} ${name}`;
  return recorded.sort((a, b) => (key(a) < key(b) ? -1 : 1));
}

/** What an API server adds that the program reads. */
const serverOutputs = (type: string, { metadata }: Record<string, unknown>) =>
  type.endsWith(":DaemonSet") ? { metadata: { ...(metadata as object), generation: 1 } } : {};

interface Monitor {
  registerResource(request: RegisterRequest, callback: unknown): unknown;
}

/** The part of the engine's request that says what a resource is. */
interface RegisterRequest {
  getType(): string;
  getName(): string;
  getParent(): string;
  getObject(): { toJavaScript(): Record<string, unknown> } | undefined;
  getDependenciesList(): string[];
  getProtect(): boolean;
  getIgnorechangesList(): string[];
  getReplaceonchangesList(): string[];
  getDeletebeforereplace(): boolean;
  getRetainondelete(): boolean;
  getDeletedwith(): string;
  getAdditionalsecretoutputsList(): string[];
  getProvider(): string;
  getProvidersMap(): { toObject(): [string, string][] };
}

function describe(request: RegisterRequest): Recorded {
  const parent = shortUrn(request.getParent());
  const options = {
    deletedWith: shortUrn(request.getDeletedwith()),
    deleteBeforeReplace: request.getDeletebeforereplace(),
    dependsOn: request.getDependenciesList().map(shortUrn).sort(),
    ignoreChanges: request.getIgnorechangesList(),
    protect: request.getProtect(),
    provider: shortUrn(request.getProvider()),
    replaceOnChanges: request.getReplaceonchangesList(),
    retainOnDelete: request.getRetainondelete(),
    additionalSecretOutputs: request.getAdditionalsecretoutputsList(),
  };
  const isSet = ([, value]: [string, unknown]) => (Array.isArray(value) ? value.length > 0 : Boolean(value));
  return {
    type: request.getType(),
    name: request.getName(),
    ...(parent && !parent.startsWith("pulumi:pulumi:Stack") && { parent }),
    inputs: plain(request.getObject()?.toJavaScript() ?? {}) as Record<string, unknown>,
    options: Object.fromEntries(Object.entries(options).filter(isSet)),
  };
}

/** "kubernetes:apps/v1:DaemonSet name": what is left of a URN without stack, project and parents. */
function shortUrn(urn: string): string {
  const [type, name] = urn.split("::").slice(2);
  return type === undefined ? "" : `${type.split("$").at(-1)} ${name}`;
}

const secretMark = "4dabf18193072939515e22adb298388d";

/** Secrets as {secret: value}, so that a reader sees that they are. */
function plain(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(plain);
  if (typeof value !== "object" || value === null) return value;
  if (secretMark in value) return { secret: plain((value as unknown as { value: unknown }).value) };
  return Object.fromEntries(
    Object.entries(value)
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([key, part]) => [key, plain(part)]),
  );
}
