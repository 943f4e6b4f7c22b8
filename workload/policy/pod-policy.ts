import { posix } from "node:path";
import * as z from "zod";
import { canonicalJson } from "../../runtime/canonical.ts";
import type { FlavourName } from "../../runtime/flavours.ts";
import type { PlatformName } from "../../runtime/spec.ts";
import type { PodTemplate } from "../pod-template.ts";
import { type Problem, UnfitWorkload } from "../problems.ts";
import type { LayerRoot } from "../template.ts";
import { gpusOf } from "./gpus.ts";
import { hostnameOf, jobVariables, podNamePattern, referencesOf, requireCovered, stopSignal } from "./known.ts";
import { podSecurity, processFields, processOf } from "./process.ts";
import { rules } from "./rules.ts";
import { commonAnnotations, maskedPaths, readonlyPaths, sandbox, shm } from "./sandbox.ts";
import { furtherVariables, literally } from "./variables.ts";
import { emptyDirsOf, podVolumes, volumeDevices, volumeMounts, volumesOf } from "./volumes.ts";

/** What a policy is made from: the pod as it will be created, its images, and the runtime that it is for. */
export interface PolicyInput {
  runtime: {
    platform: PlatformName;
    flavour: FlavourName;
    /** As in the payload's manifest, such as "4.1.0". */
    kataVersion: string;
    /** Images are pulled in the guest; otherwise their layers are mounted by root hash (AKS). */
    guestPull: boolean;
  };
  /** The namespace that the pods will be in. */
  namespace: string;
  /** Which object makes the pods: decides their names. */
  owner: { kind: PodOwner; name: string };
  /** As `prepareWorkload` returns it: images with digests, limits set. Its initdata annotation is not looked at. */
  template: PodTemplate;
  /** By reference, exactly as in the template. */
  images: Record<string, PolicyImage>;
  /**
   * The ConfigMaps and Secrets that environment variables take values from (`valueFrom`, `envFrom`), by name; their text,
   * not base64. The values become part of the policy, which the host can read.
   */
  configMaps?: Record<string, Record<string, string>>;
  secrets?: Record<string, Record<string, string>>;
  /** The StatefulSet's `volumeClaimTemplates` and other claims, by name of the claim. Default: "Filesystem". */
  claims?: Record<string, { volumeMode: "Filesystem" | "Block" }>;
  allow?: PolicyOptIns;
}

export const podOwners = ["Pod", "Deployment", "ReplicaSet", "StatefulSet", "DaemonSet", "Job", "CronJob"] as const;
export type PodOwner = (typeof podOwners)[number];

/** What a policy denies unless it is named here. */
export interface PolicyOptIns {
  /** Commands that may be run in any of the pod's containers, each exactly: [["sh", "-c", "date"]]. Default: only those of probes and hooks. */
  exec?: readonly (readonly string[])[];
  /** The host may read what containers write to standard output and error: `kubectl logs`. Default: false. */
  logs?: boolean;
  /** Variables of any value: NAME of every container. Default: none. */
  env?: readonly string[];
}

/** An image of the pod. */
export interface PolicyImage {
  /** "sha256:…" of the manifest for amd64 or of the index that the reference names. */
  digest: string;
  /** The member `config` of the image's OCI configuration. */
  config: ImageConfig;
  /** Lowest first; for runtimes without guest pull. */
  layers?: readonly LayerRoot[];
  /** /etc/passwd and /etc/group of the image, where a container's user is a name or has further groups. */
  passwd?: string;
  group?: string;
}

/** https://github.com/opencontainers/image-spec/blob/main/config.md, as far as processes depend on it. */
export interface ImageConfig {
  Env?: readonly string[] | null;
  Entrypoint?: readonly string[] | null;
  Cmd?: readonly string[] | null;
  WorkingDir?: string | null;
  User?: string | null;
  Volumes?: Record<string, unknown> | null;
  StopSignal?: string | null;
}

export interface PodPolicy {
  /** policy.rego: the same bytes for the same input. */
  rego: string;
  /** What the host may choose although a reader might think otherwise, one sentence each. */
  unpinned: string[];
}

