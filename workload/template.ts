import { toHex } from "../measure/bytes.ts";
import {
  deviceAnnotations,
  initdataAnnotation,
  kataAnnotations,
  policyAnnotation,
  reachesShim,
} from "../runtime/annotations.ts";
import type { GuestSize } from "../runtime/kata-configuration.ts";
import {
  encodeInitdata,
  fitDigest,
  type Initdata,
  initdataDigest,
  initdataDocument,
  policyDigest,
} from "./initdata.ts";
import { type Container, type Metadata, type PodTemplate, podTemplateSchema, type Quantities } from "./pod-template.ts";
import { type Problem, UnfitWorkload } from "./problems.ts";
import { amount, guestSize, isEqual, limitOfContainers } from "./sizing.ts";
import { type GuestFacts, judge, type TrapName } from "./traps.ts";

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
  guest: GuestFacts;
  /** Policy and data files for the guest. */
  initdata: Initdata;
  /** Makes the policy of the prepared template, which has no initdata yet, where `initdata` has none. */
  makePolicy?: ((template: PodTemplate) => string) | undefined;
  /** Traps that are known and wanted, by name. With "no-policy" none is made. */
  acknowledged?: readonly string[];
  /** Of the namespace that the pods will be in, as far as it is known. */
  namespace?: Metadata;
  /** Bytes of the images' layers as the registry has them, where that is known. */
  imageBytes?: number | undefined;
  /** For AKS, whose guests mount layers by their root hashes: those of every image of the template, by its reference. */
  layers?: Record<string, readonly LayerRoot[]> | undefined;
  /** Further annotations of pods, which depend on their guest's number of vCPUs. */
  annotationsFor?: (vcpus: number) => Record<string, string>;
  /** What Kata adds the pod's limits to; see sizeBeyondLimits. */
  beyondLimits: GuestSize;
}

export interface PreparedWorkload {
  template: PodTemplate;
  /** Digest of what the guest is given (initdata, or only the policy) and what the report shows of it; hex. */
  initdata: { digest: string; hostData: string; mrConfigId: string };
  /** SHA-256 of policy.rego, hex; absent without a policy. */
  policyDigest?: string;
  /** Root hashes by container, lowest layer first: what the policy must say in its storages. With `layers` only. */
  rootHashes?: Record<string, string[]>;
  /** The guest with these limits. Its vCPUs are the row of the reference values to look at. */
  size: GuestSize;
  /** Traps that there are, and that were acknowledged. */
  acknowledged: TrapName[];
}

/**
 * Returns the template ready for the runtime: class, requests equal to limits, annotations. Everything
 * that makes it unfit is refused at once, with the fields' paths.
 *
 * @throws UnfitWorkload
 */
