/** Kubernetes objects as property values: names, annotations, and the form in which the engine stores them. */
import { createHash } from "node:crypto";
import { equal, isObject, markSecrets, type Properties, revealed, secret, unknown, type Value } from "../values.ts";

const at = (value: Value | undefined, ...path: string[]): Value | undefined =>
  path.reduce<Value | undefined>((item, key) => (isObject(item) ? item[key] : undefined), value);

const text = (value: Value | undefined): string => (typeof value === "string" ? value : "");

export const apiVersionOf = (object: Properties): string => text(object.apiVersion);
export const kindOf = (object: Properties): string => text(object.kind);
export const nameOf = (object: Properties): string => text(at(object, "metadata", "name"));
export const namespaceOf = (object: Properties): string => text(at(object, "metadata", "namespace"));
export const annotationOf = (object: Properties, name: string): string =>
  text(at(object, "metadata", "annotations", `pulumi.com/${name}`));

export const withMetadata = (object: Properties, metadata: Properties): Properties => ({
  ...object,
  metadata: { ...(isObject(object.metadata) ? object.metadata : {}), ...metadata },
});

const withAutoname = (object: Properties, name: string): Properties =>
  withMetadata(object, {
    name,
    annotations: { ...(at(object, "metadata", "annotations") as Properties), "pulumi.com/autonamed": "true" },
  });

export const isAutonamed = (object: Properties): boolean => annotationOf(object, "autonamed") === "true";

/** Names the object after the resource plus eight hex digits, unless the program names it; an earlier such name is kept. */
export function withName(object: Properties, olds: Properties, resourceName: string, seed: Uint8Array): Properties {
  const metadata = object.metadata;
  if (metadata === unknown || at(object, "metadata", "name") || at(object, "metadata", "generateName")) return object;
  if (isAutonamed(olds)) return withAutoname(object, nameOf(olds));
  return withAutoname(object, `${resourceName}-${createHash("sha256").update(seed).digest("hex").slice(0, 8)}`);
}

/** The resource's id: `namespace/name`, or the name alone. */
export const idOf = (object: Properties): string =>
  namespaceOf(object) ? `${namespaceOf(object)}/${nameOf(object)}` : nameOf(object);

export function parseId(id: string): { namespace: string; name: string } {
  const slash = id.indexOf("/");
  return { namespace: slash < 0 ? "" : id.slice(0, slash), name: id.slice(slash + 1) };
}

/** Group and version as objects write them (`v1`, `apps/v1`) and kind, from `kubernetes:apps/v1:DaemonSet`. */
export function typeParts(type: string): { apiVersion: string; kind: string } {
  const [, module = "", kind = ""] = type.split(":");
  return { apiVersion: module.replace(/^core\//, ""), kind };
}

/** Kinds of the program's APIs that are not namespaced, for when no server can be asked. */
const clusterScoped = new Set([
  "APIService",
  "ClusterRole",
  "ClusterRoleBinding",
  "CSIDriver",
  "CustomResourceDefinition",
  "FlowSchema",
  "IngressClass",
  "MutatingAdmissionPolicy",
  "MutatingAdmissionPolicyBinding",
  "MutatingWebhookConfiguration",
  "Namespace",
  "Node",
  "PersistentVolume",
  "PriorityClass",
  "PriorityLevelConfiguration",
  "RuntimeClass",
  "StorageClass",
  "ValidatingAdmissionPolicy",
  "ValidatingAdmissionPolicyBinding",
  "ValidatingWebhookConfiguration",
  "VolumeAttachment",
]);
export const isProbablyNamespaced = (kind: string): boolean => !clusterScoped.has(kind);

/** What the engine stores: the live object and the inputs that made it. The inputs decide what is secret. */
export function checkpoint(inputs: Properties, live: Properties, fieldManager: string): Properties {
  const plain = revealed(inputs);
  return {
    ...hideSecretData(markSecrets(live, inputs)),
    __inputs: hideSecretData(markSecrets(plain, inputs)),
    __initialApiVersion: apiVersionOf(plain),
    __fieldManager: fieldManager,
  };
}

/** A Secret's data is always secret, whatever the program says. */
export function hideSecretData(object: Properties): Properties {
  if (kindOf(object) !== "Secret") return object;
  const hidden = { ...object };
  for (const key of ["data", "stringData"]) if (hidden[key] !== undefined) hidden[key] = secret(hidden[key]);
  return hidden;
}

export function parseCheckpoint(state: Properties): { inputs: Properties; live: Properties; fieldManager: string } {
  const { __inputs, __initialApiVersion: _, __fieldManager, ...live } = revealed(state);
  return { inputs: isObject(__inputs) ? __inputs : {}, live, fieldManager: text(__fieldManager) };
}

/** Fields that only the server sets. */
const readOnly = [
  "creationTimestamp",
  "deletionGracePeriodSeconds",
  "deletionTimestamp",
  "generation",
  "managedFields",
  "resourceVersion",
  "selfLink",
  "uid",
];

export function withoutReadOnly(object: Properties): Properties {
  if (!isObject(object.metadata)) return object;
  const metadata = Object.fromEntries(Object.entries(object.metadata).filter(([key]) => !readOnly.includes(key)));
  return { ...object, metadata };
}

/** The live object's values of the fields that the inputs set: the inputs that would describe the object as it is. */
export function prune(live: Value, inputs: Value): Value {
  if (Array.isArray(live) && Array.isArray(inputs)) {
    // Items beyond those of the inputs were added by someone else, and must be noticed.
    return live.map((item, i) => (inputs[i] === undefined ? item : prune(item, inputs[i])));
  }
  if (!isObject(live) || !isObject(inputs)) return live;
  const pruned: Properties = {};
  for (const [key, input] of Object.entries(inputs)) if (live[key] !== undefined) pruned[key] = prune(live[key], input);
  return pruned;
}

/**
 * The inputs that describe the live object; the old inputs themselves if both mean the same.
 */
export function liveInputs(live: Properties, inputs: Properties): Properties {
  const pruned = prune(withStringData(live, inputs), inputs) as Properties;
  return equal(pruned, inputs) ? inputs : withoutReadOnly(pruned);
}

/** The server turns a Secret's stringData into data and forgets it. */
export function withStringData(live: Properties, inputs: Properties): Properties {
  if (kindOf(live) !== "Secret" || !isObject(inputs.stringData)) return live;
  const data = isObject(live.data) ? live.data : {};
  const decoded = Object.keys(inputs.stringData)
    .filter((key) => typeof data[key] === "string")
    .map((key) => [key, Buffer.from(String(data[key]), "base64").toString()]);
  return { ...live, stringData: Object.fromEntries(decoded) };
}
