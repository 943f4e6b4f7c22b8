/** What changes between the object as last seen and the new inputs, and which changes the API refuses in place. */
import type { Diff, DiffKind } from "../plugin.ts";
import { equal, isObject, type Properties, pathText, unknown, type Value } from "../values.ts";
import {
  apiVersionOf,
  isAutonamed,
  kindOf,
  nameOf,
  namespaceOf,
  prune,
  withMetadata,
  withoutReadOnly,
  withStringData,
} from "./objects.ts";

type Path = (string | number)[];

const containers = [
  "args",
  "command",
  "env",
  "image",
  "imagePullPolicy",
  "lifecycle",
  "livenessProbe",
  "ports",
  "readinessProbe",
  "resources",
  "securityContext",
  "stdin",
  "stdinOnce",
  "terminationMessagePath",
  "terminationMessagePolicy",
  "tty",
  "volumeDevices",
  "volumeMounts",
  "workingDir",
].flatMap((field) => [`containers.*.${field}`, `initContainers.*.${field}`]);
const pod = [
  "affinity",
  "automountServiceAccountToken",
  "dnsConfig",
  "dnsPolicy",
  "enableServiceLinks",
  "hostAliases",
  "hostIPC",
  "hostNetwork",
  "hostPID",
  "hostname",
  "imagePullSecrets",
  "nodeName",
  "nodeSelector",
  "overhead",
  "preemptionPolicy",
  "priority",
  "priorityClassName",
  "readinessGates",
  "restartPolicy",
  "runtimeClassName",
  "schedulerName",
  "securityContext",
  "serviceAccount",
  "serviceAccountName",
  "shareProcessNamespace",
  "subdomain",
  "terminationGracePeriodSeconds",
  "volumes",
  ...containers,
];
/** Kinds of storage; what else a volume says changes in place. */
const volumeSources = [
  ...["awsElasticBlockStore", "azureDisk", "azureFile", "cephfs", "cinder", "csi", "fc", "flexVolume", "flocker"],
  ...["gcePersistentDisk", "glusterfs", "hostPath", "iscsi", "local", "nfs", "photonPersistentDisk", "portworxVolume"],
  ...["quobyte", "rbd", "scaleIO", "storageos", "vsphereVolume"],
];
const inSpec = (fields: string[]) => fields.map((field) => `spec.${field}`);

/**
 * The official plugin's table of fields whose change replaces, besides name and namespace. Its gaps are kept: a
 * RuntimeClass's handler is immutable, but not listed.
 */
const replacing: Record<string, string[]> = {
  "apps/v1 DaemonSet": ["spec.selector"],
  "apps/v1 Deployment": ["spec.selector"],
  "apps/v1 StatefulSet": inSpec([
    "podManagementPolicy",
    "revisionHistoryLimit",
    "selector",
    "serviceName",
    "volumeClaimTemplates",
  ]),
  "batch/v1 Job": inSpec(["completions", "parallelism", "selector", "template"]),
  "policy/v1beta1 PodDisruptionBudget": ["spec"],
  "rbac.authorization.k8s.io/v1 ClusterRoleBinding": ["roleRef"],
  "rbac.authorization.k8s.io/v1 RoleBinding": ["roleRef"],
  "storage.k8s.io/v1 StorageClass": ["parameters", "provisioner"],
  "v1 PersistentVolume": inSpec(volumeSources),
  "v1 PersistentVolumeClaim": inSpec(["accessModes", "selector", "storageClassName", "volumeName"]),
  "v1 Pod": inSpec(pod),
  "v1 ResourceQuota": ["spec.scopes"],
  "v1 Secret": ["type"],
  "v1 Service": ["spec.clusterIP"],
};

export interface DiffOptions {
  namespaced: boolean;
  /** A change of a Secret's or a ConfigMap's data is made in place instead of by replacement. */
  mutableSecrets: boolean;
  mutableConfigMaps: boolean;
}