export function prepareWorkload(given: unknown, options: WorkloadOptions): PreparedWorkload {
  const { handler, guest, acknowledged = [], beyondLimits } = options;
  const template = readTemplate(given, handler);
  const problems: Problem[] = [];
  const { spec } = template;
  const classes = [handler, ...(options.classNames ?? [])];
  if (spec.runtimeClassName !== undefined && !classes.includes(spec.runtimeClassName)) {
    problems.push({
      field: "spec.runtimeClassName",
      message: `is "${spec.runtimeClassName}", expected ${classes.map((name) => `"${name}"`).join(", ")} or nothing`,
    });
  }
  const ofPod = spec.resources === undefined ? undefined : prepareResources(spec.resources, "spec", problems);
  const prepare = (field: string, containers: Container[]) =>
    containers.map((container, index) =>
      prepareContainer(container, ofPod?.limits, `spec.${field}[${index}]`, problems),
    );
  const containers = prepare("containers", spec.containers);
  const initContainers = prepare("initContainers", spec.initContainers ?? []);
  const rootHashes = options.layers && rootHashesOf([...initContainers, ...containers], options.layers, problems);
  if (containers.length === 0) problems.push({ field: "spec.containers", message: "is empty" });

  const ready: PodTemplate = {
    ...template,
    spec: {
      ...spec,
      runtimeClassName: spec.runtimeClassName ?? handler,
      ...(ofPod && { resources: { ...spec.resources, ...ofPod } }),
      containers,
      ...(spec.initContainers === undefined ? {} : { initContainers }),
    },
  };
  if (ofPod !== undefined) checkSums(ready.spec, problems);
  const size = guestSize(ready.spec, beyondLimits);
  const hasInitdata = guest.podAnnotations.includes(initdataAnnotation);
  const policy = options.initdata.data["policy.rego"];
  const makes = policy === undefined && options.makePolicy !== undefined && !acknowledged.includes("no-policy");
  const judged = judge(
    {
      ...{ template, size, guest, namespace: options.namespace ?? {}, imageBytes: options.imageBytes },
      policy: policy !== undefined || makes ? "given" : hasInitdata ? "absent" : "required",
      hasRegistryLogins: guest.registryLogins === "initdata" && options.initdata.data["cdh.toml"] !== undefined,
    },
    acknowledged,
  );
  problems.push(...judged.problems);
  // Of a template that cannot be right, no policy is. It knows the annotations that are added, but for the one it is in.
  const ofSize = options.annotationsFor?.(size.vcpus);
  const annotated = { ...template.metadata?.annotations, ...ofSize };
  const forPolicy =
    ofSize === undefined ? ready : { ...ready, metadata: { ...template.metadata, annotations: annotated } };
  const made = makes && problems.length === 0 ? { "policy.rego": options.makePolicy?.(forPolicy) ?? "" } : {};
  const initdata = { ...options.initdata, data: { ...options.initdata.data, ...made } };

  const { name, value, digest } = guestData(initdata, hasInitdata, makes, problems);
  const added: Record<string, string> = { [name]: value, ...ofSize };
  const annotations = annotate(template.metadata?.annotations ?? {}, added, name, guest.podAnnotations, problems);
  if (problems.length > 0) throw unfit(handler, problems);

  const rego = initdata.data["policy.rego"];
  return {
    template: { ...ready, metadata: { ...template.metadata, annotations } },
    initdata: {
      digest: toHex(digest),
      hostData: toHex(fitDigest(digest, 32)),
      mrConfigId: toHex(fitDigest(digest, 48)),
    },
    ...(rego === undefined ? {} : { policyDigest: policyDigest(rego) }),
    ...(rootHashes === undefined ? {} : { rootHashes }),
    size,
    acknowledged: judged.used,
  };
}

const unfit = (handler: string, problems: readonly Problem[]): UnfitWorkload =>
  new UnfitWorkload("workload", `The pod template is not fit for ${handler}`, problems);

/** What is not even shaped as a template cannot be judged. */
function readTemplate(given: unknown, handler: string): PodTemplate {
  const { data, error } = podTemplateSchema.safeParse(given);
  if (data !== undefined) return data;
  const problems = error.issues.map((issue): Problem => {
    const value = issue.path.reduce<unknown>(
      (at, key) => (typeof at === "object" && at !== null ? Reflect.get(at, key) : undefined),
      given,
    );
    const field = issue.path.reduce<string>(
      (path, key) =>
        typeof key === "number" ? `${path}[${key}]` : path === "" ? String(key) : `${path}.${String(key)}`,
      "",
    );
    const expected = issue.code === "invalid_type" ? issue.expected : "a quantity such as 1 or 500Mi";
    return {
      field: field || "the template",
      message: value === undefined ? "is missing" : `is ${shown(JSON.stringify(value))}, expected ${expected}`,
    };
  });
  throw unfit(handler, problems);
}

