import type * as pulumi from "@pulumi/pulumi";
import * as z from "zod";
import { groupName } from "../runtime/spec.ts";
import { input, inputs, type Shape } from "./arguments.ts";
import { labels, labelValue, nodeName } from "./config/kubernetes-names.ts";
import { distribution, groupSchema, toleration } from "./config/schema.ts";
import type { DistributionName, OnDestroy } from "./words.ts";

/** How the nodes run containerd. Everything here is part of the install spec, whose hash names a ConfigMap: plain values. */
export interface DistributionArgs {
  /** containerd, aks, k3s, rke2, k0s or microk8s. */
  name: DistributionName;
  /**
   * Path on the node of the file that containerd reads, or that a distribution renders it from.
   *
   * @default the distribution's own
   * @example "/etc/containerd/config.toml"
   */
  configPath?: string | undefined;
  /**
   * Path on the node of containerd's socket.
   *
   * @default the distribution's own
   * @example "/run/containerd/containerd.sock"
   */
  socket?: string | undefined;
  /**
   * The systemd service that restarts containerd.
   *
   * @default the distribution's own
   * @example "containerd.service"
   */
  unit?: string | undefined;
  /**
   * containerd's version, 1.7.0 or later, for plans on a tree without a containerd binary.
   *
   * @default what the node's containerd says
   * @example "2.1.4"
   */
  containerdVersion?: string | undefined;
}

/** A taint that the installers' pods tolerate, as Kubernetes has it. */
export interface TolerationArgs {
  /**
   * The taint's key.
   *
   * @default every key, which only the operator "Exists" allows
   */
  key?: pulumi.Input<string> | undefined;
  /**
   * "Equal" or "Exists".
   *
   * @default "Equal"
   */
  operator?: pulumi.Input<string> | undefined;
  /**
   * The taint's value, for "Equal".
   *
   * @default ""
   */
  value?: pulumi.Input<string> | undefined;
  /**
   * "NoSchedule", "PreferNoSchedule" or "NoExecute".
   *
   * @default every effect
   */
  effect?: pulumi.Input<string> | undefined;
}

/** CPU and memory of a container, as Kubernetes quantities. */
export interface ResourceAmounts {
  /**
   * Whole or decimal CPUs, or thousandths.
   *
   * @default none
   * @example "250m"
   */
  cpu?: string | undefined;
  /**
   * Bytes, or with a unit.
   *
   * @default none
   * @example "256Mi"
   */
  memory?: string | undefined;
}

/** What a cluster's rules want of the installers' pods. */
export interface InstallerPodArgs {
  /**
   * Labels of the pods, beside their own.
   *
   * @default {}
   * @example { "example.com/cost-centre": "platform" }
   */
  labels?: Record<string, string> | undefined;
  /**
   * Annotations of the pods.
   *
   * @default {}
   * @example { "sidecar.istio.io/inject": "false" }
   */
  annotations?: Record<string, string> | undefined;
  /**
   * What the installer's container requests.
   *
   * @default { cpu: "20m", memory: "96Mi" }
   */
  requests?: ResourceAmounts | undefined;
  /**
   * What the installer's container may use. The page cache of payloads that are copied counts as memory.
   *
   * @default none
   */
  limits?: ResourceAmounts | undefined;
}

