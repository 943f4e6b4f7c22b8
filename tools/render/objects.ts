import { Provider } from "@pulumi/kubernetes/provider.js";
import * as pulumi from "@pulumi/pulumi";
import type { StackConfiguration } from "../../components/config/read.ts";
import { stackRuntime } from "../../components/stack-runtime.ts";

/** A Kubernetes object as it is applied. */
export interface KubernetesObject {
  apiVersion: string;
  kind: string;
  metadata: {
    name: string;
    namespace?: string | undefined;
    annotations?: Record<string, string> | undefined;
    [field: string]: unknown;
  };
  [field: string]: unknown;
}

export interface Registered {
  objects: KubernetesObject[];
  /** The stack's outputs of these names. */
  referenceValues: object;
  cdhImage: string;
}

/**
 * What the components register for the stack in its cluster, without engine, state or cluster: Pulumi's mocks answer in the
 * engine's place. Takes the process's Pulumi runtime, so that it can be called once.
 */
export async function registeredBy(stack: StackConfiguration): Promise<Registered> {
  const objects: KubernetesObject[] = [];
  await pulumi.runtime.setMocks(
    {
      newResource: ({ type, name, inputs }) => {
        if (isObject(type)) objects.push(withoutPulumi(revealed(inputs)));
        return { id: name, state: inputs };
      },
      call: ({ token }) => {
        throw new Error(`${token} is asked of a cluster, and there is none`);
      },
    },
    "contrast-runtime",
    "render",
  );
  const { reference } = stack.image;
  if (reference === undefined) throw new Error("the rules let no image without a reference through");
  const nowhere = new Provider("kubernetes", { kubeconfig: "" });
  const runtime = stackRuntime(stack, { providers: [nowhere], manifestsOnly: true }, reference);
  const [referenceValues, cdhImage] = await Promise.all([settled(runtime.referenceValues), settled(runtime.cdhImage)]);
  await pulumi.runtime.disconnect();
  objects.sort((a, b) => rank(a) - rank(b) || (idOf(a) < idOf(b) ? -1 : 1));
  return { objects, referenceValues, cdhImage };
}

const settled = <T>(output: pulumi.Output<T>): Promise<T> => new Promise((resolve) => void output.apply(resolve));

/** What tells it from any other: kind, namespace if it has one, and name. */
export const idOf = ({ kind, metadata: { namespace, name } }: KubernetesObject): string =>
  [kind, namespace, name].filter((part) => part !== undefined).join(" ");

const isObject = (type: string) => type.startsWith("kubernetes:");

/** Whatever the components take for a secret is in the stack's file in plain text, since secrets are refused. */
function revealed<T>(value: T): T {
  const plain = pulumi.runtime.isRpcSecret(value) ? pulumi.runtime.unwrapRpcSecret(value) : value;
  if (Array.isArray(plain)) return plain.map(revealed) as T;
  if (typeof plain !== "object" || plain === null) return plain;
  return Object.fromEntries(Object.entries(plain).map(([key, part]) => [key, revealed(part)])) as T;
}

/** Annotations that only Pulumi's provider reads are left out. */
function withoutPulumi(inputs: KubernetesObject): KubernetesObject {
  const { annotations, ...metadata } = inputs.metadata;
  const kept = Object.entries(annotations ?? {}).filter(([key]) => !key.startsWith("pulumi.com/"));
  return {
    ...inputs,
    metadata: {
      ...metadata,
      annotations: {
        ...Object.fromEntries(kept),
        [syncWave]: `${wave(inputs.kind)}`,
        ...(mayMove(inputs) && replacedWhole),
      },
    },
  };
}

/** A class of the user's own name, which an upgrade moves to another handler. The handler's own class never does. */
const mayMove = ({ kind, handler, metadata }: KubernetesObject) => kind === "RuntimeClass" && handler !== metadata.name;

/** Kubernetes changes no class's handler: Argo CD and Flux, which read these, delete the class and make it anew. */
const replacedWhole = {
  "argocd.argoproj.io/sync-options": "Force=true,Replace=true",
  "kustomize.toolkit.fluxcd.io/force": "enabled",
};

/** Read by Argo CD, which applies a wave after the one before is healthy. */
const syncWave = "argocd.argoproj.io/sync-wave";

/** First what the installers run in and as, then what they read, last the installers. */
const waves: Record<string, number> = { Namespace: -2, ConfigMap: 0, RuntimeClass: 0, DaemonSet: 1 };
const wave = (kind: string) => waves[kind] ?? -1;
const rank = ({ kind }: KubernetesObject) => wave(kind);
