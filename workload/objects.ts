import * as z from "zod";
import { Refusal } from "../runtime/refusal.ts";
import type { Documents, Path } from "./documents.ts";
import { type Metadata, metadataSchema } from "./pod-template.ts";
import { type PodOwner, podOwners } from "./policy/pod-policy.ts";

/** An object among the documents: a document itself, or an item of a list. */
interface Found {
  documents: Documents;
  document: number;
  path: Path;
  kind: string;
  value: Record<string, unknown>;
}

/** Something that makes pods. */
export interface Workload {
  documents: Documents;
  document: number;
  /** Of the template in its document. */
  path: Path;
  kind: PodOwner;
  name: string;
  namespace: string;
  /** As the file has it; keys without a value are left out, as Kubernetes does. */
  template: unknown;
  /** By name: whether volumeClaimTemplates are file systems. */
  claims: Record<string, { volumeMode: "Filesystem" | "Block" }>;
}

/** What else is in the files and decides about pods. */
export interface Surroundings {
  /** By name. */
  namespaces: Record<string, Metadata>;
  /** By namespace and name ("web/settings"): their text. */
  configMaps: Record<string, Record<string, string>>;
  secrets: Record<string, Record<string, string>>;
  claims: Record<string, { volumeMode: "Filesystem" | "Block" }>;
}

/** Where an object of a kind has its pod template. */
const templates: Record<PodOwner, Path> = {
  Pod: [],
  Deployment: ["spec", "template"],
  ReplicaSet: ["spec", "template"],
  StatefulSet: ["spec", "template"],
  DaemonSet: ["spec", "template"],
  Job: ["spec", "template"],
  CronJob: ["spec", "jobTemplate", "spec", "template"],
};
const isOwner = (kind: string): kind is PodOwner => podOwners.some((owner) => owner === kind);
/** The group of each; others have kinds of the same names. */
const groups: Record<PodOwner, string> = {
  Pod: "",
  Deployment: "apps",
  ReplicaSet: "apps",
  StatefulSet: "apps",
  DaemonSet: "apps",
  Job: "batch",
  CronJob: "batch",
};

const name = z.looseObject({
  name: z.string().optional(),
  generateName: z.string().optional(),
  namespace: z.string().optional(),
});
const object = z.looseObject({ apiVersion: z.string(), kind: z.string(), metadata: name.optional() });
const textsOf = z.record(z.string(), z.string()).optional();
const claim = z.looseObject({
  metadata: z.looseObject({ name: z.string().optional() }).optional(),
  spec: z.looseObject({ volumeMode: z.enum(["Filesystem", "Block"]).optional() }).optional(),
});

/**
 * The workloads of some files, and what else in them decides about pods.
 *
 * @throws Refusal for what is no Kubernetes object, and for other kinds with containers: their pods would silently stay as
 *   they are
 */
export function readObjects(
  files: readonly Documents[],
  usualNamespace: string,
): { workloads: Workload[]; surroundings: Surroundings } {
  const workloads: Workload[] = [];
  const surroundings: Surroundings = { namespaces: {}, configMaps: {}, secrets: {}, claims: {} };
  const problems: string[] = [];
  for (const found of files.flatMap((documents) => objectsIn(documents, problems))) {
    const { kind, value, documents, document, path } = found;
    const { data } = object.safeParse(value);
    if (data === undefined) continue;
    const { name = data.metadata?.generateName ?? "", namespace = usualNamespace } = data.metadata ?? {};
    const [group = ""] = data.apiVersion.includes("/") ? data.apiVersion.split("/") : [];
    if (isOwner(kind) && groups[kind] === group) {
      const at = templates[kind];
      workloads.push({
        ...{ documents, document, kind, name, namespace },
        path: [...path, ...at],
        template: at.reduce<unknown>((part, key) => fieldOf(part, key), value) ?? {},
        claims: claimsOf(fieldOf(fieldOf(value, "spec"), "volumeClaimTemplates")),
      });
    } else note(surroundings, { kind, name, namespace, value }) || checkUnknown(found, data.apiVersion, problems);
  }
  if (problems.length > 0) throw new Refusal("manifests", problems.join("\n"));
  return { workloads, surroundings };
}

