import { Namespace } from "@pulumi/kubernetes/core/v1/namespace.js";
import { Secret } from "@pulumi/kubernetes/core/v1/secret.js";
import * as pulumi from "@pulumi/pulumi";
import * as z from "zod";
import { launchTable } from "../measure/launch-values.ts";
import { measuredInputs } from "../measure/reference-value-changes.ts";
import type { ReferenceTable } from "../measure/verifier-formats.ts";
import { advisoryName } from "../runtime/advisories.ts";
import { type ContrastRuntimeCard, contrastRuntimeCard } from "../runtime/cards.ts";
import { type FlavourName, flavourTitles } from "../runtime/flavours.ts";
import { cdhImage, imagePullerConfiguration, imagePullerKey } from "../runtime/guest-registry.ts";
import { partOfLabel, systemNamespace } from "../runtime/names.ts";
import { platforms, podCosts } from "../runtime/platforms.ts";
import { AksCocoNodePool, type AksCocoNodePoolArgs, aksCocoNodePoolArgs } from "./aks-coco-node-pool.ts";
import { formerly } from "./aliases.ts";
import { applied, checkArguments, input, known, type Shape, WrongArguments } from "./arguments.ts";
import { BareMetalNodes, type HostAccessArgs, hostAccessArgs } from "./bare-metal-nodes.ts";
import { type Derived, specsOf } from "./config/derivation.ts";
import { checkGroups } from "./config/group-check.ts";
import { unusedAuthorities } from "./config/group-part.ts";
import { registryMistakes } from "./config/guest-registry.ts";
import { dockerConfiguration, registryCa } from "./config/registry-schema.ts";
import { checkRuntimes } from "./config/runtime-rules.ts";
import { classNames, currentFor } from "./config/runtime-schema.ts";
import { type CheckedGroup, type GroupArgs, groupArgs } from "./group.ts";
import { type GuestRegistryArgs, guestRegistryArgs, withoutLogins } from "./guest-registry.ts";
import { groupAmong, runtimesOf } from "./known-group.ts";
import { GroupInstaller, type InstallationArgs, installationArgs } from "./node-installer.ts";
import { deriveEach, type PayloadArgs, payloadArgs } from "./runtime.ts";
import { charged, type OverheadArgs, overheadArgs, RuntimeClasses } from "./runtime-classes.ts";

/** A runtime on the nodes of a group. */
export interface RuntimeArgs extends PayloadArgs {
  /**
   * What Kubernetes adds to the requests of each pod. A handler has one RuntimeClass, hence one overhead in all groups.
   *
   * @default the platform's own
   * @example { memory: "512Mi" }
   */
  overhead?: pulumi.Input<OverheadArgs> | undefined;
  /**
   * Further RuntimeClasses of the handler, by name. Plain, because each is a resource. A handler has the same in all groups.
   *
   * @default []
   * @example ["contrast-cc-metal-qemu-snp-1a2b3c4d"]
   */
  classNames?: string[] | undefined;
  /**
   * Names that new pods may say instead of the handler's own, which is written in their place when they are admitted: the
   * runtime that they are resolved to. Needs Kubernetes 1.36. A handler has the same in all groups.
   *
   * @default []
   * @example ["contrast-cc"]
   */
  currentFor?: string[] | undefined;
}

/** A node group: its nodes, which may be ours to create or prepare, and its runtimes. */
export interface NodeGroupArgs extends GroupArgs {
  /**
   * Every runtime that should be on the group's nodes; any other that the installer put there is retired. Plain, because
   * resources are named after them.
   */
  runtimes: RuntimeArgs[];
  /**
   * A pool to create, whose nodes are the group's.
   *
   * @default none: existing nodes are named or selected
   */
  pool?: AksCocoNodePoolArgs | undefined;
  /**
   * Hosts to prepare over SSH, which are the group's nodes.
   *
   * @default none: existing nodes are named or selected
   */
  ssh?: HostAccessArgs | undefined;
}

/** Arguments of `ContrastRuntime`. */
export interface ContrastRuntimeArgs extends InstallationArgs {
  /** The node groups. Plain, because they decide the number of resources. */
  groups: NodeGroupArgs[];
  /**
   * Content of a .dockerconfigjson with which nodes pull the image. A secret. Whether it is given is plain.
   *
   * @default none: nodes pull without, or with what their own set-up has
   */
  pullSecret?: pulumi.Input<string> | undefined;
  /**
   * Certificates, in PEM, of the authorities that hosts which are reached over SSH are made to trust for the image's
   * registry. Whether they are given is plain.
   *
   * @default none: the registry's certificate is a public one
   */
  registryCa?: pulumi.Input<string> | undefined;
  /**
   * How guests that pull images themselves reach registries. Contrast's are told by the nodes; those of upstream Kata by
   * their initdata: give it to each `ConfidentialWorkload`, too, or put the output `cdhImage` into their "cdh.toml".
   *
   * @default none: registries with public certificates, without logins and proxies
   */
  guestRegistry?: GuestRegistryArgs | undefined;
}

