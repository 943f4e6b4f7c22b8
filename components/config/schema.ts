import { z } from "zod";
import { Refusal } from "../../runtime/refusal.ts";
import { distributionNames, dnsLabel, nodePath, platformNames, unitName } from "../../runtime/spec.ts";
import { authorities } from "../certificates.ts";
import { defaults, onDestroyValues } from "./defaults.ts";
import { labelKey, labels, labelValue, nodeName, objectName } from "./kubernetes-names.ts";
import { clusterOptions } from "./local-cluster.ts";

/*
 * The shape of a stack's configuration, key by key. What concerns more than one key is in rules.ts. Every object is
 * strict: an unknown key is a mistake, because the engine does not report one.
 */

const must = (error: string) => ({ error });
/** A value that must be encrypted in the stack file, and that no message repeats. */
export const secret = z.string().min(1, must("must not be empty")).meta({ secret: true });
/** A file is given by its content: its path would be another file, or none, on other machines. */
const secretContent = (error: string) =>
  z
    .string()
    .min(1, must("must not be empty"))
    .refine((text) => !/^(~|\.{1,2})?\/[^\n]*\n?$/.test(text), must(error))
    .meta({ secret: true });

const whole = (least: number, most: number) =>
  z
    .int(must("must be a whole number"))
    .min(least, must(`must be ${least} or more`))
    .max(most, must(`must be at most ${most}`));
const memory = z
  .string()
  .regex(/^\d+(\.\d+)?(Ki|Mi|Gi|Ti|k|M|G|T)?$/, must('must be an amount of memory such as "512Mi"'));
const cpu = z.string().regex(/^\d+(\.\d+)?m?$/, must('must be a number of CPUs such as "250m" or "1.5"'));

const uuid = z
  .string()
  .regex(
    /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i,
    must("must be a subscription's id, such as 00000000-0000-0000-0000-000000000000"),
  );

/** Azure's own rules; both become parts of paths in its API. */
export const azureResourceGroup = z
  .string()
  .regex(
    /^(?!.*\.$)[\p{L}\p{N}._()-]{1,90}$/u,
    must("must be a resource group: letters, digits and ._()-, at most 90, no dot at the end"),
  );
export const aksClusterName = z
  .string()
  .regex(
    /^[A-Za-z0-9]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?$/,
    must("must be an AKS cluster's name: letters, digits, inner _ and -, at most 63"),
  );

const clusterSchema = z
  .discriminatedUnion("kind", [
    z.strictObject({
      kind: z.literal("local"),
      nodes: clusterOptions.shape.nodes.unwrap().optional(),
    }),
    z.strictObject({
      kind: z.literal("kubeconfig"),
      /** The cluster's name in this stack. A change means another cluster: everything is replaced. */
      name: dnsLabel(40),
      /** The file's content. Without it, the environment's KUBECONFIG is used, which other machines then need too. */
      kubeconfig: secretContent("must be the content of a kubeconfig, not its path").optional(),
    }),
    z.strictObject({
      kind: z.literal("aks"),
      subscriptionId: uuid,
      resourceGroup: azureResourceGroup,
      name: aksClusterName,
      /** `admin` is refused by clusters with local accounts disabled; `user` may need kubelogin. */
      credentials: z.enum(["user", "admin"]).default("user"),
      /** Acknowledges that Microsoft retired KataCcIsolation. */
      retiredService: z.literal("acknowledged").optional(),
    }),
    z.strictObject({
      kind: z.literal("yaml"),
      /** Below the project: where manifests are written for something else to apply. */
      directory: z
        .string()
        .regex(
          /^(?!\.{1,2}(\/|$))[\w.@-]+(\/(?!\.{1,2}(\/|$))[\w.@-]+)*$/,
          must("must be a directory below the project, such as manifests/prod"),
        ),
    }),
  ])
  .describe("a map with kind: local, kubeconfig, aks or yaml");

/** Without a dot, a port or localhost, containerd would take the first component for a Docker Hub user. */
const registryHost = "([a-z0-9-]+(\\.[a-z0-9-]+)+|localhost|[a-z0-9-]+(?=:\\d))(:\\d+)?";

