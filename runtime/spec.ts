import * as z from "zod";
import { payloadFile, payloadName, relativePath } from "./manifest.ts";

export const distributionNames = ["containerd", "aks", "k3s", "rke2", "k0s", "microk8s"] as const;
export type DistributionName = (typeof distributionNames)[number];

export const platformNames = [
  "aks-clh-snp",
  "metal-qemu-snp",
  "metal-qemu-tdx",
  "metal-qemu-snp-gpu",
  "metal-qemu-tdx-gpu",
  "metal-qemu-insecure",
  "local",
] as const;
export type PlatformName = (typeof platformNames)[number];

/** `contrast-cc-<platform>-<8 hex>`, or `contrast-insecure-<platform>-<8 hex>` where nothing is confidential. */
export const handlerName = z.string().regex(/^contrast-(cc|insecure)-[a-z0-9-]+-[0-9a-f]{8}$/, {
  error: "must be contrast-cc-<platform>-<8 hex digits>, or contrast-insecure-<platform>-<8 hex digits>",
});

/** A lower-case DNS label: names of groups, clusters and their nodes. */
export const dnsLabel = (longest: number) =>
  z.string().regex(new RegExp(`^[a-z]([a-z0-9-]{0,${longest - 2}}[a-z0-9])?$`), {
    error: `must be lower-case letters, digits and inner dashes, beginning with a letter, at most ${longest} characters`,
  });

