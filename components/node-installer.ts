import { Command } from "@pulumi/command/local/command.js";
import { ValidatingAdmissionPolicy } from "@pulumi/kubernetes/admissionregistration/v1/validatingAdmissionPolicy.js";
import { ValidatingAdmissionPolicyBinding } from "@pulumi/kubernetes/admissionregistration/v1/validatingAdmissionPolicyBinding.js";
import { DaemonSet } from "@pulumi/kubernetes/apps/v1/daemonSet.js";
import { ConfigMap } from "@pulumi/kubernetes/core/v1/configMap.js";
import { ServiceAccount } from "@pulumi/kubernetes/core/v1/serviceAccount.js";
import { ClusterRole } from "@pulumi/kubernetes/rbac/v1/clusterRole.js";
import { ClusterRoleBinding } from "@pulumi/kubernetes/rbac/v1/clusterRoleBinding.js";
import { Role } from "@pulumi/kubernetes/rbac/v1/role.js";
import { RoleBinding } from "@pulumi/kubernetes/rbac/v1/roleBinding.js";
import * as pulumi from "@pulumi/pulumi";
import * as z from "zod";
import { canonicalJson, sha256 } from "../runtime/canonical.ts";
import { nodeInstallerCard } from "../runtime/cards.ts";
import { renderSpec } from "../runtime/derive.ts";
import { commandName, installerLabels, installerName, skipNodesAnnotation, specKey } from "../runtime/names.ts";
import type { InstallSpec, RuntimeSpec } from "../runtime/spec.ts";
import { formerly } from "./aliases.ts";
import { applied, checkArguments, input, type Shape, WrongArguments } from "./arguments.ts";
import { specsOf } from "./config/derivation.ts";
import { checkGroups } from "./config/group-check.ts";
import { imageReference } from "./config/image-reference.ts";
import { namespaceName, objectName } from "./config/kubernetes-names.ts";
import { checkRuntimes } from "./config/runtime-rules.ts";
import { type GroupArgs, groupArgs } from "./group.ts";
import { definedOnly, inOrder, podTemplate } from "./installer-pod.ts";
import { onlyGroup, runtimesOf } from "./known-group.ts";
import { installerIdentity } from "./manifests/identity.ts";
import { commandInterpreter, packageCommand } from "./package-command.ts";
import { withoutStack } from "./refusals.ts";
import { deriveEach, type PayloadArgs, payloadArgs } from "./runtime.ts";

/** What the installers of all groups have in common. */
export interface InstallationArgs {
  /**
   * The installer's image, by digest.
   *
   * @example "registry.example.com/contrast-node-installer@sha256:…"
   */
  image: pulumi.Input<string>;
  /**
   * Content of the kubeconfig that rollout and uninstall use. A secret.
   *
   * @default KUBECONFIG of the environment in which they run
   */
  kubeconfig?: pulumi.Input<string> | undefined;
  /**
   * Neither waits for nodes nor uninstalls: for a provider that writes YAML, which something else applies. Runtimes that the
   * group no longer lists are still uninstalled; a group that is removed leaves its nodes as they are. Plain, because it
   * decides which resources there are.
   *
   * @default false
   */
  manifestsOnly?: boolean | undefined;
}

/** Arguments of `NodeInstaller`. */
export interface NodeInstallerArgs extends GroupArgs, InstallationArgs {
  /** An existing namespace. Plain, because admission policies and commands are made for it. */
  namespace: string;
  /**
   * Every runtime that should be on the group's nodes; any other that the installer put there is retired. Plain, because
   * they are the install spec, whose hash names a ConfigMap.
   */
  runtimes: PayloadArgs[];
  /**
   * Name of a Secret in the namespace with which nodes pull the image.
   *
   * @default none
   */
  pullSecret?: pulumi.Input<string> | undefined;
  /**
   * Name of a Secret in the namespace, with the key contrast-imagepuller.toml: how Contrast's guests reach registries, in the
   * form of its image puller. Whether it is given is plain, because it is part of the handler.
   *
   * @default none
   */
  guestRegistry?: pulumi.Input<string> | undefined;
}