/** Certificates in PEM; the output is their canonical form, and nothing else of the text. */
export const registryCa = z.string().transform((pem, { addIssue }) => {
  try {
    return authorities(pem);
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    addIssue({ code: "custom", message: error.message, input: pem });
    return z.NEVER;
  }
});

const registrySchema = z
  .strictObject({
    /** Replaces the registry's host in `installerImage`: a mirror in a closed network. */
    prefix: z
      .string()
      .regex(
        new RegExp(`^${registryHost}(/[a-z0-9._-]+)*$`),
        must("must be host[:port][/path] without a scheme, the host with a dot or a port"),
      )
      .optional(),
    /** PEM. Hosts that are reached over SSH are made to trust it for this registry. */
    ca: registryCa.optional(),
    /** Content of a .dockerconfigjson. */
    pullSecret: secret.optional(),
  })
  .default({});

const reference = new RegExp(`^${registryHost}(/[a-z0-9._-]+)+`);
/** registry/repository@sha256:…, or one other word */
const image = (word?: string, meaning = "") =>
  z.string().check(({ value, issues }) => {
    const rest = value.replace(reference, "");
    if (value === word || digest.test(rest)) return;
    issues.push({ code: "custom", message: imageMistake(value, rest, meaning), input: value });
  });
export const imageReference = image();
const installerImageSchema = image("local", ', or "local" for the image that `npm run image` built').default("local");

const digest = /^@sha256:[0-9a-f]{64}$/;

function imageMistake(value: string, rest: string, meaning: string): string {
  if (rest === value && digest.test(value.slice(value.indexOf("@"))) && /^[a-z0-9._/-]+@/.test(value))
    return "does not say which registry: must begin with a host, such as docker.io/";
  if (rest.startsWith(":"))
    return rest.includes("@")
      ? "has a tag besides the digest, which alone counts: leave out the tag"
      : "names an image by tag, which may be a different image tomorrow: must end in @sha256:<64 hex digits>";
  return `must be registry/repository@sha256:<64 hex digits>${meaning}`;
}

export const distribution = z
  .strictObject({
    name: z.enum(distributionNames),
    configPath: nodePath.optional(),
    socket: nodePath.optional(),
    unit: unitName.optional(),
    containerdVersion: z
      .string()
      .regex(/^\d+\.\d+\.\d+$/, must("must be a version such as 2.1.4"))
      .optional(),
  })
  .describe(`one of ${distributionNames.join(", ")}, or a map with such a name and overrides`);

const keyTypes = ["ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521"];

/** The key itself begins with its type, as a length of four bytes and that many letters. */
function isHostKey(text: string): boolean {
  const [, type = "", key = ""] = /^(\S+) ([A-Za-z0-9+/]+=*)$/.exec(text) ?? [];
  const bytes = Buffer.from(key, "base64");
  return (
    keyTypes.includes(type) && bytes.length > 4 + type.length && bytes.toString("latin1", 4, 4 + type.length) === type
  );
}

export const host = z.strictObject({
  /** The node's name in the cluster. */
  name: nodeName,
  address: z.string().regex(/^[A-Za-z0-9:][A-Za-z0-9.:-]*$/, must("must be a host name or an IP address")),
  port: whole(1, 65535).default(defaults.sshPort),
  /** As in known_hosts: type and key. For RSA keys the plugin accepts only SHA-1 signatures, which sshd no longer makes. */
  hostKey: z
    .string()
    .refine(isHostKey, must(`must be type and key as in known_hosts, the type one of ${keyTypes.join(", ")}`))
    .describe(
      "the host's public key as in known_hosts (type and key): without it anyone in between can pose as the host",
    ),
});

