import * as pulumi from "@pulumi/pulumi";
import { z } from "zod";
import { manifestSchema } from "../runtime/manifest.ts";
import { distributionNames, handlerName, hostRequirements, platformNames, runtimeSpec } from "../runtime/spec.ts";
import type { AksCocoNodePoolArgs } from "./aks-coco-node-pool.ts";
import type { BareMetalNodesArgs } from "./bare-metal-nodes.ts";
import { labels, namespaceName, nodeName, objectName } from "./config/kubernetes-names.ts";
import { clusterOptions } from "./config/local-cluster.ts";
import { check } from "./config/mistakes.ts";
import {
  aksClusterName,
  azureResourceGroup,
  distribution,
  groupName,
  groupSchema,
  host,
  imageReference,
  nodes,
  overhead,
  pool,
  privateKey,
  registryCa,
  secret,
  toleration,
  user,
} from "./config/schema.ts";
import type { ContrastRuntimeArgs, NodeGroupArgs, RuntimeArgs } from "./contrast-runtime.ts";
import type { LocalClusterArgs } from "./local-cluster.ts";
import type { NodeInstallerArgs } from "./node-installer.ts";
import type { RuntimeClassArgs, RuntimeClassesArgs } from "./runtime-classes.ts";

/*
 * What the components accept, whoever calls them: a program in any language is checked like a stack's configuration, by
 * the same schemas. A key that a component's type gains has to be added here, or nothing compiles.
 */

/** A schema for each of the type's keys. */
type Shape<Args> = Record<keyof Args, z.ZodType>;

/** Of an output nothing is known yet; whatever a script is made of is checked once more when it is. */
const input = (schema: z.ZodType) =>
  z.unknown().check(({ value, issues }) => {
    if (value instanceof Promise || pulumi.Output.isInstance(value)) return;
    for (const { message, path } of schema.safeParse(value).error?.issues ?? [])
      issues.push({ code: "custom", message, path, input: value });
  });
const secretInput = (schema: z.ZodType) => input(schema).meta({ secret: true });

const selection = { nodeSelector: labels.optional(), nodeNames: nodes.shape.names };
const { atOnce, minimumNodes, ignoreNodes, stallTimeout, priorityClass, verifySandbox, onDestroy } = groupSchema.shape;
const group = {
  group: groupName,
  distribution,
  ...selection,
  atOnce,
  minimumNodes,
  ignoreNodes,
  stallTimeout,
  tolerations: z.array(toleration).optional(),
  priorityClass,
  verifySandbox,
  onDestroy,
};
const image = input(imageReference);
const kubeconfig = secretInput(z.string().min(1)).optional();

export const nodeInstallerArgs = z.strictObject({
  ...group,
  namespace: namespaceName,
  image,
  runtimes: z.array(runtimeSpec),
  kubeconfig,
  manifestsOnly: z.boolean().optional(),
  pullSecret: objectName("Secret").optional(),
} satisfies Shape<NodeInstallerArgs>);

export const aksCocoNodePoolArgs = z.strictObject({
  resourceGroup: azureResourceGroup,
  cluster: aksClusterName,
  pool: pool.shape.name,
  vmSize: pool.shape.vmSize.unwrap(),
  count: pool.shape.count.unwrap(),
  zones: pool.shape.zones,
  maxPods: pool.shape.maxPods,
  labels: pool.shape.labels,
} satisfies Shape<AksCocoNodePoolArgs>);

export const bareMetalNodesArgs = z.strictObject({
  hosts: z.array(host),
  user,
  privateKey: secretInput(privateKey),
  distribution: z.enum(distributionNames),
  requirements: z.array(hostRequirements),
  joinCommand: secretInput(secret).optional(),
  image,
  registryCa: registryCa.optional(),
  ignore: z.array(nodeName),
  onDestroy,
} satisfies Shape<BareMetalNodesArgs>);

const runtimeArgs = z.strictObject({
  platform: z.enum(platformNames),
  manifest: manifestSchema,
  acknowledgedAdvisories: z.array(z.string()).optional(),
  ...overhead.shape,
} satisfies Shape<RuntimeArgs>);

const nodeGroupArgs = z.strictObject({
  ...group,
  runtimes: z.array(runtimeArgs),
  pool: aksCocoNodePoolArgs.optional(),
  hosts: nodes.shape.hosts,
  sshUser: user,
  sshPrivateKey: secretInput(privateKey).optional(),
  joinCommand: secretInput(secret).optional(),
} satisfies Shape<NodeGroupArgs>);

export const contrastRuntimeArgs = z.strictObject({
  image,
  groups: z.array(nodeGroupArgs),
  kubeconfig,
  manifestsOnly: z.boolean().optional(),
  pullSecret: secretInput(secret).optional(),
  registryCa: registryCa.optional(),
} satisfies Shape<ContrastRuntimeArgs>);

export const localClusterArgs = clusterOptions satisfies z.ZodObject<Shape<LocalClusterArgs>>;

export const runtimeClassesArgs = z.strictObject({
  classes: z.array(
    z.strictObject({
      handler: handlerName,
      platform: z.enum(platformNames),
      ...overhead.shape,
    } satisfies Shape<RuntimeClassArgs>),
  ),
} satisfies Shape<RuntimeClassesArgs>);

/** For `ConfidentialWorkload`, which checks template and initdata itself, with the paths of their fields. */
export const workloadRuntime = z.object({ platform: z.enum(platformNames), manifest: manifestSchema });

/**
 * The arguments with what a schema makes of them. Every mistake is listed, with its key.
 *
 * @throws pulumi.RunError, which the engine shows without a stack
 */
export function checkArguments<S extends z.ZodType>(component: string, schema: S, args: unknown): z.output<S> {
  const { value, mistakes } = check(schema, args, "");
  if (value !== undefined) return value;
  const lines = mistakes.map(({ key, message }) => `  ${key || "arguments"}: ${message}`);
  throw new pulumi.RunError(`The arguments of ${component} cannot be used:\n${lines.join("\n")}`);
}

/** host[:port] of the image, once it is known. */
export function registryOf(image: string): string {
  const reference = checkArguments("the installer's image", z.strictObject({ image: imageReference }), { image });
  return reference.image.slice(0, reference.image.indexOf("/"));
}