/** A runtime in a group, as it was derived. */
export interface InstalledRuntime {
  /** The node group. */
  group: string;
  /** What pods set as `runtimeClassName`. */
  handler: string;
  /** Where guests run: virtual machine monitor, TEE and place. */
  platform: string;
  /** The manifest's name. */
  payload: string;
  /** Which Kata the payload holds, in words. */
  kata: string;
  /** Its version, such as "3.32.0"; "none" for the platform `local`. */
  kataVersion: string;
  /** Further RuntimeClasses that lead to the handler, sorted. */
  classNames: string[];
  /** Names that are resolved to it when a pod is admitted, sorted. */
  currentFor: string[];
}

const nodeGroupArgs = z.strictObject({
  ...groupArgs,
  runtimes: z.array(
    z.strictObject({ ...payloadArgs, overhead: overheadArgs, classNames, currentFor } satisfies Shape<RuntimeArgs>),
  ),
  pool: aksCocoNodePoolArgs.optional(),
  ssh: z.strictObject(hostAccessArgs).optional(),
} satisfies Shape<NodeGroupArgs>);

const contrastRuntimeArgs = z.strictObject({
  ...installationArgs,
  groups: z.array(nodeGroupArgs),
  pullSecret: input(dockerConfiguration).optional(),
  registryCa: input(registryCa).optional(),
  guestRegistry: guestRegistryArgs.optional(),
} satisfies Shape<ContrastRuntimeArgs>);

type Checked = z.output<typeof contrastRuntimeArgs>;
type Group = Omit<Checked["groups"][number], "runtimes"> & {
  runtimes: Derived<Checked["groups"][number]["runtimes"][number]>[];
};

/** Confidential containers on the nodes of a cluster: their RuntimeClasses, and an installer per node group. */
export class ContrastRuntime extends pulumi.ComponentResource {
  /** Handlers by group, each sorted: what pods set as `runtimeClassName`. */
  readonly handlers: pulumi.Output<Record<string, string[]>>;
  /** Each runtime in each group, sorted by group and handler. */
  readonly runtimes: pulumi.Output<InstalledRuntime[]>;
  /** What verifiers will see of guests with one to eight vCPUs, by handler. Hex. */
  readonly referenceValues: pulumi.Output<Record<string, ReferenceTable>>;
  /** What `guestRegistry` says, as the part `[image]` of the "cdh.toml" of upstream's guests; "" without it. */
  readonly cdhImage: pulumi.Output<string>;

  constructor(name: string, args: ContrastRuntimeArgs, opts?: pulumi.ComponentResourceOptions) {
    const checked = checkArguments(`ContrastRuntime ${name}`, contrastRuntimeArgs, args);
    const groups = derivedGroups(`ContrastRuntime ${name}`, checked);
    const handlers = handlersOf(groups);
    super(contrastRuntimeCard.type, name, contrastRuntimeCard.build({ handlers, runtimes: cards(groups) }), opts);

    const namespace = this.#namespace(name);
    const classes = this.#runtimeClasses(name, groups);
    const pullSecret = this.#pullSecret(name, checked, namespace);
    const guestRegistry = this.#guestRegistry(name, checked, groups, namespace);
    for (const group of groups) {
      const nodes = this.#nodes(name, group, checked);
      // Classes outlive installers: a class must stay while an installer still retires its handler.
      const secrets = [pullSecret, guestRegistry].filter((secret) => secret !== undefined);
      this.#installer(name, { ...group, ...nodes.selection }, checked, [namespace, classes, ...secrets, ...nodes.made]);
    }

    this.handlers = pulumi.output(handlers);
    this.runtimes = pulumi.output(installedRuntimes(groups));
    this.referenceValues = pulumi.output(referenceTables(groups));
    this.cdhImage = pulumi.output(cdhImage(withoutLogins(checked.guestRegistry) ?? {}));
    const { runtimes, referenceValues, cdhImage: image } = this;
    this.registerOutputs({ handlers: this.handlers, runtimes, referenceValues, cdhImage: image });
  }