export const pool = z.strictObject({
  /** AKS allows twelve lower-case letters and digits. */
  name: z
    .string()
    .regex(/^[a-z][a-z0-9]{0,11}$/, must("must be lower-case letters and digits, at most 12, beginning with a letter")),
  /** Used as it is; nothing is created or changed. */
  existing: z.literal(true).optional(),
  vmSize: z
    .string()
    .regex(/^Standard_[A-Za-z0-9_]+$/, must("must be a VM size such as Standard_DC4as_cc_v5"))
    .optional(),
  count: whole(0, 1000).optional(),
  zones: z
    .array(z.string().regex(/^[1-9]\d*$/, must('must be the number of an availability zone, such as "1"')))
    .min(1, must("must list at least one zone"))
    .refine((zones) => new Set(zones).size === zones.length, must("must not list a zone twice"))
    .optional(),
  maxPods: whole(10, 250).optional(),
  labels: labels.optional(),
});

export const user = z
  .string()
  .regex(/^[A-Za-z_][A-Za-z0-9._-]*$/, must("must be a user's name"))
  .default(defaults.sshUser);

export const privateKey = secretContent("must be the private key itself, not its path");

export const nodes = z.strictObject({
  /** At most one of these four; without any: every node of the cluster. */
  selector: labels
    .refine((selector) => Object.keys(selector).length > 0, must("must name at least one label"))
    .optional(),
  names: z.array(nodeName).min(1, must("must list at least one node")).optional(),
  hosts: z.array(host).min(1, must("must list at least one host")).optional(),
  pool: pool.optional(),
  /** How the hosts are reached. */
  ssh: z.strictObject({ user, privateKey }).optional(),
  /** Run once, as root, on a host whose node is not in the cluster yet. */
  joinCommand: secret.optional(),
});

export const toleration = z.strictObject({
  key: z.string().regex(labelKey, must("must be a valid taint key")).optional(),
  operator: z.enum(["Exists", "Equal"]).default("Equal"),
  value: labelValue.optional(),
  effect: z.enum(["NoSchedule", "PreferNoSchedule", "NoExecute"]).optional(),
});

export const overhead = z.strictObject({
  memory: memory.optional(),
  cpu: cpu.optional(),
  /** Charges each pod one SNP or TDX key: only where nodes advertise them, or no pod is ever scheduled. */
  teeKeys: z.boolean().default(defaults.teeKeys),
});

const runtime = z.strictObject({
  platform: z.enum(platformNames),
  /** Path of the manifest, below the project. */
  payload: z
    .string()
    .min(1, must("must be the path of a manifest"))
    .describe("the path of a manifest below the project"),
  /** Known holes of the payload's Kata that are put up with, by GHSA or CVE id; see advisories.ts. */
  acknowledgedAdvisories: z.array(z.string()).default([]),
  overhead: overhead.optional(),
});

export const groupSchema = z.strictObject({
  distribution,
  nodes: nodes.default({}),
  runtimes: z.array(runtime),
  /** How many nodes may be between edit and commit at a time. */
  atOnce: whole(1, 1000).default(defaults.atOnce),
  /** The rollout fails when fewer nodes match. */
  minimumNodes: whole(0, 100_000).default(defaults.minimumNodes),
  /** Dead nodes that neither rollout nor removal waits for. */
  ignoreNodes: z.array(nodeName).default([]),
  /** Seconds without progress after which the rollout gives up. */
  stallTimeout: whole(1, 86_400).default(defaults.stallTimeout),
  tolerations: z.array(toleration).default([]),
  priorityClass: objectName("PriorityClass").default(defaults.priorityClass),
  verifySandbox: z.boolean().default(defaults.verifySandbox),
  /** What happens on the nodes when the group leaves the stack. */
  onDestroy: z.enum(onDestroyValues).default(defaults.onDestroy),
});

export const groupName = dnsLabel(40);

export type ClusterConfiguration = z.output<typeof clusterSchema>;
export type RegistryConfiguration = z.output<typeof registrySchema>;
export type GroupShape = z.output<typeof groupSchema>;

/** The top level, in the order of messages. */
export const topLevel = {
  cluster: clusterSchema,
  installerImage: installerImageSchema,
  registry: registrySchema,
  groups: z.record(z.string(), groupSchema),
} as const;
