import { RuntimeClass } from "@pulumi/kubernetes/node/v1/runtimeClass.js";
import * as pulumi from "@pulumi/pulumi";
import { runtimeClassesCard } from "../runtime/cards.ts";
import { handlerLabel, ownKey, partOfLabel } from "../runtime/names.ts";
import { platforms } from "../runtime/platforms.ts";
import type { PlatformName } from "../runtime/spec.ts";
import { checkArguments, runtimeClassesArgs } from "./arguments.ts";

export interface RuntimeClassArgs {
  handler: string;
  platform: PlatformName;
  /** Kubernetes quantities; by default the platform's own. */
  memory?: string | undefined;
  cpu?: string | undefined;
  /** Charge each pod one SNP or TDX key. Only where nodes advertise them. */
  teeKeys?: boolean;
}

export interface RuntimeClassesArgs {
  classes: RuntimeClassArgs[];
}

/** One RuntimeClass per handler, for the whole cluster. Its pods are scheduled only where the handler passed its gate. */
export class RuntimeClasses extends pulumi.ComponentResource {
  /** Names of the classes, sorted: what a pod writes in `runtimeClassName`. */
  readonly names: string[];

  constructor(name: string, args: RuntimeClassesArgs, opts?: pulumi.ComponentResourceOptions) {
    const { classes } = args;
    checkArguments(`RuntimeClasses ${name}`, runtimeClassesArgs, args);
    const sorted = classes.toSorted((a, b) => (a.handler < b.handler ? -1 : 1));
    super(runtimeClassesCard.type, name, { classes: sorted.map(card) }, opts);
    for (const args of sorted) {
      new RuntimeClass(args.handler, runtimeClass(args), {
        parent: this,
        // Kubernetes refuses to change a handler, which the provider does not know; both classes have the same name.
        replaceOnChanges: ["handler"],
        deleteBeforeReplace: true,
      });
    }
    this.names = sorted.map(({ handler }) => handler);
    this.registerOutputs({ names: this.names });
  }
}

function runtimeClass(args: RuntimeClassArgs) {
  const { handler, platform } = args;
  return {
    metadata: {
      name: handler,
      labels: { ...partOfLabel, [ownKey("platform")]: platform },
    },
    handler,
    overhead: { podFixed: overhead(args) },
    scheduling: { nodeSelector: { [handlerLabel(handler)]: "true" } },
  };
}

function overhead({ platform, memory, cpu, teeKeys }: RuntimeClassArgs): Record<string, string> {
  const { overheadMiB, extendedResource } = platforms[platform];
  return {
    memory: memory ?? `${overheadMiB}Mi`,
    ...(cpu !== undefined && { cpu }),
    ...(teeKeys && extendedResource !== undefined && { [extendedResource]: "1" }),
  };
}

const card = (args: RuntimeClassArgs) => ({ handler: args.handler, platform: args.platform, overhead: overhead(args) });
