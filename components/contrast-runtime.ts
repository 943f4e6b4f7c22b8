import { Namespace } from "@pulumi/kubernetes/core/v1/namespace.js";
import { Secret } from "@pulumi/kubernetes/core/v1/secret.js";
import * as pulumi from "@pulumi/pulumi";
import { launchTable, launchValues } from "../measure/launch-values.ts";
import { measuredInputs } from "../measure/reference-value-changes.ts";
import { deriveRuntime, measuredRuntime } from "../measure/runtime.ts";
import type { ReferenceTable } from "../measure/verifier-formats.ts";
import { advisoryName, assess, explainOpen } from "../runtime/advisories.ts";
import { type ContrastRuntimeCard, contrastRuntimeCard } from "../runtime/cards.ts";
import { type FlavourName, flavourTitles } from "../runtime/flavours.ts";
import type { Manifest } from "../runtime/manifest.ts";
import { partOfLabel, systemNamespace } from "../runtime/names.ts";
import { platforms } from "../runtime/platforms.ts";
import { Refusal } from "../runtime/refusal.ts";
import type { PlatformName, RuntimeSpec } from "../runtime/spec.ts";
import { AksCocoNodePool, type AksCocoNodePoolArgs } from "./aks-coco-node-pool.ts";
import { checkArguments, contrastRuntimeArgs } from "./arguments.ts";
import { BareMetalNodes, type HostArgs } from "./bare-metal-nodes.ts";
import type { NodeSelectionArgs } from "./installer-pod.ts";
import { NodeInstaller, type NodeInstallerArgs } from "./node-installer.ts";
import { withoutStack } from "./refusals.ts";
import { RuntimeClasses } from "./runtime-classes.ts";

export interface RuntimeArgs {
  platform: PlatformName;
  /** What the lock command wrote. */
  manifest: Manifest;
  /** Known holes of its Kata that are put up with, by GHSA or CVE id; without them such a payload is refused. */
  acknowledgedAdvisories?: string[];
  /** Overhead of the RuntimeClass; by default the platform's own. */
  memory?: string | undefined;
  cpu?: string | undefined;
  teeKeys?: boolean;
}

/** A node group: what `NodeInstaller` needs of it, with runtimes as platform and payload. */
export interface NodeGroupArgs
  extends Omit<NodeInstallerArgs, "namespace" | "image" | "kubeconfig" | "manifestsOnly" | "pullSecret" | "runtimes"> {
  runtimes: RuntimeArgs[];
  /** A pool to create. Existing nodes are named or selected instead. */
  pool?: AksCocoNodePoolArgs;
  /** Hosts to prepare over SSH; their names are the group's nodes. */
  hosts?: HostArgs[];
  sshUser?: string;
  sshPrivateKey?: pulumi.Input<string>;
  joinCommand?: pulumi.Input<string> | undefined;
}

export interface ContrastRuntimeArgs {
  /** The installer's image, by digest. */
  image: pulumi.Input<string>;
  groups: NodeGroupArgs[];
  /** Content of the kubeconfig that rollout and uninstall use; absent: KUBECONFIG of their environment. */
  kubeconfig?: pulumi.Input<string> | undefined;
  /** See `NodeInstallerArgs`. */
  manifestsOnly?: boolean;
  /** Content of a .dockerconfigjson with which nodes pull the image. */
  pullSecret?: pulumi.Input<string> | undefined;
  /** CA certificate, in PEM, of the image's registry: hosts that are reached over SSH are made to trust it. */
  registryCa?: string | undefined;
}

/** Confidential containers on the nodes of a cluster: their RuntimeClasses, and an installer per node group. */
export class ContrastRuntime extends pulumi.ComponentResource {
  /** Handlers by group, each sorted. */
  readonly handlers: Record<string, string[]>;
  /** What verifiers will see of guests with one to eight vCPUs, by handler. */
  readonly referenceValues: Record<string, ReferenceTable>;

