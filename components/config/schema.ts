import * as z from "zod";
import { oldestContainerd } from "../../runtime/containerd-versions.ts";
import { distributionChoice, distributionNames, dnsLabel, groupName, taintKey } from "../../runtime/spec.ts";
import { isAtLeast } from "../../runtime/version.ts";
import { defaults, onDestroyValues } from "./defaults.ts";
import { hostKeyMistake, hostKeyPattern, typeAndKey } from "./host-keys.ts";
import { image, registryHost } from "./image-reference.ts";
import { installerPod } from "./installer-pod-schema.ts";
import { labelKey, labels, labelValue, nodeName, objectName } from "./kubernetes-names.ts";
import { clusterOptions } from "./local-cluster.ts";
import { registrySchema, secret } from "./registry-schema.ts";
import { runtime } from "./runtime-schema.ts";

/*
 * The shape of a stack's configuration, key by key. What concerns more than one key is in rules.ts. Every object is
 * strict: an unknown key is a mistake, because the engine does not report one.
 *
 * Descriptions stand in the tables of docs/configuration.md and in docs/stack.schema.json, which editors read. `expected` is what a message
 * says in place of a type; `secret` a value that must be encrypted in the stack file, and that no message repeats. Other
 * keys of `meta` are what JSON Schema says where zod has only a function.
 */

const must = (error: string) => ({ error });
/** A file is given by its content: its path would be another file, or none, on other machines. */
const secretContent = (error: string) =>
  z
    .string()
    .min(1, must("must not be empty"))
    .regex(/^(?!(~|\.{1,2})?\/[^\n]*\n?$)/, must(error))
    .meta({ secret: true });

const whole = (least: number, most: number) =>
  z
    .int(must("must be a whole number"))
    .min(least, must(`must be ${least} or more`))
    .max(most, must(`must be at most ${most}`));
const uuid = z
  .string()
  .regex(
    /^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$/,
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
    z
      .strictObject({
        kind: z.literal("local"),
        nodes: clusterOptions.shape.nodes
          .unwrap()
          .optional()
          .describe("The cluster's nodes. By default one, named node-1, with the newest containerd."),
      })
      .describe("A cluster on this machine, named after the stack."),
    z
      .strictObject({
        kind: z.literal("kubeconfig"),
        name: dnsLabel(40).describe(
          "The cluster's name in this stack. A change means another cluster: everything is replaced.",
        ),
        kubeconfig: secretContent("must be the content of a kubeconfig, not its path")
          .optional()
          .describe(
            "The file's content. Without it, the environment's KUBECONFIG is used, which other machines then need too.",
          ),
      })
      .describe("A cluster that exists."),
    z
      .strictObject({
        kind: z.literal("aks"),
        subscriptionId: uuid.describe("The subscription's id."),
        resourceGroup: azureResourceGroup.describe("The cluster's resource group."),
        name: aksClusterName.describe("The cluster's name in Azure."),
        credentials: z
          .enum(["user", "admin"])
          .default(defaults.aksCredentials)
          .describe("`admin` is refused by clusters with local accounts disabled; `user` may need kubelogin."),
        retiredService: z
          .literal("acknowledged")
          .optional()
          .describe(
            "Acknowledges that Microsoft retired KataCcIsolation, without which no pool is created or scaled any more.",
          ),
      })
      .describe("An AKS cluster that exists."),
  ])
  .meta({ expected: "a map with kind: local, kubeconfig or aks" })
  .describe(
    "`{kind: local, nodes}`: on this machine. `{kind: kubeconfig, name, kubeconfig}`: an existing one; without " +
      "`kubeconfig`, the `KUBECONFIG` of the environment. `{kind: aks, subscriptionId, resourceGroup, name, credentials, " +
      "retiredService}`.",
  );

const installerImageSchema = image("local", ', or "local" for the image that `npm run image` built')
  .meta({ pattern: `^(local|${registryHost}(/[a-z0-9._-]+)+@sha256:[0-9a-f]{64})$` })
  .default("local")
  .describe(
    "The installer's image, `registry/repository@sha256:…`, never a tag. `local`: the image that `npm run image` built, " +
      "for local clusters.",
  );

/** What people may try that is none of ours, with what to do. */
const otherDistributions = {
  eks: 'Nodes of EKS run plain containerd: that is "containerd". Nobody has tried it, and a node needs a TEE of its own, as bare metal has it.',
  gke: "Nodes of GKE run Container-Optimized OS, which discards changes of containerd's configuration: use other nodes.",
  openshift: "OpenShift runs CRI-O, and only containerd is supported: use other nodes.",
};

