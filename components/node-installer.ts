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
import { canonicalJson } from "../runtime/canonical.ts";
import { nodeInstallerCard } from "../runtime/cards.ts";
import { renderSpec } from "../runtime/derive.ts";
import { commandName, installerLabels, installerName, skipNodesAnnotation, specKey } from "../runtime/names.ts";
import { quote } from "../runtime/shell.ts";
import type { DistributionName, InstallSpec, RuntimeSpec } from "../runtime/spec.ts";
import { checkArguments, nodeInstallerArgs } from "./arguments.ts";
import { definedOnly, inOrder, type NodeSelectionArgs, podTemplate, type TolerationArgs } from "./installer-pod.ts";
import { installerIdentity } from "./manifests/identity.ts";
import { withoutStack } from "./refusals.ts";

export interface NodeInstallerArgs extends NodeSelectionArgs {
  /** The node group. Part of the name of everything in the cluster and of the nodes' journals: never renamed. */
  group: string;
  namespace: string;
  /** By digest. */
  image: pulumi.Input<string>;
  distribution: DistributionArgs;
  /**
   * Every runtime that should be on the group's nodes; any other that the installer put there is retired. A spec does not
   * say which Kata it holds, so nothing is checked here against known advisories: see `NodeInstaller`.
   */
  runtimes: RuntimeSpec[];
  /** Content of the kubeconfig that rollout and uninstall use; absent: KUBECONFIG of their environment. */
  kubeconfig?: pulumi.Input<string> | undefined;
  /**
   * Neither waits for nodes nor uninstalls: for a provider that writes YAML, which something else applies. Runtimes that the
   * group no longer lists are still uninstalled; a group that is removed leaves its nodes as they are.
   */
  manifestsOnly?: boolean;
  pullSecret?: string;
  atOnce?: number;
  minimumNodes?: number;
  /** Names of dead nodes that nothing waits for. */
  ignoreNodes?: string[];
  /** Seconds. */
  stallTimeout?: number;
  tolerations?: TolerationArgs[];
  priorityClass?: string;
  verifySandbox?: boolean;
  /** "uninstall" or "leave": what happens on the nodes when the group leaves the stack. */
  onDestroy?: string;
}

interface Spec {
  spec: InstallSpec;
  hash: string;
  /** Of the ConfigMap in the cluster. */
  name: string;
  map: ConfigMap;
}

/** How the nodes run containerd; omitted values are the distribution's own. */
export interface DistributionArgs {
  name: DistributionName;
  configPath?: string | undefined;
  socket?: string | undefined;
  unit?: string | undefined;
  containerdVersion?: string | undefined;
}

/**
 * Puts runtimes on the nodes of one group and keeps them there: one DaemonSet per group, whose spec lists every handler,
 * so that a node has one writer.
 *
 * `ContrastRuntime` derives the specs from payloads and refuses those whose Kata has known holes that nobody acknowledged.
 * Whoever uses this component by itself asks that of every payload before: `assess` in runtime/advisories.ts.
 */
export class NodeInstaller extends pulumi.ComponentResource {
  /** SHA-256 of the install spec, which each node reports when it has done what the spec says. */
  readonly specHash: string;

  readonly #args: NodeInstallerArgs;
  readonly #object: string;
  readonly #options: pulumi.CustomResourceOptions;

  constructor(name: string, args: NodeInstallerArgs, opts?: pulumi.ComponentResourceOptions) {
    checkArguments(`NodeInstaller ${name}`, nodeInstallerArgs, args);
    super(nodeInstallerCard.type, name, reviewCard(args), opts);
    this.#args = args;
    this.#object = installerName(args.group);
    // The children wait for what the component waits for, which the engine does not pass on itself.
    this.#options = { parent: this, ...(opts?.dependsOn && { dependsOn: opts.dependsOn }) };

    const spec = this.#spec();
    const daemonSet = this.#daemonSet(spec, [...this.#identity(), spec.map]);
    if (!args.manifestsOnly) this.#rollout(spec.hash, daemonSet, this.#uninstall(daemonSet));

    this.specHash = spec.hash;
    this.registerOutputs({ specHash: spec.hash });
  }

  /** Who the installers are in the cluster, and the policies that keep each to its own node. */
  #identity(): pulumi.Resource[] {
    const { namespace, group, atOnce = 1 } = this.#args;
    const identity = installerIdentity({ namespace, group, atOnce });
    const [name, options] = [this.#object, this.#options];
    const policies = [
      ...identity.policies.map((policy) => new ValidatingAdmissionPolicy(policy.metadata.name, policy, options)),
      ...identity.policyBindings.map(
        (binding) => new ValidatingAdmissionPolicyBinding(binding.metadata.name, binding, options),
      ),
    ];
    // A right exists only while what confines it does: made after it, and deleted before it.
    const confined = { ...options, dependsOn: policies };
    return [
      ...policies,
      new ServiceAccount(name, identity.serviceAccount, options),
      new ClusterRole(name, identity.clusterRole, options),
      new ClusterRoleBinding(name, identity.clusterRoleBinding, confined),
      new Role(`${name}-tickets`, identity.ticketRole, options),
      new RoleBinding(`${name}-tickets`, identity.ticketRoleBinding, confined),
      new Role(`${name}-events`, identity.eventRole, options),
      new RoleBinding(`${name}-events`, identity.eventRoleBinding, confined),
    ];
  }