/** Absolute path on the node, normalized. Becomes a line of a unit file, a key of TOML and a word of a script. */
export const nodePath = z.string().regex(/^(?!.*\/\.{1,2}(\/|$))(\/[^/"'\\\p{Cc}\p{Zl}\p{Zp}]+)+$/u, {
  error: "must be an absolute path without . or .. segments, quotes, backslashes and control characters",
});

/** A systemd service; nothing that systemctl would take for an option. */
const unitName = z.string().regex(/^[A-Za-z0-9@._][A-Za-z0-9@._-]*\.service$/, {
  error: 'must be the name of a systemd service, with ".service" at its end',
});

/**
 * What containerd is told about a handler: the keys of `…containerd.runtimes.<handler>`, under whichever plugin id the
 * node's file has. `options` absent: no options table at all (the runc shim accepts none of Kata's).
 */
const containerdEntry = z.strictObject({
  runtimeType: z.string(),
  runtimePath: nodePath,
  podAnnotations: z.array(z.string()),
  /** Absent: none. */
  containerAnnotations: z.array(z.string()).optional(),
  privilegedWithoutHostDevices: z.boolean(),
  snapshotter: z.string().optional(),
  options: z.strictObject({ ConfigPath: nodePath }).optional(),
  /** A proxy snapshotter for containerd: its name, and its socket on the node. */
  proxyPlugin: z.strictObject({ name: z.string(), address: nodePath }).optional(),
});
export type ContainerdEntry = z.infer<typeof containerdEntry>;

/** What a host must have before a runtime is installed on it; each is checked and reported by `check-host`. */
const hostRequirements = z.strictObject({
  tee: z.enum(["none", "snp", "tdx"]),
  /** "kvm" for QEMU, "mshv" for AKS, "none" for `local`. */
  virtualization: z.enum(["none", "kvm", "mshv"]),
  gpu: z.boolean(),
  /** Guests pull images themselves, so the kubelet must wait longer than its default of 2 minutes. */
  guestPull: z.boolean(),
});
export type HostRequirements = z.infer<typeof hostRequirements>;

/**
 * One runtime on the nodes of a group. Journals hold it, too: what one of an earlier version may lack or have is not
 * refused here, but in `installSpecSchema`.
 */
export const runtimeSpec = z.strictObject({
  handler: handlerName,
  platform: z.enum(platformNames),
  /** Name of the manifest, and of the image's directory `/payloads/<payload>/` with the files. */
  payload: z.string(),
  files: z.array(payloadFile).min(1),
  kataConfig: z.strictObject({ path: relativePath, content: z.string() }),
  containerd: containerdEntry,
  host: hostRequirements,
  /**
   * Where Kata reads how its guests reach registries, below the handler's directory. What is in the file is a secret, which
   * the installer's pod has. Absent: nothing is said to guests.
   */
  imagePuller: relativePath.optional(),
});
export type RuntimeSpec = z.infer<typeof runtimeSpec>;

/** A name that a DaemonSet, a Lease and others have with a prefix. */
export const groupName = dnsLabel(40);

/** As a containerd names itself, such as "2.2.2-bd1.34"; the numbers alone decide. */
const containerdVersion = z
  .string()
  .regex(/^v?\d+\.\d+\.\d+[\w.+~-]*$/, { error: "must be a version such as 1.7.24 or 2.2.9", abort: true });

/** How the nodes of a group run containerd: a distribution, and overrides of its own values (see distributions.ts). */
export const distributionChoice = z.strictObject({
  name: z.enum(distributionNames),
  configPath: nodePath.optional(),
  socket: nodePath.optional(),
  unit: unitName.optional(),
  /** For `plan` on a tree without a containerd binary. */
  containerdVersion: containerdVersion.optional(),
});

/**
 * A taint by its key. Kubernetes' own say what is wrong with a node, and whoever lifts one hides that; of them only those
 * that the Cluster Autoscaler knows for startup taints by their prefix are meant to be lifted by others.
 */
export const taintKey = z
  .string()
  .regex(/^([a-z0-9][a-z0-9.-]{0,252}\/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$/, {
    error: "must be a valid taint key",
    abort: true,
  })
  .regex(/^(?!([^/]*\.)?(kubernetes|k8s)\.io\/)|^(startup|ignore)-taint\.cluster-autoscaler\.kubernetes\.io\//, {
    error:
      "is a taint of Kubernetes itself, which says what is wrong with a node. Use a key of your own domain, or one with the prefix startup-taint.cluster-autoscaler.kubernetes.io/",
  });

/** How many nodes of a group may be between edit and commit at a time. */
const nodesAtOnce = z.int().min(1);

/**
 * The install spec: the one JSON document that the program renders and the installer reads; the only thing that passes
 * between them. It lists every runtime that should be on the nodes of a group; anything else that a node's journal owns
 * is retired. All that is ever checked about it is checked here: what it names becomes paths, lines of a unit file, keys.
 */
export const installSpecSchema = z
  .strictObject({
    schemaVersion: z.literal(1),
    group: groupName,
    /** What the group was called before: its installers take over the nodes that it has under that name. */
    formerly: groupName.optional(),
    distribution: distributionChoice,
    atOnce: nodesAtOnce,
    runtimes: z.array(runtimeSpec),
    /** Start a sandbox through the CRI after the installation and check its shim. Always on for `local`. */
    verifySandbox: z.boolean(),
    /** What others changed on a node and nobody has loaded yet is loaded by the installer's restart. Absent: refused. */
    loadPendingChanges: z.boolean().optional(),
    /** Nodes join with this taint; it is lifted once the node serves every runtime. Absent: none is touched. */
    startupTaint: taintKey.optional(),
    /**
     * By handler: the advisories of its Kata that the stack acknowledges. Nothing on a node depends on them; they are what
     * alerts ask for. Absent: none.
     */
    advisories: z.record(handlerName, z.array(z.string().max(100)).min(1)).optional(),
  })
  .superRefine(({ runtimes }, context) => {
    const refuse = (path: (string | number)[], message: string) =>
      context.addIssue({ code: "custom", path: ["runtimes", ...path], message });
    for (const [index, runtime] of runtimes.entries()) {
      const { handler } = runtime;
      if (runtimes.findIndex((other) => other.handler === handler) < index) {
        refuse([index, "handler"], `${handler} is listed twice`);
      }
      for (const { path, message } of mistakesOf(runtime)) refuse([index, ...path], message);
    }
  });
export type InstallSpec = z.infer<typeof installSpecSchema>;

/** What a runtime's fields must be together: everything that it names is its own, and no file is in another's way. */
function mistakesOf({ handler, payload, files, kataConfig, containerd, imagePuller }: RuntimeSpec) {
  const mistakes: { path: string[]; message: string }[] = [];
  const mistake = (path: string[], message: string) => mistakes.push({ path, message });
  if (!payloadName.safeParse(payload).success) {
    mistake(["payload"], `${JSON.stringify(payload)} is not the name of a payload`);
  }
  const own = `${runtimeDirectory(handler)}/`;
  const below = (path: string[], value: string | undefined) => {
    if (value !== undefined && !value.startsWith(own)) mistake(path, `${value} is not below ${own}`);
  };
  below(["containerd", "runtimePath"], containerd.runtimePath);
  below(["containerd", "options", "ConfigPath"], containerd.options?.ConfigPath);
  const paths = [...files.map(({ path }) => path), kataConfig.path, ...(imagePuller ? [imagePuller] : [])];
  const folder = paths.find((path) => paths.some((other) => other.startsWith(`${path}/`)));
  if (folder !== undefined) mistake(["files"], `${folder} is a file, but also the folder of another file`);
  if (new Set(paths).size < paths.length) mistake(["files"], "a path is listed twice");
  return mistakes;
}

/** Where a handler's files are on a node. */
export const runtimeDirectory = (handler: string): string => `/opt/edgeless/${handler}`;