export const installationArgs = {
  image: input(imageReference),
  kubeconfig: input(z.string().min(1).meta({ secret: true })).optional(),
  manifestsOnly: z.boolean().default(false),
} satisfies Shape<InstallationArgs>;

const nodeInstallerArgs = z.strictObject({
  ...groupArgs,
  ...installationArgs,
  namespace: namespaceName,
  runtimes: z.array(z.strictObject(payloadArgs)),
  pullSecret: input(objectName("Secret")).optional(),
  guestRegistry: input(objectName("Secret")).optional(),
} satisfies Shape<NodeInstallerArgs>);

/** What an installer is made from: arguments that are checked, runtimes that are derived. */
export interface CheckedInstaller extends Omit<z.output<typeof nodeInstallerArgs>, "runtimes"> {
  runtimes: RuntimeSpec[];
  /** By handler: ids of the known holes of its Kata that are acknowledged. */
  advisories: Record<string, string[]>;
}

/** What its parts are made from. */
interface Installer extends CheckedInstaller {
  /** The component's name, which those of its children begin with. */
  name: string;
  /** The name of most of its objects in the cluster. */
  object: string;
  /** Its children's. */
  options: pulumi.CustomResourceOptions;
}

interface Spec {
  spec: InstallSpec;
  json: string;
  hash: string;
  /** Of the ConfigMap in the cluster. */
  name: string;
}

/**
 * Puts runtimes on the nodes of one group and keeps them there: one DaemonSet per group, whose spec lists every handler,
 * so that a node has one writer.
 */
export class NodeInstaller extends pulumi.ComponentResource {
  /** SHA-256 of the install spec, in hex, which each node reports when it has done what the spec says. */
  readonly specHash: pulumi.Output<string>;

  constructor(name: string, args: NodeInstallerArgs, opts?: pulumi.ComponentResourceOptions) {
    const checked = checkedInstaller(`NodeInstaller ${name}`, args);
    super(nodeInstallerCard.type, name, reviewCard(checked), opts);
    this.specHash = install(this, name, checked, opts);
    this.registerOutputs({ specHash: this.specHash });
  }
}

/** The same for a group of a `ContrastRuntime`, which has checked its arguments and derived its runtimes. */
export class GroupInstaller extends pulumi.ComponentResource {
  constructor(name: string, checked: CheckedInstaller, opts: pulumi.ComponentResourceOptions) {
    super(nodeInstallerCard.type, name, reviewCard(checked), opts);
    this.registerOutputs({ specHash: install(this, name, checked, opts) });
  }
}

/** @throws WrongArguments before anything is registered */
function checkedInstaller(component: string, args: NodeInstallerArgs): CheckedInstaller {
  const checked = checkArguments(component, nodeInstallerArgs, args);
  const group = onlyGroup(checked);
  const mistakes = checkGroups([group]);
  const hasRegistry = checked.guestRegistry !== undefined;
  const runtimes = deriveEach(checked.runtimes, checked.distribution.name, "runtimes", mistakes, hasRegistry);
  mistakes.push(...checkRuntimes([runtimesOf(group, runtimes)]));
  if (mistakes.length > 0) throw new WrongArguments(component, mistakes);
  return { ...checked, ...specsOf(runtimes) };
}

/** Registers the children; returns the spec's hash. */
function install(
  parent: pulumi.ComponentResource,
  name: string,
  checked: CheckedInstaller,
  opts: pulumi.ComponentResourceOptions | undefined,
): pulumi.Output<string> {
  const installer: Installer = {
    ...checked,
    name,
    object: installerName(checked.group),
    // The children wait for what the component waits for, which the engine does not pass on itself.
    options: { parent, ...(opts?.dependsOn && { dependsOn: opts.dependsOn }) },
  };
  const spec = installSpec(installer);
  const map = specMap(installer, spec);
  const daemonSet = installers(installer, spec, [...identity(installer), map]);
  if (!checked.manifestsOnly) rollout(installer, spec, daemonSet, uninstall(installer, daemonSet));
  return pulumi.output(spec.hash);
}

/** Under the name that earlier versions gave it, in the engine as in the cluster. */
const aliased = (options: pulumi.CustomResourceOptions, object: string): pulumi.CustomResourceOptions => ({
  ...options,
  aliases: formerly(object),
});