const containerFields = processFields.extend({
  volumeMounts,
  volumeDevices,
  terminationMessagePath: z.string().optional(),
});
const podFields = z.object({
  hostname: z.string().optional(),
  subdomain: z.string().optional(),
  setHostnameAsFQDN: z.boolean().optional(),
  shareProcessNamespace: z.boolean().optional(),
  enableServiceLinks: z.boolean().optional(),
  automountServiceAccountToken: z.boolean().optional(),
  hostUsers: z.boolean().optional(),
  securityContext: podSecurity,
  volumes: podVolumes,
  resourceClaims: z.array(z.unknown()).optional(),
});

/**
 * The policy of a pod's guest, for Kata's agent: everything that is not of this pod is denied. docs/policy.md says what is
 * pinned and what is not.
 *
 * @throws Refusal if the runtime is not covered, or for all that cannot be pinned, with the fields' paths
 */
export function podPolicy(input: PolicyInput): PodPolicy {
  requireCovered(input.runtime);
  const problems: Problem[] = [];
  const { spec } = input.template;
  const pod = parsed(podFields, spec, "spec", problems);
  const name = podNamePattern(input.owner, problems);
  const hostname = hostnameOf(input.owner, pod?.hostname);
  if (pod?.setHostnameAsFQDN === true || pod?.subdomain !== undefined)
    problems.push({
      field: "spec.subdomain",
      message: "makes a host name with the cluster's domain, which is not known here",
    });
  if (pod?.hostUsers === false)
    problems.push({
      field: "spec.hostUsers",
      message: "is false, but user namespaces of the node mean nothing in a guest",
    });
  if ((pod?.resourceClaims ?? []).length > 0)
    problems.push({
      field: "spec.resourceClaims",
      message: "bring devices that are not known here: ask for GPUs by the limits of containers",
    });
  const gpus = gpusOf(input, problems);

  const containers: Record<string, object> = {
    sandbox: { ...sandbox(input, pod?.securityContext?.sysctls ?? []), ...gpus.sandbox },
  };
  const files = new Set(["resolv\\.conf"]);
  const directories = new Set<string>();
  const emptyDirectories = new Set<string>();
  const signals = new Set([9, 15]);
  const all = [
    ...(spec.initContainers ?? []).map((one, index) => [one, `spec.initContainers[${index}]`] as const),
    ...spec.containers.map((one, index) => [one, `spec.containers[${index}]`] as const),
  ];
  for (const [container, path] of all) {
    const fields = parsed(containerFields, container, path, problems);
    const image = input.images[container.image ?? ""];
    if (image === undefined)
      problems.push({ field: `${path}.image`, message: `is "${container.image}", whose configuration is not given` });
    if (container.name === "sandbox")
      problems.push({ field: `${path}.name`, message: 'is "sandbox", which names the pod\'s own container here' });
    if (fields === undefined || image === undefined || pod === undefined) continue;
    const { process, commands } = processOf(
      container,
      fields,
      image,
      { security: pod.securityContext, hostname, input },
      path,
      problems,
    );
    const readonlyRoot = fields.securityContext?.readOnlyRootFilesystem === true;
    const volumes = volumesOf(
      {
        mounts: fields.volumeMounts,
        devices: fields.volumeDevices,
        volumes: pod.volumes,
        claims: input.claims ?? {},
        fsGroup: pod.securityContext?.fsGroup,
        readonlyRoot,
        terminationLog: fields.terminationMessagePath ?? "/dev/termination-log",
        serviceAccountToken: pod.automountServiceAccountToken !== false,
        emptyDirs: emptyDirsOf(input.runtime.flavour),
      },
      path,
      problems,
    );
    for (const one of volumes.copiedFiles) files.add(one);
    for (const one of volumes.copiedDirectories) directories.add(one);
    for (const one of volumes.emptyDirectories) emptyDirectories.add(one);
    const mounted = new Set((fields.volumeMounts ?? []).map(({ mountPath }) => posix.resolve("/", mountPath)));
    // containerd (container_create.go, volumeMounts) mounts a directory of the node's at each that the pod does not.
    for (const volume of Object.keys(image.config.Volumes ?? {}))
      if (!mounted.has(posix.resolve("/", volume)))
        problems.push({
          field: `${path}.volumeMounts`,
          message: `has nothing at ${volume}, where the image declares a volume: its files would be a copy of the node's. Mount an emptyDir there`,
        });
    const stop = fields.lifecycle?.stopSignal || image.config.StopSignal || "SIGTERM";
    const signal = stopSignal(stop);
    if (signal !== undefined) signals.add(signal);
    else
      problems.push({
        field: `${path}.lifecycle.stopSignal`,
        message: `is ${JSON.stringify(stop)}, or the image's is: expected a signal's name such as SIGQUIT or SIGRTMIN+3`,
      });
    const references = referencesOf(container.image ?? "", image.digest);
    if (references.length === 0)
      problems.push({
        field: `${path}.image`,
        message: `is "${container.image}", expected the digest ${image.digest} in it`,
      });
    containers[container.name] = {
      annotations: {
        ...commonAnnotations(input),
        "io.kubernetes.cri.container-name": container.name,
        "io.kubernetes.cri.container-type": "container",
        "io.kubernetes.cri.image-name": { like: `^(${references.map(literally).join("|")})$` },
        "io.katacontainers.pkg.oci.container_type": "pod_container",
      },
      commands,
      devices: volumes.devices,
      masked_paths: maskedPaths,
      mounts: volumes.mounts,
      process,
      readonly_paths: readonlyPaths,
      readonly_root: readonlyRoot,
      required_sysctls: [],
      sandbox_pidns: pod.shareProcessNamespace === true,
      storages: [{ image: references }, ...volumes.storages],
      sysctls: {},
      ...gpus.containers[container.name],
    };
  }
  if (problems.length > 0)
    throw new UnfitWorkload("policy", `No policy can be made for the pods of ${input.owner.name}`, problems);
  const data = {
    block_driver: "scsi",
    containers,
    copied_directories: [...directories].toSorted(),
    copied_files: [...files].toSorted(),
    empty_directories: [...emptyDirectories].toSorted(),
    exec: input.allow?.exec ?? [],
    // kata_agent.go, createContainer; runtime-rs leaves it out.
    exec_id: input.runtime.flavour === "kata-rs" ? "" : "{id}",
    hostname,
    // Contrast's Kata sends no description of the image beside its name, and its agent reads none.
    image_metadata: input.runtime.flavour !== "contrast-go",
    logs: input.allow?.logs === true,
    name,
    namespace: input.namespace,
    // The sandbox is made before it is known which of the pods it is.
    sandbox_hostname:
      typeof hostname === "string" ? `^${literally(hostname)}$` : hostname.like.replace("{pod}", name.slice(1, -1)),
    further_variables: furtherVariables(pod?.enableServiceLinks !== false, jobVariables(input.owner)),
    shm,
    signals: [...signals].toSorted((a, b) => a - b),
  };
  const text = JSON.stringify(JSON.parse(canonicalJson(data)), null, 1);
  return { rego: `${rules}\n# --- This pod\n\npod := ${text}\n`, unpinned: [...unpinned] };
}

/** docs/policy.md says why. */
const unpinned = [
  "The content of what the host copies into the guest: ConfigMaps, Secrets, tokens, /etc/hosts, /etc/resolv.conf.",
  "The pod's addresses, routes and DNS servers, and the variables that name the services of its namespace.",
  "How often containers are started and stopped, in which order, and whether init containers ran before the others.",
  "How much CPU and memory a container gets of the guest's.",
];

function parsed<T extends z.ZodType>(schema: T, value: unknown, path: string, problems: Problem[]) {
  const { data, error } = schema.safeParse(value);
  for (const issue of error?.issues ?? [])
    problems.push({
      field: [path, ...issue.path.map(String)].join("."),
      message: `is not as Kubernetes has it: ${issue.message}`,
    });
  return data;
}
