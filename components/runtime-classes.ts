import { MutatingAdmissionPolicy } from "@pulumi/kubernetes/admissionregistration/v1/mutatingAdmissionPolicy.js";
import { MutatingAdmissionPolicyBinding } from "@pulumi/kubernetes/admissionregistration/v1/mutatingAdmissionPolicyBinding.js";
import { ValidatingAdmissionPolicy } from "@pulumi/kubernetes/admissionregistration/v1/validatingAdmissionPolicy.js";
import { ValidatingAdmissionPolicyBinding } from "@pulumi/kubernetes/admissionregistration/v1/validatingAdmissionPolicyBinding.js";
import { RuntimeClass } from "@pulumi/kubernetes/node/v1/runtimeClass.js";
import * as pulumi from "@pulumi/pulumi";
import * as z from "zod";
import { runtimeClassesCard } from "../runtime/cards.ts";
import type { GuestSize } from "../runtime/kata-configuration.ts";
import { handlerLabel, ownKey, partOfLabel, unresolvedHandler } from "../runtime/names.ts";
import { platforms, podCosts } from "../runtime/platforms.ts";
import { handlerName, platformNames } from "../runtime/spec.ts";
import { formerly } from "./aliases.ts";
import { applied, checkArguments, input, inputs, type Shape } from "./arguments.ts";
import { mistakesOfClassNames } from "./config/class-names.ts";
import { defaults } from "./config/defaults.ts";
import { labels } from "./config/kubernetes-names.ts";
import { classNames, currentFor, overhead } from "./config/runtime-schema.ts";
import { classResolution } from "./manifests/class-resolution.ts";
import type { PlatformName } from "./words.ts";

/** What Kubernetes adds to the requests of each pod of a class, for the virtual machine around it. */
export interface OverheadArgs {
  /**
   * A Kubernetes quantity.
   *
   * @default the platform's own
   * @example "512Mi"
   */
  memory?: pulumi.Input<string> | undefined;
  /**
   * A Kubernetes quantity.
   *
   * @default none
   * @example "250m"
   */
  cpu?: pulumi.Input<string> | undefined;
  /**
   * Charge each pod one SNP or TDX key. Only where nodes advertise them, or no pod is ever scheduled.
   *
   * @default false
   */
  teeKeys?: pulumi.Input<boolean> | undefined;
}

/** One RuntimeClass. */
export interface RuntimeClassArgs {
  /** The runtime's name on nodes, and the class's in the cluster. Plain, because it is part of the resource's name. */
  handler: string;
  /** aks-clh-snp, metal-qemu-snp, metal-qemu-tdx, metal-qemu-snp-gpu, metal-qemu-tdx-gpu, metal-qemu-insecure or local. Plain: see `handler`. */
  platform: PlatformName;
  /**
   * What Kubernetes adds to the requests of each pod.
   *
   * @default the platform's own
   */
  overhead?: pulumi.Input<OverheadArgs> | undefined;
  /**
   * Labels that nodes must have for its pods, besides the one that says that the runtime is there.
   *
   * @default {}
   * @example { "nvidia.com/cc.ready.state": "true" }
   */
  nodeSelector?: Record<string, string> | undefined;
  /**
   * Further names: a RuntimeClass of each leads to the same handler. Plain, because each is a resource.
   *
   * @default []
   * @example ["contrast-cc-metal-qemu-snp-1a2b3c4d"]
   */
  names?: string[] | undefined;
  /**
   * Names that new pods may say instead of the handler's own, which is written in their place when they are admitted. Needs
   * Kubernetes 1.36. Plain, because each is five resources.
   *
   * @default []
   * @example ["contrast-cc"]
   */
  currentFor?: string[] | undefined;
}

/** Arguments of `RuntimeClasses`. */
export interface RuntimeClassesArgs {
  /** One for each handler; their order has no meaning. Plain, because it decides the number of resources. */
  classes: RuntimeClassArgs[];
}

export const overheadArgs = input(z.strictObject(inputs(overhead.shape) satisfies Shape<OverheadArgs>).optional());

/**
 * The overhead of a class, which by itself knows its platform alone: a guest that begins with more or less memory charges
 * its pods so much more or less.
 */
export function charged(
  platform: PlatformName,
  flavour: string,
  { memoryMiB }: GuestSize,
  given: z.output<typeof overheadArgs>,
): pulumi.Input<OverheadArgs> | undefined {
  const { overheadMiB, guestMemoryMiB } = podCosts(platforms[platform], flavour);
  const charges = overheadMiB - guestMemoryMiB + memoryMiB;
  if (charges === platforms[platform].overheadMiB) return given;
  return applied(given, (own) => ({
    cpu: own?.cpu,
    teeKeys: own?.teeKeys ?? defaults.teeKeys,
    memory: own?.memory ?? `${charges}Mi`,
  }));
}

