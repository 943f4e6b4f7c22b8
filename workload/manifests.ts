import { valuesOf } from "../measure/launch-values.ts";
import type { MeasuredRuntime } from "../measure/runtime.ts";
import { type ReferenceTable, referenceTable } from "../measure/verifier-formats.ts";
import { Refusal } from "../runtime/refusal.ts";
import { Documents, type ManifestFile, type Path } from "./documents.ts";
import { withoutEarlierOutput } from "./earlier-output.ts";
import type { Initdata } from "./initdata.ts";
import { readObjects, type Surroundings, type Workload } from "./objects.ts";
import { type PodTemplate, podTemplateSchema } from "./pod-template.ts";
import type { PolicyImage, PolicyOptIns } from "./policy/pod-policy.ts";
import { makePolicy } from "./policy-of-pod.ts";
import { UnfitWorkload } from "./problems.ts";
import { type Given, workloadOptions } from "./runtime-options.ts";
import { type LayerRoot, type PreparedWorkload, prepareWorkload } from "./template.ts";
import { acknowledgeable, type TrapName } from "./traps.ts";

/** Manifests that were read, and what has to be known of their images. */
export interface Manifests {
  files: readonly Documents[];
  workloads: readonly Workload[];
  surroundings: Surroundings;
  /** Each reference once, with the first place that names it ("web.yaml:12"). */
  images: { reference: string; place: string }[];
}

/** An image as a registry has it. */
export interface KnownImage {
  /** The reference with its digest: what pods get. */
  pinned: string;
  image: PolicyImage;
  /** Bytes of the layers as the registry has them. */
  size: number;
}

/** What pods of a workload are attested with. */
export interface PodReference {
  file: string;
  line: number;
  kind: string;
  namespace: string;
  name: string;
  handler: string;
  platform: string;
  payload: string;
  vcpus: number;
  memoryMiB: number;
  /** As the pods name them. */
  images: string[];
  policyDigest?: string;
  initdata: PreparedWorkload["initdata"];
  acknowledged: TrapName[];
  /** Launch values for the vCPUs; absent if the manifest has none. */
  reference?: ReferenceTable;
}

export interface PreparedManifests {
  /** The files' text, in their order. */
  texts: string[];
  pods: PodReference[];
  /** What users should know although it is no mistake: whole sentences. */
  notes: string[];
}

/**
 * @param namespace of objects that name none
 * @throws Refusal with file and line for what cannot be read
 */
export function readManifests(given: readonly ManifestFile[], namespace = "default"): Manifests {
  const files = given.map((file) => new Documents(file));
  const { workloads, surroundings } = readObjects(files, namespace);
  if (workloads.length === 0)
    throw new Refusal(
      "no-workload",
      `There is nothing that makes pods in ${files.map(({ name }) => name).join(", ")}.`,
    );
  const images = new Map<string, string>();
  for (const workload of workloads)
    for (const { image, path } of imagesOf(workload.template))
      if (!images.has(image)) images.set(image, placeOf(workload, path));
  return {
    files,
    workloads,
    surroundings,
    images: [...images].map(([reference, place]) => ({ reference, place })),
  };
}

export interface Settings extends Pick<Given, "acknowledged" | "classNames" | "distribution" | "guestRegistry"> {
  /** In place of what the pods' own annotations say. */
  initdata?: Initdata | undefined;
  allow?: PolicyOptIns;
}

/**
 * Makes every workload ready for a runtime. Pure; the same manifests, images and runtime give the same bytes, and the
 * output given again gives itself.
 *
 * @throws Refusal that lists every mistake of every workload, with file, line and field
 */
export function prepareManifests(
  { files, workloads, surroundings }: Manifests,
  runtime: MeasuredRuntime,
  known: ReadonlyMap<string, KnownImage>,
  settings: Settings,
): PreparedManifests {
  const mistakes: string[] = [];
  const notes: string[] = [];
  const pods = workloads.flatMap((workload): PodReference[] => {
    try {
      const { prepared, says } = prepareOne(workload, surroundings, runtime, known, settings);
      workload.documents.change(workload.document, workload.path, workload.template, prepared.template);
      notes.push(...says.map((note) => `${titleOf(workload)} ${note}`));
      return [referenceOf(workload, runtime, prepared)];
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      mistakes.push(...mistakesOf(workload, error));
      return [];
    }
  });
  if (mistakes.length > 0)
    throw new Refusal("workload", `These pods are not fit for ${runtime.spec.handler}:\n${mistakes.join("\n")}`);
  const used = new Set(pods.flatMap(({ acknowledged }) => acknowledged));
  const unused = acknowledgeable.filter((name) => settings.acknowledged?.includes(name) && !used.has(name));
  notes.push(...unused.map((name) => `"${name}" is acknowledged, but there is none.`));
  return { texts: files.map(String), pods, notes };
}