  constructor(name: string, args: ContrastRuntimeArgs, opts?: pulumi.ComponentResourceOptions) {
    checkArguments(`ContrastRuntime ${name}`, contrastRuntimeArgs, args);
    const groups = withoutStack(() => args.groups.map(derived));
    const handlers = Object.fromEntries(
      groups.map(({ group, specs }) => [group, specs.map(({ handler }) => handler).sort()]),
    );
    super(
      contrastRuntimeCard.type,
      name,
      contrastRuntimeCard.build({ handlers, runtimes: runtimeCards(groups) }),
      opts,
    );
    this.handlers = handlers;
    this.referenceValues = referenceTables(groups);

    const namespace = this.#namespace();
    const classes = new RuntimeClasses("runtime-classes", { classes: runtimeClasses(groups) }, { parent: this });
    const pullSecret = this.#pullSecret(args.pullSecret, namespace);
    for (const group of groups) {
      const nodes = this.#nodes(group, args);
      const { specs, pool, hosts, sshUser, sshPrivateKey, joinCommand, ...rest } = group;
      new NodeInstaller(
        group.group,
        {
          ...rest,
          ...nodes.selection,
          runtimes: specs,
          namespace: systemNamespace,
          image: args.image,
          kubeconfig: args.kubeconfig,
          ...(args.manifestsOnly && { manifestsOnly: true }),
          ...(pullSecret && { pullSecret: pullSecretName }),
        },
        // Classes outlive installers: a class must stay while an installer still retires its handler.
        { parent: this, dependsOn: [namespace, classes, ...(pullSecret ? [pullSecret] : []), ...nodes.made] },
      );
    }
    this.registerOutputs({ handlers, referenceValues: this.referenceValues });
  }

  /** Creates the group's nodes if they are ours to create; in any case says which nodes they are. */
  #nodes(group: DerivedGroup, args: ContrastRuntimeArgs): { selection: NodeSelectionArgs; made: pulumi.Resource[] } {
    const { pool, hosts, specs, sshUser = "root", sshPrivateKey, joinCommand, ignoreNodes = [] } = group;
    const platformLabels = Object.assign({}, ...specs.map(({ platform }) => platforms[platform].nodeSelector));
    const selecting = (labels: Record<string, string> = {}) => {
      const nodeSelector = { ...platformLabels, ...labels };
      return Object.keys(nodeSelector).length > 0 ? { nodeSelector } : {};
    };
    if (pool) {
      const made = new AksCocoNodePool(`${group.group}-pool`, pool, { parent: this });
      return { selection: selecting(made.nodeSelector), made: [made] };
    }
    if (hosts && sshPrivateKey !== undefined) {
      const made = new BareMetalNodes(
        `${group.group}-hosts`,
        {
          hosts,
          user: sshUser,
          privateKey: sshPrivateKey,
          distribution: group.distribution.name,
          requirements: specs.map(({ host }) => host),
          joinCommand,
          image: args.image,
          registryCa: args.registryCa,
          ignore: ignoreNodes,
          onDestroy: group.onDestroy,
        },
        { parent: this },
      );
      return { selection: { nodeNames: made.nodeNames }, made: made.ready };
    }
    return { selection: selecting(group.nodeSelector), made: [] };
  }

  /** A namespace of its own, whose labels admit the installers' privileged pods, visibly to everybody. */
  #namespace(): Namespace {
    const labels = { ...partOfLabel, ...podSecurityLabels };
    return new Namespace(systemNamespace, { metadata: { name: systemNamespace, labels } }, { parent: this });
  }

  #pullSecret(content: pulumi.Input<string> | undefined, namespace: Namespace): Secret | undefined {
    if (content === undefined) return undefined;
    return new Secret(
      pullSecretName,
      {
        metadata: { name: pullSecretName, namespace: systemNamespace },
        type: "kubernetes.io/dockerconfigjson",
        // Not stringData: the server does not keep it, so every refresh would see a change.
        data: { ".dockerconfigjson": pulumi.secret(content).apply((text) => Buffer.from(text).toString("base64")) },
      },
      { parent: this, dependsOn: [namespace] },
    );
  }
}