const runtimeClass = z.strictObject({
  handler: handlerName,
  platform: z.enum(platformNames),
  overhead: overheadArgs,
  nodeSelector: labels.default({}),
  names: classNames,
  currentFor,
} satisfies Shape<RuntimeClassArgs>);

const runtimeClassesArgs = z.strictObject({
  classes: z.array(runtimeClass).superRefine((classes, { addIssue }) => {
    for (const [i, { handler }] of classes.entries())
      if (classes.findIndex((other) => other.handler === handler) < i)
        addIssue({ code: "custom", path: [i, "handler"], message: "is listed twice" });
    const named = classes.map(({ names, ...rest }) => ({ ...rest, classNames: names }));
    for (const { index, list, place, message } of mistakesOfClassNames(named))
      addIssue({ code: "custom", path: [index, list === "classNames" ? "names" : list, place], message });
  }),
} satisfies Shape<RuntimeClassesArgs>);

/**
 * One RuntimeClass per handler, for the whole cluster, and one per further name. Pods of either are scheduled only where the
 * handler passed its gate. A name that a handler is current for has a policy by which pods get the handler's own class.
 */
export class RuntimeClasses extends pulumi.ComponentResource {
  /** Names of the classes, sorted: what a pod writes in `runtimeClassName`. */
  readonly names: pulumi.Output<string[]>;

  constructor(name: string, args: RuntimeClassesArgs, opts?: pulumi.ComponentResourceOptions) {
    const { classes } = checkArguments(`RuntimeClasses ${name}`, runtimeClassesArgs, args);
    const sorted = classes.toSorted((a, b) => (a.handler < b.handler ? -1 : 1));
    super(runtimeClassesCard.type, name, runtimeClassesCard.build(sorted.map(card)), opts);
    const named = sorted.flatMap((each) => [each.handler, ...each.names].map((className) => ({ className, each })));
    for (const { className, each } of named) {
      new RuntimeClass(`${name}-${className}`, manifest(className, each), {
        parent: this,
        ...(className === each.handler && { aliases: formerly(each.handler) }),
        ...replaced,
      });
    }
    const resolved = sorted.flatMap(({ handler, currentFor }) =>
      currentFor.map((className) => ({ className, handler })),
    );
    for (const { className, handler } of resolved) this.#resolved(`${name}-${className}`, className, handler);
    this.names = pulumi.output([...named, ...resolved].map(({ className }) => className).sort());
    this.registerOutputs({ names: this.names });
  }

  /** The class last, and gone first: no pod that says its name stays without being resolved. */
  #resolved(child: string, className: string, handler: string): void {
    const { policy, binding, refusal, refusalBinding } = classResolution(className, handler);
    const policies = [
      new MutatingAdmissionPolicy(child, policy, { parent: this }),
      new ValidatingAdmissionPolicy(child, refusal, { parent: this }),
    ];
    const dependsOn = [
      new MutatingAdmissionPolicyBinding(child, binding, { parent: this, dependsOn: policies }),
      new ValidatingAdmissionPolicyBinding(child, refusalBinding, { parent: this, dependsOn: policies }),
    ];
    const metadata = { name: className, labels: partOfLabel };
    new RuntimeClass(child, { metadata, handler: unresolvedHandler }, { parent: this, dependsOn, ...replaced });
  }
}

/** Kubernetes refuses to change a handler, which the provider does not know; both classes have the same name. */
const replaced = { replaceOnChanges: ["handler"], deleteBeforeReplace: true };

type CheckedClass = z.output<typeof runtimeClass>;

function manifest(name: string, args: CheckedClass) {
  const { handler, platform, nodeSelector } = args;
  return {
    metadata: {
      name,
      labels: { ...partOfLabel, [ownKey("platform")]: platform },
    },
    handler,
    overhead: { podFixed: podFixed(args) },
    scheduling: { nodeSelector: { ...nodeSelector, [handlerLabel(handler)]: "true" } },
  };
}

const podFixed = ({ platform, overhead }: CheckedClass): pulumi.Input<Record<string, string>> =>
  applied(overhead, (given) => {
    const { memory, cpu, teeKeys } = given ?? {};
    const { overheadMiB, extendedResource } = platforms[platform];
    return {
      memory: memory ?? `${overheadMiB}Mi`,
      ...(cpu !== undefined && { cpu }),
      ...(teeKeys === true && extendedResource !== undefined && { [extendedResource]: "1" }),
    };
  });

const card = (args: CheckedClass) => ({
  handler: args.handler,
  platform: args.platform,
  overhead: podFixed(args),
  names: args.names.length > 0 ? args.names.toSorted() : undefined,
  currentFor: args.currentFor.length > 0 ? args.currentFor.toSorted() : undefined,
});