/** What a group of nodes is, whoever prepares them: nodes that share one distribution and one list of runtimes. */
export interface GroupArgs {
  /**
   * The node group's name: a lower-case DNS label of at most 40 characters. Plain, because it is part of the name of
   * everything in the cluster and of the nodes' journals. To rename it, give `formerly`, too.
   */
  group: string;
  /**
   * The group's former name. Nodes that belong to a group of that name become this one's: nothing else changes on them. Keep
   * it until every node has been Ready since. Plain, because it is part of the install spec.
   *
   * @default none
   * @example "workers"
   */
  formerly?: string | undefined;
  /** How the nodes run containerd. */
  distribution: DistributionArgs;
  /**
   * The group's nodes by labels. A node is in one group only, and a group's nodes are either selected or named.
   *
   * @default every node of the cluster, unless `nodeNames` is given
   * @example { "example.com/pool": "snp" }
   */
  nodeSelector?: pulumi.Input<Record<string, pulumi.Input<string>>> | undefined;
  /**
   * The group's nodes by name, which nobody who may label nodes can change.
   *
   * @default every node of the cluster, unless `nodeSelector` is given
   * @example ["node-1", "node-2"]
   */
  nodeNames?: pulumi.Input<pulumi.Input<string>[]> | undefined;
  /**
   * How many nodes may be between edit and commit at a time. Plain, because it is part of the install spec.
   *
   * @default 1
   */
  atOnce?: number | undefined;
  /**
   * The rollout fails when fewer nodes match.
   *
   * @default 1
   */
  minimumNodes?: pulumi.Input<number> | undefined;
  /**
   * Names of dead nodes, which neither rollout nor removal waits for; on a host of this name nothing is run. Plain, because
   * it decides which commands are registered.
   *
   * @default []
   * @example ["node-7"]
   */
  ignoreNodes?: string[] | undefined;
  /**
   * Seconds without progress after which the rollout gives up.
   *
   * @default 600
   */
  stallTimeout?: pulumi.Input<number> | undefined;
  /**
   * Taints that the installers' pods tolerate. Their order has no meaning.
   *
   * @default []
   * @example [{ key: "dedicated", operator: "Exists" }]
   */
  tolerations?: pulumi.Input<pulumi.Input<TolerationArgs>[]> | undefined;
  /**
   * Key of the taint with which nodes join, so that nothing runs there before the runtimes do: the installers tolerate it and
   * take it from a node that serves all of them. Plain, because it is part of the install spec.
   *
   * @default none
   * @example "runtime.contrast.edgeless.systems/not-ready"
   */
  startupTaint?: string | undefined;
  /**
   * Name of the PriorityClass of the installers' pods.
   *
   * @default "system-node-critical"
   */
  priorityClass?: pulumi.Input<string> | undefined;
  /**
   * What the installers' pods have beside their own labels, annotations and resources.
   *
   * @default nothing
   */
  installerPod?: pulumi.Input<InstallerPodArgs> | undefined;
  /**
   * Start a sandbox through the CRI after each installation and check its shim; always done for the platform `local`, not
   * possible on those with a GPU. Plain, because it is part of the install spec.
   *
   * @default false
   */
  verifySandbox?: boolean | undefined;
  /**
   * Let the installer's restart also load what others have changed on a node without restarting containerd, and a containerd
   * that was upgraded without a restart. Otherwise such a node is refused until somebody restarts containerd there. Plain,
   * because it is part of the install spec.
   *
   * @default false
   */
  loadPendingChanges?: boolean | undefined;
  /**
   * What happens on the nodes when the group leaves the stack: "uninstall" or "leave". Plain, because the engine needs it
   * when the group is no longer in the program.
   *
   * @default "uninstall"
   */
  onDestroy?: OnDestroy;
}

const { formerly, atOnce, minimumNodes, ignoreNodes, stallTimeout, startupTaint, priorityClass, installerPod } =
  groupSchema.shape;
const { verifySandbox, loadPendingChanges, onDestroy } = groupSchema.shape;

/** Labels, each value an Input of its own. */
export const labelInputs = input(z.record(labels.keyType, input(labelValue)));

export const groupArgs = {
  group: groupName,
  formerly,
  distribution,
  nodeSelector: labelInputs.optional(),
  nodeNames: input(z.array(input(nodeName)).min(1, { error: "must list at least one node" })).optional(),
  atOnce,
  minimumNodes: input(minimumNodes),
  ignoreNodes,
  stallTimeout: input(stallTimeout),
  tolerations: input(z.array(input(z.strictObject(inputs(toleration.shape)))).default([])),
  startupTaint,
  priorityClass: input(priorityClass),
  installerPod: input(installerPod),
  verifySandbox,
  loadPendingChanges,
  onDestroy,
} satisfies Shape<GroupArgs>;

/** What the schemas make of a group's arguments. */
export type CheckedGroup = z.output<z.ZodObject<typeof groupArgs>>;