type DerivedGroup = NodeGroupArgs & { specs: RuntimeSpec[] };

/** Throws `Refusal`, before anything is registered. */
function derived(group: NodeGroupArgs): DerivedGroup {
  // Without a key the hosts cannot be reached, and a group without nodes of its own would have all of the cluster's.
  if (group.hosts && group.sshPrivateKey === undefined)
    throw new Refusal(
      "no-private-key",
      `Group ${group.group} lists hosts, but no sshPrivateKey to reach them with. List nodes that are already set up in nodeNames.`,
    );
  for (const [i, runtime] of group.runtimes.entries()) checkAdvisories(`Group ${group.group}, runtimes[${i}]`, runtime);
  return { ...group, specs: group.runtimes.map(deriveRuntime) };
}

/** Throws `Refusal` where the payload's Kata has a hole that nobody acknowledged, or an acknowledgement says nothing. */
function checkAdvisories(where: string, { platform, manifest, acknowledgedAdvisories }: RuntimeArgs): void {
  const { open, mistakes } = assess({ platform, manifest }, acknowledgedAdvisories);
  const payload = `payload ${manifest.name} holds Kata ${manifest.kataVersion}, which has known holes`;
  const say = (ids: string[]) => `acknowledgedAdvisories: ${JSON.stringify(ids)} in the runtime's arguments`;
  if (open.length > 0) throw new Refusal("known-advisories", `${where}: ${payload}. ${explainOpen(open, say)}`);
  const [mistake] = mistakes;
  if (mistake) throw new Refusal("acknowledgement", `${where}.acknowledgedAdvisories: ${mistake.message}`);
}

const pullSecretName = "contrast-installer-pull";

const podSecurityLabels = {
  "pod-security.kubernetes.io/enforce": "privileged",
  "pod-security.kubernetes.io/audit": "privileged",
  "pod-security.kubernetes.io/warn": "privileged",
};

/** Of each runtime its payload, what a verifier will see of its guests, and the inputs that this depends on. */
function runtimeCards(groups: DerivedGroup[]): ContrastRuntimeCard["runtimes"] {
  return groups.flatMap(({ runtimes, specs }) =>
    runtimes.map(({ platform, manifest, acknowledgedAdvisories }, i) => {
      const handler = specs[i]?.handler ?? "";
      const { acknowledged, closed } = assess({ platform, manifest }, acknowledgedAdvisories);
      const launch = launchValues(platform, manifest);
      const inputs = measuredRuntime({ platform, manifest }).inputs;
      return {
        handler,
        payload: manifest.name,
        kata: flavourTitles[manifest.flavour as FlavourName],
        kataVersion: manifest.kataVersion,
        acknowledged: acknowledged.map((advisory) => `${advisoryName(advisory)}: ${advisory.allows}`),
        closed: closed.map(({ advisory, why }) => `${advisoryName(advisory)}: ${why}.`),
        launch,
        measured: inputs === undefined ? {} : measuredInputs(inputs, platforms[platform].tee),
      };
    }),
  );
}

function referenceTables(groups: DerivedGroup[]): Record<string, ReferenceTable> {
  const tables = groups.flatMap(({ runtimes, specs }) =>
    runtimes.flatMap(({ platform, manifest }, i) => {
      const table = launchTable(platform, manifest);
      return table === undefined ? [] : [[specs[i]?.handler ?? "", table] as const];
    }),
  );
  return Object.fromEntries(tables.toSorted(([a], [b]) => (a < b ? -1 : 1)));
}

/** Several groups may have the same runtime, which has one class. */
function runtimeClasses(groups: { runtimes: RuntimeArgs[]; specs: RuntimeSpec[] }[]) {
  const classes = groups.flatMap(({ runtimes, specs }) =>
    specs.map(({ handler, platform }, i) => {
      const { memory, cpu, teeKeys = false } = runtimes[i] ?? {};
      return [handler, { handler, platform, memory, cpu, teeKeys }] as const;
    }),
  );
  return [...new Map(classes).values()];
}
