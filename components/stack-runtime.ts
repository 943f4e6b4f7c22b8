import type * as pulumi from "@pulumi/pulumi";
import type { Cluster } from "./cluster.ts";
import type { StackConfiguration } from "./config/read.ts";
import { ContrastRuntime } from "./contrast-runtime.ts";
import { nodeGroup } from "./stack-groups.ts";

/** What a stack's file asks for, in a cluster. */
export const stackRuntime = (
  stack: StackConfiguration,
  cluster: Cluster & { manifestsOnly?: boolean; transformation?: pulumi.ResourceTransformation },
  image: pulumi.Input<string>,
): ContrastRuntime =>
  new ContrastRuntime(
    "runtime",
    {
      image,
      groups: stack.groups.map((group) => nodeGroup(group, stack.cluster)),
      kubeconfig: cluster.kubeconfig,
      manifestsOnly: cluster.manifestsOnly,
      pullSecret: stack.registry.pullSecret,
      registryCa: stack.registry.ca,
      guestRegistry: stack.registry.guest,
    },
    {
      providers: cluster.providers,
      ...(cluster.owner && { deletedWith: cluster.owner }),
      ...(cluster.transformation && { transformations: [cluster.transformation] }),
    },
  );
