import * as z from "zod";
import type { HostRequirements } from "./spec.ts";

/*
 * Review cards: the inputs of this product's components. The engine compares them, so they are what a reviewer sees
 * first, and what review/ reads of a preview.
 *
 * `build` makes the card of this version. `schema` is what a review reads of it, also where an earlier version wrote it: a
 * stack's state keeps those until the next update. So a key that came later is optional or has a default in the schema, and
 * none is renamed. What `build` makes stays the same to the byte, or every stack shows a change that is none.
 *
 * `build` writes every key of the schema, also those of what is in lists, and gives `undefined` to what is left out: so a
 * key that is renamed on one side is missing on the other, and nothing compiles.
 */

/** What Pulumi calls an input: it may be known later. */
type Input<T> = T | Promise<T> | { apply(use: (value: T) => unknown): unknown };

/** Each of the type's keys is there, if only with `undefined`; its part may be known later. */
type Complete<T> = { [Key in keyof Required<T>]: Inputs<T[Key]> };

/** A tree of which any part may be known later. */
type Inputs<T> = Input<T extends (infer Item)[] ? Inputs<Item>[] : T extends object ? Complete<T> : T>;

/** What is written of that which a schema reads. */
type Written<Schema extends z.ZodType> = Complete<z.input<Schema>>;

const token = <Name extends string>(name: Name) => `contrast-runtime:index:${name}` as const;

const byHandler = (a: { handler: string }, b: { handler: string }) => (a.handler < b.handler ? -1 : 1);

const unlessEmpty = <T extends object>(value: T): T | undefined => (Object.keys(value).length > 0 ? value : undefined);

const nodeInstallerSchema = z.object({
  group: z.string(),
  distribution: z.string(),
  /** Node names, labels, or "all". */
  nodes: z.union([z.array(z.string()), z.record(z.string(), z.string()), z.literal("all")]),
  runtimes: z.array(z.object({ handler: z.string(), platform: z.string(), payload: z.string() })),
  image: z.string().optional(),
  atOnce: z.number(),
  onDestroy: z.string(),
  /** Something else applies what the stack writes: no update waits, fails, or uninstalls. */
  manifestsOnly: z.boolean().default(false),
});
export type NodeInstallerCard = z.infer<typeof nodeInstallerSchema>;

export const nodeInstallerCard = {
  type: token("NodeInstaller"),
  schema: nodeInstallerSchema,
  build: ({
    runtimes,
    manifestsOnly,
    ...rest
  }: Written<typeof nodeInstallerSchema> & Pick<NodeInstallerCard, "runtimes">): Written<
    typeof nodeInstallerSchema
  > => ({
    ...rest,
    runtimes: runtimes.map(({ handler, platform, payload }) => ({ handler, platform, payload })).sort(byHandler),
    manifestsOnly: manifestsOnly || undefined,
  }),
};

const contrastRuntimeSchema = z.object({
  /** By group. */
  handlers: z.record(z.string(), z.array(z.string())).optional(),
  /** Each runtime once, whatever groups have it. */
  runtimes: z.array(
    z.object({
      handler: z.string(),
      payload: z.string().optional(),
      /** Title of its flavour. */
      kata: z.string().optional(),
      kataVersion: z.string().optional(),
      /** Known holes of its Kata that the stack puts up with, a sentence each. */
      acknowledged: z.array(z.string()).default([]),
      /** Known holes of its Kata that nothing here leads to, and why. */
      closed: z.array(z.string()).default([]),
      /** What the stack sets of its Kata, a sentence each; then what of that weakens guests. */
      settings: z.array(z.string()).default([]),
      weakened: z.array(z.string()).default([]),
      /** What a verifier will see of a guest with two vCPUs, by names that say so where the count matters, and the inputs that it depends on. */
      launch: z.record(z.string(), z.string()).default({}),
      measured: z.record(z.string(), z.string()).default({}),
    }),
  ),
});
export type ContrastRuntimeCard = z.infer<typeof contrastRuntimeSchema>;

export const contrastRuntimeCard = {
  type: token("ContrastRuntime"),
  schema: contrastRuntimeSchema,
  /** Several groups may have the same runtime. What is empty is left out, and inputs where nothing depends on them. */
  build: ({ handlers, runtimes }: ContrastRuntimeCard): Written<typeof contrastRuntimeSchema> => ({
    handlers,
    runtimes: [...new Map(runtimes.map((runtime) => [runtime.handler, runtime])).values()]
      .sort(byHandler)
      .map(({ handler, payload, kata, kataVersion, acknowledged, closed, settings, weakened, launch, measured }) => ({
        handler,
        payload,
        kata,
        kataVersion,
        acknowledged: unlessEmpty(acknowledged),
        closed: unlessEmpty(closed),
        settings: unlessEmpty(settings),
        weakened: unlessEmpty(weakened),
        launch: unlessEmpty(launch),
        measured: unlessEmpty(launch) && measured,
      })),
  }),
};