function prepareOne(
  workload: Workload,
  surroundings: Surroundings,
  runtime: MeasuredRuntime,
  known: ReadonlyMap<string, KnownImage>,
  settings: Settings,
): { prepared: PreparedWorkload; says: string[] } {
  const { allow, initdata, ...rest } = settings;
  const says: string[] = [];
  const earlier = withoutEarlierOutput(workload.template, runtime, settings.classNames);
  if (earlier.movedFrom !== undefined)
    says.push(`had runtimeClassName ${earlier.movedFrom}, and moves to ${runtime.spec.handler}.`);
  const images = imagesOf(earlier.template).flatMap(({ image }) => known.get(image) ?? []);
  const byReference = new Map(images.map((each) => [each.pinned, each]));
  const layers: Record<string, readonly LayerRoot[]> = {};
  for (const { pinned, image } of images) if (image.layers !== undefined) layers[pinned] = image.layers;
  const options = workloadOptions(runtime, {
    ...rest,
    namespace: surroundings.namespaces[workload.namespace] ?? {},
    initdata: initdata ?? earlier.initdata ?? { algorithm: "sha256", data: {} },
    layers,
  });
  const prepared = prepareWorkload(withDigests(earlier.template, known), {
    ...options,
    imageBytes: [...byReference.values()].reduce((sum, { size }) => sum + size, 0),
    makePolicy: (template) => {
      const made = makePolicy(template, workload, { surroundings, runtime, images, allow });
      says.push(...made.notes);
      return made.rego;
    },
  });
  if (prepared.template.spec.resources !== undefined)
    says.push("has limits of the whole pod (spec.resources): clusters before Kubernetes 1.34 ignore them.");
  if (prepared.acknowledged.length > 0) says.push(`has what was acknowledged: ${prepared.acknowledged.join(", ")}.`);
  return { prepared, says };
}

function referenceOf(workload: Workload, runtime: MeasuredRuntime, prepared: PreparedWorkload): PodReference {
  const { size, policyDigest, initdata, acknowledged, template } = prepared;
  const values = valuesOf(runtime, [size.vcpus]);
  return {
    file: workload.documents.name,
    line: workload.documents.line(workload.document, []),
    kind: workload.kind,
    namespace: workload.namespace,
    name: workload.name,
    handler: runtime.spec.handler,
    platform: runtime.platform,
    payload: runtime.manifest.name,
    vcpus: size.vcpus,
    memoryMiB: size.memoryMiB,
    images: [...new Set(imagesOf(template).map(({ image }) => image))],
    ...(policyDigest !== undefined && { policyDigest }),
    initdata,
    acknowledged,
    ...(values !== undefined && { reference: referenceTable(values) }),
  };
}

/** A line each, with the place of the field that it is about. */
function mistakesOf(workload: Workload, error: Refusal): string[] {
  if (!(error instanceof UnfitWorkload)) return [`- ${placeOf(workload, [])}: ${titleOf(workload)}: ${error.message}`];
  return error.problems.map(({ field, message }) => {
    const full =
      workload.path.length === 0 || !/^(spec|metadata)\b/.test(field) ? field : `${pathText(workload.path)}.${field}`;
    return `- ${placeOf(workload, pathOf(field))}: ${titleOf(workload)}: ${full} ${message}.`;
  });
}

const titleOf = ({ kind, name }: Workload): string => `${kind} ${name}`;

const placeOf = ({ documents, document, path }: Workload, below: Path): string =>
  `${documents.name}:${documents.line(document, [...path, ...below])}`;

const pathText = (path: Path): string =>
  path.reduce<string>((text, key) => (typeof key === "number" ? `${text}[${key}]` : `${text}${text && "."}${key}`), "");

/** `spec.containers[0].image` and `metadata.annotations["a.b/c"]` as keys. */
const pathOf = (field: string): Path =>
  [...field.matchAll(/\["([^"]*)"\]|\[(\d+)\]|([^.[]+)/g)].map(([, quoted, index, plain]) =>
    index === undefined ? (quoted ?? plain ?? "") : Number(index),
  );

const lists = ["initContainers", "containers"] as const;

/** Every image of a template, and where it stands. Nothing of what is no template. */
function imagesOf(template: unknown): { image: string; path: Path }[] {
  const { data } = podTemplateSchema.safeParse(template);
  return lists.flatMap((list) =>
    (data?.spec[list] ?? []).flatMap(({ image }, index) =>
      image === undefined ? [] : [{ image, path: ["spec", list, index, "image"] }],
    ),
  );
}

function withDigests(template: unknown, known: ReadonlyMap<string, KnownImage>): unknown {
  const { data } = podTemplateSchema.safeParse(template);
  if (data === undefined) return template;
  const pin = (containers: PodTemplate["spec"]["containers"]) =>
    containers.map((each) => {
      const pinned = each.image === undefined ? undefined : known.get(each.image)?.pinned;
      return pinned === undefined ? each : { ...each, image: pinned };
    });
  const { containers, initContainers } = data.spec;
  return {
    ...data,
    spec: { ...data.spec, containers: pin(containers), ...(initContainers && { initContainers: pin(initContainers) }) },
  };
}