  /** A namespace of its own, whose labels admit the installers' privileged pods, visibly to everybody. */
  #namespace(name: string): Namespace {
    const labels = { ...partOfLabel, ...podSecurityLabels };
    return new Namespace(
      `${name}-namespace`,
      { metadata: { name: systemNamespace, labels } },
      { parent: this, aliases: formerly(systemNamespace) },
    );
  }

  #runtimeClasses(name: string, groups: Group[]): RuntimeClasses {
    const classes = unique(groups).map(({ platform, manifest, spec, given, beyondLimits }) => ({
      handler: spec.handler,
      platform,
      overhead: charged(platform, manifest.flavour, beyondLimits, given.overhead),
      nodeSelector: podCosts(platforms[platform], manifest.flavour).podSelector,
      names: given.classNames,
      currentFor: given.currentFor,
    }));
    return new RuntimeClasses(`${name}-classes`, { classes }, { parent: this, aliases: formerly("runtime-classes") });
  }

  #pullSecret(name: string, { pullSecret }: Checked, namespace: Namespace): Secret | undefined {
    if (pullSecret === undefined) return undefined;
    return new Secret(
      `${name}-pull-secret`,
      {
        metadata: { name: pullSecretName, namespace: systemNamespace },
        type: "kubernetes.io/dockerconfigjson",
        // Not stringData: the server does not keep it, so every refresh would see a change.
        data: { ".dockerconfigjson": pulumi.secret(pullSecret).apply((text) => Buffer.from(text).toString("base64")) },
      },
      { parent: this, dependsOn: [namespace], aliases: formerly(pullSecretName) },
    );
  }

  /** What Contrast's guests are told; the installers put it on the nodes of the groups that have some. */
  #guestRegistry(name: string, { guestRegistry }: Checked, groups: Group[], namespace: Namespace): Secret | undefined {
    if (guestRegistry === undefined || !groups.some(({ runtimes }) => runtimes.some(({ spec }) => spec.imagePuller)))
      return undefined;
    const text = applied(guestRegistry.credentials, (credentials) =>
      imagePullerConfiguration({ ...guestRegistry, credentials }),
    );
    return new Secret(
      `${name}-guest-registry`,
      {
        metadata: { name: guestRegistrySecretName, namespace: systemNamespace },
        type: "Opaque",
        data: { [imagePullerKey]: pulumi.secret(text).apply((known) => Buffer.from(known).toString("base64")) },
      },
      { parent: this, dependsOn: [namespace] },
    );
  }

  /** Creates the group's nodes if they are ours to create; in any case says which nodes they are. */
  #nodes(
    name: string,
    group: Group,
    { image, registryCa }: Checked,
  ): { selection: Selection; made: pulumi.Resource[] } {
    const { pool, ssh, runtimes, ignoreNodes, onDestroy, distribution, nodeNames } = group;
    const options = (part: string) => ({
      parent: this,
      aliases: [...formerly(`${group.group}-${part}`), ...renamed(name, group, `-${part}`)],
    });
    if (pool) {
      const made = new AksCocoNodePool(`${name}-${group.group}-pool`, pool, options("pool"));
      return { selection: selecting(group, made.nodeSelector), made: [made] };
    }
    if (ssh) {
      const made = new BareMetalNodes(
        `${name}-${group.group}-hosts`,
        {
          ...ssh,
          distribution: distribution.name,
          platforms: runtimes.map(({ platform }) => platform),
          image,
          registryCa,
          ignoreNodes,
          onDestroy,
        },
        options("hosts"),
      );
      return { selection: { nodeNames: made.nodeNames }, made: [made] };
    }
    return { selection: { ...selecting(group, group.nodeSelector), nodeNames }, made: [] };
  }

  #installer(name: string, group: Group, checked: Checked, dependsOn: pulumi.Resource[]): void {
    const { runtimes, pool, ssh, ...rest } = group;
    const { image, kubeconfig, manifestsOnly, pullSecret, guestRegistry } = checked;
    new GroupInstaller(
      `${name}-${group.group}`,
      {
        ...rest,
        ...specsOf(runtimes),
        namespace: systemNamespace,
        image,
        kubeconfig,
        manifestsOnly,
        ...(pullSecret && { pullSecret: pullSecretName }),
        ...(guestRegistry && { guestRegistry: guestRegistrySecretName }),
      },
      { parent: this, dependsOn, aliases: [...formerly(group.group), ...renamed(name, group)] },
    );
  }
}

/** What a renamed group has is the same under another name: nothing of it is deleted, so that nothing is uninstalled. */
const renamed = (name: string, group: Group, part = "") =>
  group.formerly === undefined ? [] : formerly(`${name}-${group.formerly}${part}`);

