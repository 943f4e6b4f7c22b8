import { toHex } from "../measure/bytes.ts";
import {
  deviceAnnotations,
  initdataAnnotation,
  kataAnnotations,
  policyAnnotation,
  reachesShim,
} from "../runtime/annotations.ts";
import { Refusal } from "../runtime/refusal.ts";
import {
  encodeInitdata,
  fitDigest,
  type Initdata,
  initdataDigest,
  initdataDocument,
  policyDigest,
} from "./initdata.ts";

/** The part of a Kubernetes pod template that matters here; everything else passes through unchanged. */
export interface PodTemplate {
  metadata?: { annotations?: Record<string, string>; [key: string]: unknown };
  spec: {
    runtimeClassName?: string;
    containers: Container[];
    initContainers?: Container[];
    imagePullSecrets?: { name?: string }[];
    hostNetwork?: boolean;
    hostPID?: boolean;
    hostIPC?: boolean;
    /** Limits of the whole pod (Kubernetes 1.34). */
    resources?: unknown;
    [key: string]: unknown;
  };
}

export interface Container {
  name: string;
  image?: string;
  /** "Always" on an init container: a sidecar, which runs beside the containers. */
  restartPolicy?: string;
  resources?: { limits?: Quantities; requests?: Quantities; [key: string]: unknown };
  [key: string]: unknown;
}
type Quantities = Record<string, string | number>;

/** A layer of an image, and what a node's tardev-snapshotter makes of it; see tardev.ts. */
export interface LayerRoot {
  /** "sha256:…" of the uncompressed layer, as the image's configuration has it. */
  diffId: string;
  /** dm-verity root hash, hex. */
  rootHash: string;
}

export interface WorkloadOptions {
  /** The runtime: RuntimeClass and handler. */
  handler: string;
  /** Further RuntimeClasses of the handler, which a template may name. */
  classNames?: readonly string[];
  /** Policy and data files for the guest. */
  initdata: Initdata;
  /** What containerd hands to the shim; see `podAnnotations`. Without that of initdata, guests get only their policy. */
  podAnnotations: readonly string[];
  /** The guest's own default policy is wanted: initdata without "policy.rego" is a mistake otherwise. */
  withoutPolicy?: boolean;
  /** The guest pulls the images, so pod pull secrets do not reach the program that needs them. */
  guestPull: boolean;
  /** For AKS, whose guests mount layers by their root hashes: those of every image of the template, by its reference. */
  layers?: Record<string, readonly LayerRoot[]>;
  /** Further annotations of pods, which depend on their guest's number of vCPUs. */
  annotationsFor?: (vcpus: number) => Record<string, string>;
  /** What Kata adds the pod's limits to; see sizeBeyondLimits. */
  vcpusBeyondLimits: number;
}

export interface PreparedWorkload {
  template: PodTemplate;
  /** Digest of what the guest is given (initdata, or only the policy) and what the report shows of it; hex. */
  initdata: { digest: string; hostData: string; mrConfigId: string };
  /** SHA-256 of policy.rego, hex; absent without a policy. */
  policyDigest?: string;
  /** Root hashes by container, lowest layer first: what the policy must say in its storages. With `layers` only. */
  rootHashes?: Record<string, string[]>;
  /** vCPUs of the guest with these limits: the row of the reference values to look at. */
  vcpus: number;
}

/** A field of the template or of the options, and what is wrong with it: words that go on after its name. */
export interface Problem {
  field: string;
  message: string;
}

/** Everything that makes a template unfit. */
export class UnfitWorkload extends Refusal {
  readonly problems: readonly Problem[];

  constructor(handler: string, problems: readonly Problem[]) {
    const lines = problems.map(({ field, message }) => `- ${field} ${message}.`);
    super("workload", `The pod template is not fit for ${handler}:\n${lines.join("\n")}`);
    this.problems = problems;
  }
}

/**
 * Returns the template ready for the runtime: class, requests equal to limits, annotations. Everything
 * that makes it unfit is refused at once, with the fields' paths.
 */