function objectsIn(documents: Documents, problems: string[]): Found[] {
  return Array.from({ length: documents.count }, (_, index) => index).flatMap((document) => {
    const visit = (value: unknown, path: Path): Found[] => {
      // Nothing between two separators, or only a comment.
      if (value === null || value === undefined) return [];
      const { data, error } = object.safeParse(value);
      if (data === undefined) {
        const where = `${documents.name}:${documents.line(document, path)}`;
        const fields = [...new Set(error.issues.map((issue) => issue.path.join(".") || "it"))];
        problems.push(
          `${where} is no Kubernetes object: ${fields.join(" and ")} ${fields.length > 1 ? "are" : "is"} missing, or not of the right type.`,
        );
        return [];
      }
      const items = fieldOf(value, "items");
      if (data.kind.endsWith("List") && Array.isArray(items))
        return items.flatMap((item, index) => visit(item, [...path, "items", index]));
      return [{ documents, document, path, kind: data.kind, value: data }];
    };
    return visit(withoutNulls(documents.value(document)), []);
  });
}

/** Whether the object is one that pods depend on; then it is kept. */
function note(
  { namespaces, configMaps, secrets, claims }: Surroundings,
  { kind, name, namespace, value }: { kind: string; name: string; namespace: string; value: Record<string, unknown> },
): boolean {
  const key = `${namespace}/${name}`;
  const { data = {} } = textsOf.safeParse(value.data);
  if (kind === "Namespace") namespaces[name] = metadataSchema.safeParse(value.metadata).data ?? {};
  else if (kind === "ConfigMap") configMaps[key] = data;
  else if (kind === "Secret") {
    const plain = Object.entries(data).map(([field, text]) => [field, Buffer.from(text, "base64").toString()]);
    secrets[key] = { ...Object.fromEntries(plain), ...textsOf.safeParse(value.stringData).data };
  } else if (kind === "PersistentVolumeClaim")
    claims[key] = { volumeMode: claim.safeParse(value).data?.spec?.volumeMode ?? "Filesystem" };
  else return false;
  return true;
}

const claimsOf = (templates: unknown): Workload["claims"] =>
  Object.fromEntries(
    (z.array(claim).safeParse(templates).data ?? []).map(({ metadata, spec }) => [
      metadata?.name ?? "",
      { volumeMode: spec?.volumeMode ?? "Filesystem" },
    ]),
  );

/** Other kinds are left as they are, unless pods come of them. */
function checkUnknown({ documents, document, path, kind, value }: Found, apiVersion: string, problems: string[]): void {
  const at = containersBelow(value, path);
  if (at === undefined) return;
  problems.push(
    `${documents.name}:${documents.line(document, at)} is a list of containers in a ${kind} (${apiVersion}), a kind that is not known here: its pods would run without confidentiality. Known kinds: ${podOwners.join(", ")}. Leave it out of what is given, or write it as one of these.`,
  );
}

function containersBelow(value: unknown, path: Path): Path | undefined {
  if (typeof value !== "object" || value === null) return undefined;
  for (const [key, part] of Object.entries(value)) {
    const at = [...path, Array.isArray(value) ? Number(key) : key];
    const isContainers =
      key === "containers" && Array.isArray(part) && part.some((each) => fieldOf(each, "image") !== undefined);
    // A schema of containers, as in the definition of such a kind, has none.
    const found = isContainers ? at : containersBelow(part, at);
    if (found !== undefined) return found;
  }
  return undefined;
}

const fieldOf = (value: unknown, key: string | number): unknown =>
  typeof value === "object" && value !== null ? Reflect.get(value, key) : undefined;

/** Kubernetes takes a field without a value for one that is not there. */
function withoutNulls(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withoutNulls);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).flatMap(([key, part]) => (part === null ? [] : [[key, withoutNulls(part)]])),
  );
}