/** Who the installers are in the cluster, and the policies that keep each to its own node. */
function identity({ name, object, options, namespace, group, atOnce, startupTaint }: Installer): pulumi.Resource[] {
  const made = installerIdentity({ namespace, group, atOnce, startupTaint });
  const child = (objectName: string) => `${name}${objectName.slice(object.length)}`;
  const policies = [
    ...made.policies.map((policy) => {
      const { name } = policy.metadata;
      return new ValidatingAdmissionPolicy(child(name), policy, aliased(options, name));
    }),
    ...made.policyBindings.map((binding) => {
      const { name } = binding.metadata;
      return new ValidatingAdmissionPolicyBinding(child(name), binding, aliased(options, name));
    }),
  ];
  // A right exists only while what confines it does: made after it, and deleted before it.
  const confined = { ...options, dependsOn: policies };
  const [tickets, events] = [`${object}-tickets`, `${object}-events`];
  return [
    ...policies,
    new ServiceAccount(name, made.serviceAccount, aliased(options, object)),
    new ClusterRole(name, made.clusterRole, aliased(options, object)),
    new ClusterRoleBinding(name, made.clusterRoleBinding, aliased(confined, object)),
    new Role(child(tickets), made.ticketRole, aliased(options, tickets)),
    new RoleBinding(child(tickets), made.ticketRoleBinding, aliased(confined, tickets)),
    new Role(child(events), made.eventRole, aliased(options, events)),
    new RoleBinding(child(events), made.eventRoleBinding, aliased(confined, events)),
  ];
}

function installSpec(installer: Installer): Spec {
  const { object, group, formerly, distribution, atOnce, verifySandbox, loadPendingChanges, startupTaint } = installer;
  const { runtimes, advisories } = installer;
  const rendered = withoutStack(() =>
    renderSpec({
      group,
      ...(formerly !== undefined && { formerly }),
      distribution: definedOnly(distribution) as InstallSpec["distribution"],
      atOnce,
      verifySandbox,
      loadPendingChanges,
      startupTaint,
      advisories,
      runtimes,
    }),
  );
  return { ...rendered, name: `${object}-${rendered.hash.slice(0, 8)}` };
}

/**
 * The install spec as a ConfigMap named after its content, in the engine too: pods of the old DaemonSet never see the new
 * one, and after a failed update the old one is still there to go back to.
 */
const specMap = ({ name, options, namespace, group }: Installer, spec: Spec): ConfigMap =>
  new ConfigMap(
    `${name}-${spec.hash.slice(0, 8)}`,
    {
      metadata: { name: spec.name, namespace, labels: installerLabels(group) },
      data: { [specKey]: spec.json },
    },
    aliased(options, spec.name),
  );

function installers(installer: Installer, { spec, name: specName }: Spec, needed: pulumi.Resource[]): DaemonSet {
  const { name, object, options, group, namespace, ignoreNodes, atOnce } = installer;
  const hasSnapshotter = spec.runtimes.some(({ containerd }) => containerd.proxyPlugin !== undefined);
  const annotations = {
    // The rollout command waits instead: it knows why a node is not ready, and says so.
    "pulumi.com/skipAwait": "true",
    ...(ignoreNodes.length > 0 && { [skipNodesAnnotation]: ignoreNodes.toSorted().join(",") }),
  };
  return new DaemonSet(
    name,
    {
      metadata: { name: object, namespace, labels: installerLabels(group), annotations },
      spec: {
        selector: { matchLabels: { "app.kubernetes.io/name": object } },
        // All pods at once: anything risky on a node needs one of the group's tickets anyway. But while a pod with a
        // snapshotter is replaced, no container of its handler starts on the node; and dead nodes' pods stay away.
        updateStrategy: {
          type: "RollingUpdate",
          rollingUpdate: { maxUnavailable: hasSnapshotter ? atOnce + ignoreNodes.length : "100%" },
        },
        template: podTemplate({ ...installer, spec, specName }),
      },
    },
    // Of a renamed group the old installers are gone before the new ones come.
    { ...aliased(options, object), dependsOn: needed, deleteBeforeReplace: true },
  );
}