export function prepareWorkload(template: PodTemplate, options: WorkloadOptions): PreparedWorkload {
  const problems: Problem[] = [];
  const { spec } = template;
  // Pulumi's Kubernetes types allow a template without containers.
  if (!Array.isArray(spec?.containers))
    throw new UnfitWorkload(options.handler, [{ field: "spec.containers", message: "is missing" }]);
  const classes = [options.handler, ...(options.classNames ?? [])];
  if (spec.runtimeClassName !== undefined && !classes.includes(spec.runtimeClassName)) {
    problems.push({
      field: "spec.runtimeClassName",
      message: `is "${spec.runtimeClassName}", expected ${classes.map((name) => `"${name}"`).join(", ")} or nothing`,
    });
  }
  for (const field of ["hostNetwork", "hostPID", "hostIPC"] as const) {
    if (spec[field] === true)
      problems.push({ field: `spec.${field}`, message: "is true, but a confidential VM shares nothing with its host" });
  }
  if (spec.resources !== undefined)
    problems.push({
      field: "spec.resources",
      message: "is set, but the VM is made as large as its containers' own limits: set those instead",
    });
  if (
    options.guestPull &&
    (spec.imagePullSecrets?.length ?? 0) > 0 &&
    options.initdata.data["cdh.toml"] === undefined
  ) {
    problems.push({
      field: "spec.imagePullSecrets",
      message:
        'do not reach the guest, which pulls the images: name their key broker resource in the initdata\'s "cdh.toml"',
    });
  }
  const prepare = (field: string, containers: Container[]) =>
    containers.map((container, index) => prepareContainer(container, `spec.${field}[${index}]`, problems));
  const containers = prepare("containers", spec.containers);
  const initContainers = prepare("initContainers", spec.initContainers ?? []);
  const rootHashes = options.layers && rootHashesOf([...initContainers, ...containers], options.layers, problems);
  if (containers.length === 0) problems.push({ field: "spec.containers", message: "is empty" });

  const { name, value, digest } = guestData(options, problems);
  const vcpus = guestVcpus(containers, initContainers, options.vcpusBeyondLimits);
  const given = template.metadata?.annotations ?? {};
  const made: Record<string, string> = { [name]: value, ...options.annotationsFor?.(vcpus) };
  const annotations = { ...given, ...made };
  for (const [key, text] of Object.entries(made)) {
    if ((given[key] ?? text) === text) continue;
    const other =
      key === name ? "another document than the one given" : "something other than what belongs to this guest";
    problems.push({ field: `metadata.annotations["${key}"]`, message: `is set to ${other}` });
  }
  for (const [key, text] of Object.entries(annotations)) {
    if (!key.startsWith(kataAnnotations) && !key.startsWith(deviceAnnotations)) continue;
    if (!reachesShim(options.podAnnotations, key))
      problems.push({
        field: `metadata.annotations["${key}"]`,
        message: `is ${shown(text)}, but ${withheld(key, options)}`,
      });
  }
  const size = Object.entries(annotations).reduce(
    (sum, [key, text]) => sum + Buffer.byteLength(key) + Buffer.byteLength(text),
    0,
  );
  if (size > 256 << 10)
    problems.push({
      field: "metadata.annotations",
      message: `has ${size} bytes with the initdata, but Kubernetes allows ${256 << 10}`,
    });
  if (problems.length > 0) throw new UnfitWorkload(options.handler, problems);

  const policy = options.initdata.data["policy.rego"];
  return {
    template: {
      ...template,
      metadata: { ...template.metadata, annotations },
      spec: {
        ...spec,
        runtimeClassName: spec.runtimeClassName ?? options.handler,
        containers,
        ...(spec.initContainers === undefined ? {} : { initContainers }),
      },
    },
    initdata: {
      digest: toHex(digest),
      hostData: toHex(fitDigest(digest, 32)),
      mrConfigId: toHex(fitDigest(digest, 48)),
    },
    ...(policy === undefined ? {} : { policyDigest: policyDigest(policy) }),
    ...(rootHashes === undefined ? {} : { rootHashes }),
    vcpus,
  };
}

const shown = (text: string): string => JSON.stringify(text.length > 60 ? `${text.slice(0, 60)}…` : text);

/** Why an annotation for the shim is not one of this runtime's, and what to do. */
function withheld(key: string, { podAnnotations }: WorkloadOptions): string {
  if (key === policyAnnotation) return 'this guest takes its policy from initdata: set initdata.data["policy.rego"]';
  if (key === initdataAnnotation) return "this Kata is older than initdata and takes only a policy: remove it";
  if (key.startsWith(deviceAnnotations)) return "the platform has no devices to give to its guests: remove it";
  const own = podAnnotations.filter((pattern) => pattern.startsWith(kataAnnotations)).join(", ");
  return `containerd hands nothing of ${kataAnnotations}* to this runtime except ${own}: remove it`;
}