const bareMetalNodesSchema = z.object({
  hosts: z.array(
    z.object({
      name: z.string(),
      address: z.string(),
      hostKey: z.string().optional(),
      /** Why nothing is run on it. */
      skipped: z.string().optional(),
    }),
  ),
});

export const bareMetalNodesCard = {
  type: token("BareMetalNodes"),
  schema: bareMetalNodesSchema,
  build: ({
    hosts,
    ignored,
    requirements,
  }: {
    hosts: { name: string; address: Input<string>; hostKey: Input<string> }[];
    /** Names of dead hosts. */
    ignored: string[];
    requirements: HostRequirements;
  }): Written<typeof bareMetalNodesSchema> & HostRequirements => ({
    hosts: hosts.map(({ name, address, hostKey }) => ({
      name,
      address,
      hostKey,
      skipped: ignored.includes(name) ? "named in ignoreNodes" : undefined,
    })),
    ...requirements,
  }),
};

const aksCocoNodePoolSchema = z.object({ pool: z.string(), count: z.number() });

export const aksCocoNodePoolCard = {
  type: token("AksCocoNodePool"),
  schema: aksCocoNodePoolSchema,
  /** All of its arguments. */
  build: <Args extends Written<typeof aksCocoNodePoolSchema>>(args: Args): Args => args,
};

/** A cluster without a list has one node. */
const localClusterSchema = z.object({ nodes: z.array(z.object({ name: z.string() })).default([{ name: "node-1" }]) });

export const localClusterCard = {
  type: token("LocalCluster"),
  schema: localClusterSchema,
  build: ({
    name,
    nodes,
  }: {
    name: string;
    nodes?: { name: string }[] | undefined;
  }): Written<typeof localClusterSchema> & { name: string } => ({ name, nodes }),
};

const runtimeClassesSchema = z.object({
  classes: z.array(
    z.object({
      handler: z.string(),
      platform: z.string(),
      /** What Kubernetes adds to the requests of each pod, by resource. */
      overhead: z.record(z.string(), z.string()),
      /** Further RuntimeClasses of it. */
      names: z.array(z.string()).default([]),
      /** Names that are resolved to it when a pod is admitted. */
      currentFor: z.array(z.string()).default([]),
    }),
  ),
});
type RuntimeClassCard = Written<typeof runtimeClassesSchema.shape.classes.element> & { handler: string };

export const runtimeClassesCard = {
  type: token("RuntimeClasses"),
  schema: runtimeClassesSchema,
  build: (classes: RuntimeClassCard[]): Written<typeof runtimeClassesSchema> => ({
    classes: classes
      .map(({ handler, platform, overhead, names, currentFor }) => ({ handler, platform, overhead, names, currentFor }))
      .sort(byHandler),
  }),
};

const confidentialWorkloadSchema = z.object({
  handler: z.string(),
  payload: z.string(),
  /** What a report shows of it, hex. */
  initdata: z.object({ digest: z.string(), hostData: z.string(), mrConfigId: z.string() }),
  policyDigest: z.string().optional(),
  /** Of the images' layers, by container. */
  rootHashes: z.record(z.string(), z.array(z.string())).optional(),
  /** A table of measure/, whose rows and columns depend on the TEE. */
  reference: z.unknown().optional(),
});

export const confidentialWorkloadCard = {
  type: token("ConfidentialWorkload"),
  schema: confidentialWorkloadSchema,
  /** All of what a verifier sees of its pods. */
  build: (card: Written<typeof confidentialWorkloadSchema>): Written<typeof confidentialWorkloadSchema> => card,
};

export const cards = [
  ...[contrastRuntimeCard, nodeInstallerCard, runtimeClassesCard, bareMetalNodesCard, localClusterCard],
  ...[aksCocoNodePoolCard, confidentialWorkloadCard],
];

/**
 * Whether a URN is of a resource directly below such a component, which stands by itself or in a ContrastRuntime. Types of
 * parents are part of a URN, so that no other program's resource, whatever it is called, is taken for ours.
 */
export function isChild(urn: string, component: { type: string }): boolean {
  const [, , types = ""] = urn.split("::");
  const parents = types.split("$").slice(0, -1).join("$");
  return [component.type, `${contrastRuntimeCard.type}$${component.type}`].includes(parents);
}