const { name, configPath, socket, unit, containerdVersion } = distributionChoice.shape;
export const distribution = z
  .strictObject({
    name: name
      .meta({ otherWords: { kubeadm: "containerd", kubespray: "containerd" }, notAmong: otherDistributions })
      .describe("How the nodes run containerd; `containerd` is plain or kubeadm."),
    configPath: configPath.describe("The file that is edited, if it is not the distribution's own."),
    socket: socket.describe("containerd's socket, if it is not the distribution's own."),
    unit: unit.describe("containerd's systemd unit, if it is not the distribution's own."),
    containerdVersion: containerdVersion
      .unwrap()
      .refine(
        (version) => isAtLeast(version, oldestContainerd),
        must(`is out of support and ignores where a runtime's shim is. Allowed: ${oldestContainerd} and later`),
      )
      .optional()
      .describe("For plans on a tree without containerd: the version that the nodes will have."),
  } satisfies Record<keyof typeof distributionChoice.shape, z.ZodType>)
  .meta({ expected: `one of ${distributionNames.join(", ")}, or a map with such a name and overrides` })
  .describe(
    "`containerd` (plain, kubeadm), `aks`, `k3s`, `rke2`, `k0s`, `microk8s`; or an object with `name` and the overrides " +
      "`configPath`, `socket`, `unit`, `containerdVersion` (for plans on a tree without containerd).",
  );

export const host = z.strictObject({
  name: nodeName.describe("The node's name in the cluster."),
  address: z
    .string()
    .regex(/^[A-Za-z0-9:][A-Za-z0-9.:-]*$/, must("must be a host name or an IP address"))
    .describe("The host's name or IP address, for SSH."),
  port: whole(1, 65535).default(defaults.sshPort).describe("The port of the host's SSH server."),
  // For RSA keys the plugin accepts only SHA-1 signatures, which sshd no longer makes.
  hostKey: z
    .string()
    .overwrite(typeAndKey)
    .superRefine((key, context) => {
      const message = hostKeyMistake(key);
      if (message !== undefined) context.addIssue({ code: "custom", message });
    })
    .meta({
      pattern: hostKeyPattern,
      expected:
        "the host's public key as in known_hosts (type and key): without it anyone in between can pose as the host",
    })
    .describe(
      "The host's public key: a line of known_hosts or of a .pub file; its type and key count. RSA keys cannot be used.",
    ),
});

export const pool = z.strictObject({
  // As AKS allows.
  name: z
    .string()
    .regex(/^[a-z][a-z0-9]{0,11}$/, must("must be lower-case letters and digits, at most 12, beginning with a letter"))
    .describe("The pool's name in AKS."),
  existing: z
    .literal(true)
    .optional()
    .describe("The pool is used as it is; nothing is created or changed. Then no other key but `name` may be there."),
  vmSize: z
    .string()
    .regex(/^Standard_[A-Za-z0-9_]+$/, must("must be a VM size such as Standard_DC4as_cc_v5"))
    .optional()
    .describe("A size that runs SNP guests, such as Standard_DC4as_cc_v5."),
  count: whole(0, 1000).optional().describe("The pool's number of nodes."),
  zones: z
    .array(z.string().regex(/^[1-9]\d*$/, must('must be the number of an availability zone, such as "1"')))
    .min(1, must("must list at least one zone"))
    .refine((zones) => new Set(zones).size === zones.length, must("must not list a zone twice"))
    .meta({ uniqueItems: true })
    .optional()
    .describe('Availability zones by number, as text: `["1", "2"]`.'),
  maxPods: whole(10, 250).optional().describe("Pods per node."),
  labels: labels.optional().describe("Labels of the pool's nodes, beside those that it needs."),
});

export const user = z
  .string()
  .regex(/^[A-Za-z_][A-Za-z0-9._-]*$/, must("must be a user's name"))
  .default(defaults.sshUser)
  .describe("Who logs in; anybody but root needs sudo without a password.");

export const privateKey = secretContent("must be the private key itself, not its path").describe(
  "The private key itself, not its path.",
);

/** Why lists end somewhere. */
const asOneVariable = "because Linux takes 128 KiB as a variable, in which a program gets its configuration";