/** @param oldInputs the inputs that made the object; @param live the object as the server last returned it */
export function diffObjects(
  { oldInputs, live, inputs }: { oldInputs: Properties; live: Properties; inputs: Properties },
  options: DiffOptions,
): Diff {
  const old = canonical(prune(withStringData(live, oldInputs), oldInputs) as Properties, options.namespaced);
  const next = canonical(inputs, options.namespaced);
  const patterns = [...replacingPaths(inputs, options), "metadata.name", "metadata.namespace"];
  const changes: Diff["changes"] = new Map();
  compare([], old, next, (path, kind) => {
    changes.set(pathText(path), { kind, replace: patterns.some((pattern) => isBelow(path, pattern)) });
  });
  const replaces = [...changes.values()].some(({ replace }) => replace);
  const sameName = nameOf(old) === nameOf(next) && namespaceOf(old) === namespaceOf(next);
  return { changes, deleteBeforeReplace: replaces && sameName && !isAutonamed(inputs) };
}

function replacingPaths(inputs: Properties, { mutableSecrets, mutableConfigMaps }: DiffOptions): string[] {
  const kind = `${apiVersionOf(inputs)} ${kindOf(inputs)}`;
  const always = replacing[kind] ?? [];
  const isImmutable = inputs.immutable === true;
  if (kind === "v1 Secret" && mutableSecrets && !isImmutable) return [];
  if (kind === "v1 Secret") return [...always, "data", "stringData"];
  if (kind === "v1 ConfigMap" && (!mutableConfigMaps || isImmutable)) return [...always, "data", "binaryData"];
  return always;
}

/** Writes out the default namespace, and drops a namespace that the kind cannot have, so that neither counts as a change. */
function canonical(object: Properties, namespaced: boolean): Properties {
  const clean = withoutReadOnly(object);
  if (namespaced) return withMetadata(clean, { namespace: namespaceOf(clean) || "default" });
  const { namespace: _, ...metadata } = isObject(clean.metadata) ? clean.metadata : {};
  return { ...clean, metadata };
}

function compare(
  path: Path,
  old: Value | undefined,
  next: Value | undefined,
  report: (path: Path, kind: DiffKind) => void,
): void {
  if (equal(old, next) || meansTheSame(path, old, next)) return;
  if (isObject(old) && isObject(next)) {
    for (const key of new Set([...Object.keys(old), ...Object.keys(next)]))
      compare([...path, key], old[key], next[key], report);
  } else if (Array.isArray(old) && Array.isArray(next)) {
    for (let i = 0; i < Math.max(old.length, next.length); i++) compare([...path, i], old[i], next[i], report);
  } else if (old === undefined) report(path, "add");
  else report(path, next === undefined ? "delete" : "update");
}

/** Empty values, which the server leaves out, and quantities, which it writes in its own way. */
function meansTheSame(path: Path, old: Value | undefined, next: Value | undefined): boolean {
  if (old === undefined) return isZero(next);
  if (next === undefined || next === unknown) return false;
  if (!path.some((part) => quantityParents.has(String(part)))) return false;
  const [a, b] = [quantity(old), quantity(next)];
  return a !== undefined && a === b;
}

const isZero = (value: Value | undefined): boolean =>
  value === false ||
  value === 0 ||
  value === "" ||
  (Array.isArray(value) && value.length === 0) ||
  (isObject(value) && Object.keys(value).length === 0);

const quantityParents = new Set(["limits", "requests", "podFixed", "overhead", "hard", "capacity", "sizeLimit"]);

const suffixes: Record<string, number> = { n: 1e-9, u: 1e-6, m: 1e-3, "": 1, k: 1e3, M: 1e6, G: 1e9, T: 1e12, P: 1e15 };
for (const [power, prefix] of ["Ki", "Mi", "Gi", "Ti", "Pi"].entries()) suffixes[prefix] = 1024 ** (power + 1);

/** The number that a Kubernetes quantity stands for. */
export function quantity(value: Value): number | undefined {
  const [, digits, suffix = ""] = /^([+-]?[0-9.]+(?:[eE][+-]?[0-9]+)?)([a-zA-Z]*)$/.exec(String(value)) ?? [];
  const factor = suffixes[suffix];
  if (digits === undefined || factor === undefined) return undefined;
  return Number((Number(digits) * factor).toPrecision(15));
}

/** Whether the path is the pattern's field or something inside it; `*` stands for an index. */
function isBelow(path: Path, pattern: string): boolean {
  const parts = pattern.split(".");
  return parts.length <= path.length && parts.every((part, i) => part === "*" || part === path[i]);
}