/** The annotation with which the guest gets its policy and data files, and the digest that stands for them. */
function guestData(
  { initdata, podAnnotations, withoutPolicy = false }: WorkloadOptions,
  problems: Problem[],
): { name: string; value: string; digest: Uint8Array } {
  const given = initdata.data["policy.rego"];
  if (given !== undefined && withoutPolicy)
    problems.push({
      field: "withoutPolicy",
      message: 'is true, but initdata.data has a "policy.rego": remove one of them',
    });
  if (given?.trim() === "")
    problems.push({ field: 'initdata.data["policy.rego"]', message: "is empty, which is no policy" });
  if (podAnnotations.includes(initdataAnnotation)) {
    if (given === undefined && !withoutPolicy)
      problems.push({
        field: "initdata.data",
        message:
          "has no \"policy.rego\": the one in the guest's image then decides, and upstream Kata's lets the host do anything, such as run programs in the containers. Add one (genpolicy writes it), or say withoutPolicy: true",
      });
    const document = initdataDocument(initdata);
    return { name: initdataAnnotation, value: encodeInitdata(document), digest: initdataDigest(document).digest };
  }
  const { "policy.rego": policy, ...others } = initdata.data;
  if (policy === undefined)
    problems.push({ field: "initdata.data", message: 'has no "policy.rego", without which no container may start' });
  for (const file of Object.keys(others))
    problems.push({
      field: `initdata.data["${file}"]`,
      message: "does not reach the guest: this Kata takes only the policy",
    });
  const rego = policy ?? "";
  return {
    name: policyAnnotation,
    value: Buffer.from(rego).toString("base64"),
    digest: Buffer.from(policyDigest(rego), "hex"),
  };
}

function prepareContainer(container: Container, path: string, problems: Problem[]): Container {
  if (!/@sha256:[0-9a-f]{64}$/.test(container.image ?? "")) {
    problems.push({
      field: `${path}.image`,
      message: `is "${container.image ?? ""}", expected a digest (…@sha256:<64 hex digits>): the policy applies to one content only`,
    });
  }
  const { limits = {}, requests = {} } = container.resources ?? {};
  const merged: Quantities = { ...requests, ...limits };
  for (const [name, example] of [
    ["cpu", "cores such as 2 or 500m"],
    ["memory", "bytes such as 512Mi"],
  ] as const) {
    const limit = merged[name];
    const field = `${path}.resources.limits.${name}`;
    if (limit === undefined)
      problems.push({ field, message: `is missing: the limits decide the VM's size, once and for all` });
    // Zero is Kubernetes' word for no limit.
    else if (!amount(limit)) problems.push({ field, message: `is "${limit}", expected ${example}` });
  }
  for (const [name, request] of Object.entries(requests)) {
    const limit = limits[name];
    if (limit !== undefined && !isEqual(limit, request)) {
      problems.push({
        field: `${path}.resources.requests.${name}`,
        message: `is ${request}, but limits.${name} is ${limit}: a VM cannot grow, so they must be equal`,
      });
    }
  }
  return { ...container, resources: { ...container.resources, limits: merged, requests: merged } };
}

function rootHashesOf(
  containers: Container[],
  layers: NonNullable<WorkloadOptions["layers"]>,
  problems: Problem[],
): Record<string, string[]> {
  const found = containers.map(({ name, image = "" }) => {
    if (layers[image] === undefined)
      problems.push({
        field: "layers",
        message: `has no root hashes of ${image}, the image of ${name}: compute them with measure layers`,
      });
    return [name, (layers[image] ?? []).map(({ rootHash }) => rootHash)] as const;
  });
  return Object.fromEntries(found);
}

const suffixes = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];

/** A Kubernetes quantity in its base unit (cores, bytes); undefined for anything else. */
function amount(quantity: string | number): number | undefined {
  const [, number, exponent = "", suffix = ""] =
    /^(\d+(?:\.\d*)?|\.\d+)(?:([eE][+-]?\d+)|([numkMGTPE]|[KMGTPE]i))?$/.exec(String(quantity)) ?? [];
  if (number === undefined) return undefined;
  const value = Number(number + exponent);
  if (suffix.endsWith("i")) return value * 1024 ** ("KMGTPE".indexOf(suffix.charAt(0)) + 1);
  return value * 1000 ** (suffixes.indexOf(suffix) - suffixes.indexOf(""));
}

function isEqual(left: string | number, right: string | number): boolean {
  const [a, b] = [amount(left), amount(right)];
  return String(left) === String(right) || (a !== undefined && b !== undefined && Math.abs(a - b) <= 1e-12 * a);
}

/**
 * vCPUs of the guest with static_sandbox_resource_mgmt: Kata's own and the pod's CPU limit, rounded up. A pod's limit is
 * that of its containers and sidecars together, or of the largest init container (kubelet, ResourceConfigForPod).
 */
function guestVcpus(containers: Container[], initContainers: Container[], beyondLimits: number): number {
  const of = (container: Container) => amount(container.resources?.limits?.cpu ?? 0) ?? 0;
  let sidecars = 0;
  let start = 0;
  for (const container of initContainers) {
    if (container.restartPolicy === "Always") sidecars += of(container);
    else start = Math.max(start, sidecars + of(container));
  }
  const running = containers.reduce((sum, container) => sum + of(container), sidecars);
  // Kubernetes rounds up to thousandths; sums of binary fractions must not count as more than they are.
  const thousandths = Math.ceil((beyondLimits + Math.max(start, running)) * 1000 - 1e-6);
  return Math.ceil(thousandths / 1000);
}