const nodes = z.strictObject({
  selector: labels
    .refine((selector) => Object.keys(selector).length > 0, must("must name at least one label"))
    .meta({ minProperties: 1 })
    .optional()
    .describe("Nodes that carry all these labels."),
  names: z
    .array(nodeName)
    .min(1, must("must list at least one node"))
    .max(
      1_000,
      must(`must list at most 1000 nodes, ${asOneVariable}: give more of them a label, and select them by it`),
    )
    .optional()
    .describe("Nodes by name, at most 1000."),
  hosts: z
    .array(host)
    .min(1, must("must list at least one host"))
    .max(300, must(`must list at most 300 hosts, ${asOneVariable}: make several stacks of them`))
    .optional()
    .describe("Hosts that are prepared by SSH, and joined to the cluster if they are not in it yet."),
  pool: pool.optional().describe("A node pool of an AKS cluster."),
  ssh: z.strictObject({ user, privateKey }).optional().describe("How `hosts` are reached."),
  joinCommand: secret
    .optional()
    .describe("Run once, as root, on a host whose node is not in the cluster yet, such as `kubeadm join …`."),
});

export const toleration = z.strictObject({
  key: z
    .string()
    .regex(labelKey, must("must be a valid taint key"))
    .optional()
    .describe("The taint's key. Without it, and with `operator: Exists`, every taint is tolerated."),
  operator: z.enum(["Exists", "Equal"]).default("Equal").describe("Whether the taint's value counts."),
  value: labelValue.optional().describe("The taint's value."),
  effect: z
    .enum(["NoSchedule", "PreferNoSchedule", "NoExecute"])
    .optional()
    .describe("The taint's effect. Without it, all are tolerated."),
});

export const groupSchema = z.strictObject({
  formerly: groupName
    .optional()
    .describe(
      "The group's former name, when it is renamed: its nodes are taken over as they are. Keep it until every node has been Ready since.",
    ),
  distribution,
  nodes: nodes
    .default({})
    .describe(
      "One of `selector`, `names`, `hosts` (by SSH, each with `hostKey`), `pool` (AKS); if empty, every node of the " +
        "cluster. Hosts take `ssh` and `joinCommand`, too.",
    ),
  runtimes: z
    .array(runtime)
    .describe(
      "List of runtimes: `{platform, payload}` with the path of a manifest, and what is in the next table. `[]` uninstalls " +
        "what is there.",
    ),
  atOnce: whole(1, 1000)
    .default(defaults.atOnce)
    .describe("How many nodes may be between edit and commit at a time, also on the first rollout."),
  minimumNodes: whole(0, 100_000).default(defaults.minimumNodes).describe("The rollout fails if fewer nodes match."),
  ignoreNodes: z
    .array(nodeName)
    .default([])
    .describe("Names of dead nodes that nothing waits for; on dead hosts nothing is run by SSH."),
  stallTimeout: whole(1, 86_400)
    .default(defaults.stallTimeout)
    .describe("Seconds without progress after which the rollout gives up."),
  tolerations: z.array(toleration).default([]).describe("Taints that the installer's pods tolerate."),
  startupTaint: taintKey
    .optional()
    .describe(
      "Key of a taint with which nodes join. The installers tolerate it, and take it from a node that serves every runtime.",
    ),
  priorityClass: objectName("PriorityClass")
    .default(defaults.priorityClass)
    .describe("Of the installer's pods: they must not be evicted in the middle of a change."),
  installerPod: installerPod
    .default(installerPod.parse({}))
    .describe("What a cluster's rules want of the installer's pods: `labels`, `annotations`, `requests`, `limits`."),
  verifySandbox: z
    .boolean()
    .default(defaults.verifySandbox)
    .describe(
      "Starts a sandbox with each new handler before the commit. Always done for `local`, not possible with a GPU.",
    ),
  loadPendingChanges: z
    .boolean()
    .default(defaults.loadPendingChanges)
    .describe(
      "`true`: the installer's restart also loads what others changed on a node and did not load, and an upgraded containerd. Otherwise such a node is refused until containerd is restarted there.",
    ),
  onDestroy: z
    .enum(onDestroyValues)
    .default(defaults.onDestroy)
    .describe("`leave`: what is on the nodes stays there when they leave the group, or the group leaves the stack."),
});

export type ClusterConfiguration = z.output<typeof clusterSchema>;
export type RegistryConfiguration = z.output<typeof registrySchema>;
export type GroupShape = z.output<typeof groupSchema>;

/** The top level, in the order of messages. */
export const topLevel = {
  cluster: clusterSchema,
  installerImage: installerImageSchema,
  registry: registrySchema,
  groups: z
    .record(groupName, groupSchema)
    .meta({ minProperties: 1 })
    .describe("Node groups by name: nodes that share one distribution and one list of runtimes."),
} as const;