  /**
   * The install spec as a ConfigMap named after its content, in the engine too: pods of the old DaemonSet never see the
   * new one, and after a failed update the old one is still there to go back to.
   */
  #spec(): Spec {
    const { group, distribution, runtimes, atOnce = 1, verifySandbox = false } = this.#args;
    const { spec, json, hash } = withoutStack(() =>
      renderSpec({
        group,
        distribution: definedOnly(distribution) as InstallSpec["distribution"],
        atOnce,
        verifySandbox,
        runtimes,
      }),
    );
    const name = `${this.#object}-${hash.slice(0, 8)}`;
    const map = new ConfigMap(
      name,
      {
        metadata: { name, namespace: this.#args.namespace, labels: installerLabels(group) },
        data: { [specKey]: json },
      },
      this.#options,
    );
    return { spec, hash, name, map };
  }

  #daemonSet(spec: Spec, needed: pulumi.Resource[]): DaemonSet {
    const { group, namespace, ignoreNodes = [] } = this.#args;
    const annotations = {
      // The rollout command waits instead: it knows why a node is not ready, and says so.
      "pulumi.com/skipAwait": "true",
      ...(ignoreNodes.length > 0 && { [skipNodesAnnotation]: ignoreNodes.toSorted().join(",") }),
    };
    const template = podTemplate({
      tolerations: [],
      priorityClass: "system-node-critical",
      ...this.#args,
      spec: spec.spec,
      specName: spec.name,
    });
    return new DaemonSet(
      this.#object,
      {
        metadata: { name: this.#object, namespace, labels: installerLabels(group), annotations },
        spec: {
          selector: { matchLabels: { "app.kubernetes.io/name": this.#object } },
          // All pods at once: anything risky on a node needs one of the group's tickets anyway.
          updateStrategy: { type: "RollingUpdate", rollingUpdate: { maxUnavailable: "100%" } },
          template,
        },
      },
      { ...this.#options, dependsOn: needed },
    );
  }

  /** Ends when every node of the group serves the spec; its console shows one line per node. */
  #rollout(specHash: string, daemonSet: DaemonSet, uninstall: Command): void {
    const { group, namespace, minimumNodes = 1, ignoreNodes = [], stallTimeout = 600, image } = this.#args;
    const { nodeSelector, nodeNames, tolerations = [], onDestroy } = this.#args;
    const nodes = canonicalJson({
      nodeSelector,
      nodeNames: nodeNames?.toSorted(),
      tolerations: inOrder(tolerations),
    });
    const skip = ignoreNodes.length > 0 ? ["--skip-nodes", ignoreNodes.toSorted().join(",")] : [];
    const leave = onDestroy === "leave" ? ["--nodes-may-leave"] : [];
    // A preview knows it only if a server could be asked.
    const revision = daemonSet.metadata.apply(({ generation }: { generation?: number }) =>
      generation === undefined ? (pulumi.unknown as never) : `${generation}`,
    );
    new Command(
      commandName(group, "rollout"),
      {
        // Any changed input runs this again. No triggers: they would replace the command, which has nothing to replace.
        create: command(
          ...["rollout", "--namespace", namespace, "--group", group, "--spec-hash", specHash],
          ...["--minimum-nodes", `${minimumNodes}`, "--stall-timeout", `${stallTimeout}`, ...skip, ...leave],
        ),
        // Not read by the command, but they run it again when pods or nodes change. The revision does so on the way back
        // from a failed rollout, too, when the engine still remembers the inputs of the one before.
        environment: this.#environment({
          INSTALLER_IMAGE: image,
          INSTALLER_NODES: nodes,
          INSTALLER_REVISION: revision,
        }),
        // A line per node and state soon exceeds what Linux accepts as a variable (128 KiB).
        addPreviousOutputInEnv: false,
      },
      { parent: this, dependsOn: [daemonSet, uninstall] },
    );
  }

  /**
   * Does nothing until it is deleted: then it uninstalls, while the installers still run, or fails and names the pods in
   * the way. Created before the rollout, so that a failed rollout is uninstalled, too. Needed even if nodes are left as
   * they are: the pod of a dead node would hold up the namespace.
   */
  #uninstall(daemonSet: pulumi.Resource): Command {
    const { group, namespace, onDestroy = "uninstall" } = this.#args;
    return new Command(
      commandName(group, "uninstall"),
      {
        delete: command(
          ...["uninstall", "--namespace", namespace, "--group", group],
          ...(onDestroy === "leave" ? ["--leave"] : []),
        ),
        environment: this.#environment({}),
      },
      { parent: this, dependsOn: [daemonSet] },
    );
  }

  #environment(variables: Record<string, pulumi.Input<string>>) {
    const { kubeconfig } = this.#args;
    return kubeconfig === undefined ? variables : { ...variables, KUBECONFIG_CONTENT: pulumi.secret(kubeconfig) };
  }
}

/** The bin is called by name, so that the command is the same on every machine. */
const command = (...words: string[]): string => ["contrast-runtime", ...words].map(quote).join(" ");

/** What a reviewer should see first, in the engine's diff of the component. */
function reviewCard(args: NodeInstallerArgs): pulumi.Inputs {
  const { group, distribution, nodeSelector, nodeNames, runtimes, image, atOnce = 1, onDestroy = "uninstall" } = args;
  const { manifestsOnly = false } = args;
  return nodeInstallerCard.build({
    group,
    distribution: distribution.name,
    nodes: nodeNames?.toSorted() ?? nodeSelector ?? "all",
    runtimes,
    image,
    atOnce,
    onDestroy,
    manifestsOnly,
  });
}