/** Ends when every node of the group serves the spec; its console shows one line per node. */
function rollout(installer: Installer, { hash }: Spec, daemonSet: DaemonSet, uninstall: Command): void {
  const { name, options, group, formerly, namespace, ignoreNodes, image, onDestroy } = installer;
  const former = formerly === undefined ? [] : ["--formerly", formerly];
  const skip = ignoreNodes.length > 0 ? ["--skip-nodes", ignoreNodes.toSorted().join(",")] : [];
  const leave = onDestroy === "leave" ? ["--nodes-may-leave"] : [];
  const create = applied([installer.minimumNodes, installer.stallTimeout] as const, ([minimumNodes, stallTimeout]) =>
    packageCommand(
      "rollout",
      ...["--namespace", namespace, "--group", group, "--spec-hash", hash],
      ...["--minimum-nodes", `${minimumNodes}`, "--stall-timeout", `${stallTimeout}`, ...skip, ...leave, ...former],
    ),
  );
  // A preview knows it only if a server could be asked.
  const revision = daemonSet.metadata.apply(({ generation }: { generation?: number }) =>
    generation === undefined ? (pulumi.unknown as never) : `${generation}`,
  );
  new Command(
    commandName(name, "rollout"),
    {
      // Any changed input runs this again. No triggers: they would replace the command, which has nothing to replace.
      create,
      interpreter: commandInterpreter(),
      // Not read by the command, but they run it again when pods or nodes change. The revision does so on the way back
      // from a failed rollout, too, when the engine still remembers the inputs of the one before.
      environment: environment(installer, {
        INSTALLER_IMAGE: image,
        INSTALLER_NODES: nodesOf(installer),
        INSTALLER_REVISION: revision,
      }),
      // A line per node and state soon exceeds what Linux accepts as a variable (128 KiB).
      addPreviousOutputInEnv: false,
    },
    { ...aliased(options, commandName(group, "rollout")), dependsOn: [daemonSet, uninstall] },
  );
}

/** Linux accepts 128 KiB as a variable. */
const mostNamedNodes = 1_000;

/** Which nodes there are and why, as a text; of very many names their digest, which changes as they do. */
const nodesOf = ({ nodeSelector, nodeNames, tolerations }: Installer): pulumi.Input<string> =>
  applied([nodeSelector, nodeNames, tolerations] as const, ([nodeSelector, nodeNames, tolerations]) => {
    const names = nodeNames?.toSorted();
    const shown =
      names === undefined || names.length <= mostNamedNodes
        ? names
        : { count: names.length, sha256: sha256(names.join("\n")) };
    return canonicalJson({ nodeSelector, nodeNames: shown, tolerations: inOrder(tolerations) });
  });

/**
 * Does nothing until it is deleted: then it uninstalls, while the installers still run, or fails and names the pods in
 * the way. Created before the rollout, so that a failed rollout is uninstalled, too. Needed even if nodes are left as
 * they are: the pod of a dead node would hold up the namespace.
 */
function uninstall(installer: Installer, daemonSet: pulumi.Resource): Command {
  const { name, options, group, namespace, onDestroy } = installer;
  return new Command(
    commandName(name, "uninstall"),
    {
      delete: packageCommand(
        "uninstall",
        ...["--namespace", namespace, "--group", group],
        ...(onDestroy === "leave" ? ["--leave"] : []),
      ),
      interpreter: commandInterpreter(),
      environment: environment(installer, {}),
    },
    { ...aliased(options, commandName(group, "uninstall")), dependsOn: [daemonSet] },
  );
}

const environment = ({ kubeconfig }: Installer, variables: Record<string, pulumi.Input<string>>) =>
  kubeconfig === undefined ? variables : { ...variables, KUBECONFIG_CONTENT: pulumi.secret(kubeconfig) };

/** What a reviewer should see first, in the engine's diff of the component. */
function reviewCard(args: CheckedInstaller) {
  const { group, distribution, nodeSelector, nodeNames, runtimes, image, atOnce, onDestroy, manifestsOnly } = args;
  return nodeInstallerCard.build({
    group,
    distribution: distribution.name,
    nodes: nodeNames ? applied(nodeNames, (names) => names.toSorted()) : (nodeSelector ?? "all"),
    runtimes,
    image,
    atOnce,
    onDestroy,
    manifestsOnly,
  });
}
