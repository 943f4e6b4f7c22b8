import * as core from "@pulumi/kubernetes/core/v1/index.js";
import * as pulumi from "@pulumi/pulumi";
import { systemNamespace } from "../node-installer/kubernetes/names.ts";
import type { Manifest } from "../node-installer/runtime/manifest.ts";
import { deriveRuntime } from "../node-installer/runtime/render.ts";
import type { PlatformName, RuntimeSpec } from "../node-installer/runtime/spec.ts";
import { NodeInstaller, type NodeInstallerArgs } from "./node-installer.ts";
import { RuntimeClasses } from "./runtime-classes.ts";

export interface RuntimeArgs {
  platform: PlatformName;
  /** What the lock command wrote. */
  manifest: Manifest;
  /** Overhead of the RuntimeClass; without it the platform's own. */
  memory?: string | undefined;
  cpu?: string | undefined;
  teeKeys?: boolean;
}

/** A node group: what `NodeInstaller` needs of it, with runtimes as platform and payload. */
export interface NodeGroupArgs
  extends Omit<NodeInstallerArgs, "namespace" | "image" | "kubeconfig" | "pullSecret" | "runtimes"> {
  runtimes: RuntimeArgs[];
}

export interface ContrastRuntimeArgs {
  /** The installer's image, by digest. */
  image: pulumi.Input<string>;
  groups: NodeGroupArgs[];
  /** Content of the kubeconfig that rollout and uninstall use; none: KUBECONFIG of their environment. */
  kubeconfig?: pulumi.Input<string> | undefined;
  /** Content of a .dockerconfigjson with which nodes pull the image. */
  pullSecret?: pulumi.Input<string> | undefined;
}

/** Confidential containers on the nodes of a cluster: their RuntimeClasses, and an installer per node group. */
export class ContrastRuntime extends pulumi.ComponentResource {
  /** Handlers by group, each sorted. */
  readonly handlers: Record<string, string[]>;

  constructor(name: string, args: ContrastRuntimeArgs, opts?: pulumi.ComponentResourceOptions) {
    const groups = args.groups.map((group) => ({ ...group, specs: group.runtimes.map(deriveRuntime) }));
    const handlers = Object.fromEntries(
      groups.map(({ group, specs }) => [group, specs.map(({ handler }) => handler).sort()]),
    );
    super("contrast-runtime:index:ContrastRuntime", name, { handlers }, opts);
    this.handlers = handlers;

    const namespace = this.#namespace();
    const classes = new RuntimeClasses("runtime-classes", { classes: runtimeClasses(groups) }, { parent: this });
    const pullSecret = this.#pullSecret(args.pullSecret, namespace);
    for (const { specs, ...group } of groups) {
      new NodeInstaller(
        group.group,
        {
          ...group,
          runtimes: specs,
          namespace: systemNamespace,
          image: args.image,
          kubeconfig: args.kubeconfig,
          ...(pullSecret && { pullSecret: pullSecretName }),
        },
        // Classes outlive installers: a class whose installer still retires its handler stays.
        { parent: this, dependsOn: [namespace, classes, ...(pullSecret ? [pullSecret] : [])] },
      );
    }
    this.registerOutputs({ handlers });
  }

  /** A namespace of its own, whose label admits the installers' pods and says so to whoever looks. */
  #namespace(): core.Namespace {
    const labels = { "app.kubernetes.io/part-of": "contrast-runtime", ...podSecurityLabels };
    return new core.Namespace(systemNamespace, { metadata: { name: systemNamespace, labels } }, { parent: this });
  }

  #pullSecret(content: pulumi.Input<string> | undefined, namespace: core.Namespace): core.Secret | undefined {
    if (content === undefined) return undefined;
    return new core.Secret(
      pullSecretName,
      {
        metadata: { name: pullSecretName, namespace: systemNamespace },
        type: "kubernetes.io/dockerconfigjson",
        stringData: { ".dockerconfigjson": pulumi.secret(content) },
      },
      { parent: this, dependsOn: [namespace] },
    );
  }
}

const pullSecretName = "contrast-installer-pull";

const podSecurityLabels = {
  "pod-security.kubernetes.io/enforce": "privileged",
  "pod-security.kubernetes.io/audit": "privileged",
  "pod-security.kubernetes.io/warn": "privileged",
};

/** Several groups may have the same runtime: its class is one. */
function runtimeClasses(groups: { runtimes: RuntimeArgs[]; specs: RuntimeSpec[] }[]) {
  const classes = groups.flatMap(({ runtimes, specs }) =>
    specs.map(({ handler, platform }, i) => {
      const { memory, cpu, teeKeys = false } = runtimes[i] ?? {};
      return [handler, { handler, platform, memory, cpu, teeKeys }] as const;
    }),
  );
  return [...new Map(classes).values()];
}
