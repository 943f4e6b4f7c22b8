import { Provider } from "@pulumi/kubernetes/provider.js";
import * as pulumi from "@pulumi/pulumi";
import type { StackConfiguration } from "../../components/config/read.ts";
import { stackRuntime } from "../../components/stack-runtime.ts";
import type { Inputs } from "../../review/preview/inputs.ts";
import { annotated, wave } from "./annotations.ts";

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
  /** What each component is told, by its type below those of its parents, and its name: "TYPE$TYPE::NAME". */
  components: Map<string, Inputs>;
  /** The component that an object is directly below. */
  ownerOf: (object: KubernetesObject) => string | undefined;
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
  const components = new Map<string, Inputs>();
  const owners = new Map<KubernetesObject, string | undefined>();
  const { transformation, placeOf } = places();
  await pulumi.runtime.setMocks(
    {
      newResource: ({ type, name, inputs }) => {
        const { own, parent } = placeOf(type, name);
        if (isObject(type)) {
          const object = annotated(revealed(inputs));
          objects.push(object);
          owners.set(object, parent);
        } else if (own !== undefined) components.set(own, revealed(inputs));
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
  const runtime = stackRuntime(stack, { providers: [nowhere], manifestsOnly: true, transformation }, reference);
  const [referenceValues, cdhImage] = await Promise.all([settled(runtime.referenceValues), settled(runtime.cdhImage)]);
  await pulumi.runtime.disconnect();
  objects.sort((a, b) => rank(a) - rank(b) || (idOf(a) < idOf(b) ? -1 : 1));
  return { objects, components, ownerOf: (object) => owners.get(object), referenceValues, cdhImage };
}

/** Which component each resource is below, which mocks do not say. Only what is below the stack's runtime has a place. */
function places() {
  const ofResources = new Map<pulumi.Resource, string>();
  const byTypeAndName = new Map<string, { own: string; parent: string | undefined }>();
  const transformation: pulumi.ResourceTransformation = ({ resource, type, name, opts }) => {
    const parent = opts.parent && ofResources.get(opts.parent);
    const own = `${parent === undefined ? "" : `${parent.split("::")[0]}$`}${type}::${name}`;
    ofResources.set(resource, own);
    byTypeAndName.set(`${type}::${name}`, { own, parent });
    return undefined;
  };
  const placeOf = (type: string, name: string) =>
    byTypeAndName.get(`${type}::${name}`) ?? { own: undefined, parent: undefined };
  return { transformation, placeOf };
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

const rank = ({ kind }: KubernetesObject) => wave(kind);