/** The template's own annotations and those that are added, which no other value may stand in the way of. */
function annotate(
  given: Record<string, string>,
  added: Record<string, string>,
  guestData: string,
  podAnnotations: readonly string[],
  problems: Problem[],
): Record<string, string> {
  const annotations = { ...given, ...added };
  for (const [key, text] of Object.entries(added)) {
    if ((given[key] ?? text) === text) continue;
    const other =
      key === guestData ? "another document than the one given" : "something other than what belongs to this guest";
    problems.push({ field: `metadata.annotations["${key}"]`, message: `is set to ${other}` });
  }
  for (const [key, text] of Object.entries(annotations)) {
    if (!key.startsWith(kataAnnotations) && !key.startsWith(deviceAnnotations)) continue;
    if (!reachesShim(podAnnotations, key))
      problems.push({
        field: `metadata.annotations["${key}"]`,
        message: `is ${shown(JSON.stringify(text))}, but ${withheld(key, podAnnotations)}`,
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
  return annotations;
}

/** JSON, shortened within its closing quote. */
function shown(json: string): string {
  return json.length > 62 ? `${json.slice(0, 61)}…${json.endsWith('"') ? '"' : ""}` : json;
}

/** Why an annotation for the shim is not one of this runtime's, and what to do. */
function withheld(key: string, podAnnotations: readonly string[]): string {
  if (key === policyAnnotation) return 'this guest takes its policy from initdata: set initdata.data["policy.rego"]';
  if (key === initdataAnnotation) return "this Kata is older than initdata and takes only a policy: remove it";
  if (key.startsWith(deviceAnnotations)) return "the platform has no devices to give to its guests: remove it";
  const own = podAnnotations.filter((pattern) => pattern.startsWith(kataAnnotations)).join(", ");
  return `containerd hands nothing of ${kataAnnotations}* to this runtime except ${own}: remove it`;
}

/** The annotation with which the guest gets its policy and data files, and the digest that stands for them. */
function guestData(
  initdata: Initdata,
  hasInitdata: boolean,
  makesPolicy: boolean,
  problems: Problem[],
): { name: string; value: string; digest: Uint8Array } {
  const { "policy.rego": policy, ...others } = initdata.data;
  if (policy?.trim() === "")
    problems.push({ field: 'initdata.data["policy.rego"]', message: "is empty, which is no policy" });
  if (hasInitdata) {
    const document = initdataDocument(initdata);
    return { name: initdataAnnotation, value: encodeInitdata(document), digest: initdataDigest(document).digest };
  }
  if (policy === undefined && !makesPolicy)
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

function prepareContainer(
  container: Container,
  ofPod: Quantities | undefined,
  path: string,
  problems: Problem[],
): Container {
  if (!/@sha256:[0-9a-f]{64}$/.test(container.image ?? "")) {
    problems.push({
      field: `${path}.image`,
      message: `is "${container.image ?? ""}", expected a digest (…@sha256:<64 hex digits>): the policy applies to one content only`,
    });
  }
  const resources = prepareResources(container.resources ?? {}, path, problems);
  for (const name of ["cpu", "memory"] as const) {
    if (resources.limits[name] === undefined && ofPod?.[name] === undefined)
      problems.push({
        field: `${path}.resources.limits.${name}`,
        message: "is missing: the limits decide the VM's size, once and for all",
      });
  }
  const isBare = container.resources === undefined && Object.keys(resources.limits).length === 0;
  return isBare ? container : { ...container, resources: { ...container.resources, ...resources } };
}

/** Limits and requests, the same for both: of a container, or of the pod. */
function prepareResources(
  { limits = {}, requests = {} }: { limits?: Quantities | undefined; requests?: Quantities | undefined },
  path: string,
  problems: Problem[],
): { limits: Quantities; requests: Quantities } {
  const merged: Quantities = { ...requests, ...limits };
  for (const [name, example] of [
    ["cpu", "cores such as 2 or 500m"],
    ["memory", "bytes such as 512Mi"],
  ] as const) {
    const limit = merged[name];
    // Zero is Kubernetes' word for no limit.
    if (limit !== undefined && !amount(limit))
      problems.push({ field: `${path}.resources.limits.${name}`, message: `is "${limit}", expected ${example}` });
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
  return { limits: merged, requests: merged };
}

/** Kubernetes refuses pods whose containers ask for more than the pod has. */
function checkSums(spec: PodTemplate["spec"], problems: Problem[]): void {
  for (const resource of ["cpu", "memory"] as const) {
    const limit = spec.resources?.limits?.[resource];
    const [most, sum] = [amount(limit ?? 0) ?? 0, limitOfContainers(spec, resource)];
    if (limit !== undefined && most > 0 && sum > most * (1 + 1e-12))
      problems.push({
        field: `spec.resources.limits.${resource}`,
        message: `is ${limit}, but the limits of its containers add up to ${sum}: raise it, or lower theirs`,
      });
  }
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