/** @throws WrongArguments before anything is registered */
function derivedGroups(component: string, { groups, registryCa, guestRegistry }: Checked): Group[] {
  const mistakes = checkGroups(groups.map(groupAmong));
  if (registryCa !== undefined && !groups.some(({ ssh }) => ssh))
    mistakes.push({ key: "registryCa", message: unusedAuthorities("ssh") });
  const derived = groups.map(({ runtimes, ...group }, i) => ({
    ...group,
    runtimes: deriveEach(
      runtimes,
      group.distribution.name,
      `groups[${i}].runtimes`,
      mistakes,
      guestRegistry !== undefined,
    ),
  }));
  const lists = derived.map(({ group, runtimes }, i) => runtimesOf({ name: group, key: `groups[${i}]` }, runtimes));
  mistakes.push(...checkRuntimes(lists));
  if (guestRegistry !== undefined) {
    const all = groups.flatMap(({ runtimes }) => runtimes);
    const credentials = known(guestRegistry.credentials);
    mistakes.push(...registryMistakes({ ...guestRegistry, credentials }, all, "guestRegistry"));
  }
  if (mistakes.length > 0) throw new WrongArguments(component, mistakes);
  return derived;
}

type Selection = Pick<CheckedGroup, "nodeSelector" | "nodeNames">;

/** By the labels that the runtimes' platforms bring, besides others. */
function selecting({ runtimes }: Group, others: CheckedGroup["nodeSelector"]): Selection {
  const platformLabels = Object.assign({}, ...runtimes.map(({ platform }) => platforms[platform].nodeSelector));
  if (others === undefined && Object.keys(platformLabels).length === 0) return {};
  return { nodeSelector: applied(others, (labels) => ({ ...platformLabels, ...labels })) };
}

const pullSecretName = "contrast-installer-pull";
const guestRegistrySecretName = "contrast-guest-registry";

const podSecurityLabels = {
  "pod-security.kubernetes.io/enforce": "privileged",
  "pod-security.kubernetes.io/audit": "privileged",
  "pod-security.kubernetes.io/warn": "privileged",
};

const byHandler = (a: { handler: string }, b: { handler: string }) => (a.handler < b.handler ? -1 : 1);

const handlersOf = (groups: Group[]): Record<string, string[]> =>
  Object.fromEntries(groups.map(({ group, runtimes }) => [group, runtimes.map(({ spec }) => spec.handler).sort()]));

/** Several groups may have the same runtime. */
const unique = (groups: Group[]) => [
  ...new Map(groups.flatMap(({ runtimes }) => runtimes).map((runtime) => [runtime.spec.handler, runtime])).values(),
];

const kataTitle = (flavour: string): string => flavourTitles[flavour as FlavourName];

const installedRuntimes = (groups: Group[]): InstalledRuntime[] =>
  groups
    .toSorted((a, b) => (a.group < b.group ? -1 : 1))
    .flatMap(({ group, runtimes }) =>
      runtimes
        .map(({ platform, manifest, spec: { handler }, given }) => ({
          group,
          handler,
          platform,
          payload: manifest.name,
          kata: kataTitle(manifest.flavour),
          kataVersion: manifest.kataVersion,
          classNames: given.classNames.toSorted(),
          currentFor: given.currentFor.toSorted(),
        }))
        .sort(byHandler),
    );

function referenceTables(groups: Group[]): Record<string, ReferenceTable> {
  const tables = unique(groups).flatMap((runtime) => {
    const table = launchTable(runtime);
    return table === undefined ? [] : [[runtime.spec.handler, table] as const];
  });
  return Object.fromEntries(tables.sort(([a], [b]) => (a < b ? -1 : 1)));
}

/** Of each runtime its payload, what a verifier will see of its guests, and the inputs that this depends on. */
const cards = (groups: Group[]): ContrastRuntimeCard["runtimes"] =>
  unique(groups).map(
    ({ platform, manifest, spec, inputs, launch, settings, weakened, assessment: { acknowledged, closed } }) => ({
      handler: spec.handler,
      payload: manifest.name,
      kata: kataTitle(manifest.flavour),
      kataVersion: manifest.kataVersion,
      acknowledged: acknowledged.map((advisory) => `${advisoryName(advisory)}: ${advisory.allows}`),
      closed: closed.map(({ advisory, why }) => `${advisoryName(advisory)}: ${why}.`),
      settings,
      weakened,
      launch,
      measured: inputs === undefined ? {} : measuredInputs(inputs, platforms[platform].tee),
    }),
  );
