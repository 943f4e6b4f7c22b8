import type { Metadata } from "./pod-template.ts";

/** A webhook that adds containers to pods when they are created: after their policy was made. */
interface Injector {
  title: string;
  /** What asks for it; a value, or any that begins so. */
  asks: readonly Ask[];
  /** What says of one pod that it is left alone, whatever its namespace says. */
  declines?: Ask;
}
interface Ask {
  on: "namespace" | "pod";
  in: "labels" | "annotations";
  key: RegExp;
  /** Absent: any value but "false". */
  value?: RegExp;
}

const on = (where: Ask["on"], part: Ask["in"], key: RegExp, value?: RegExp): Ask => ({
  ...{ on: where, in: part, key },
  ...(value && { value }),
});

/** Keys as each project's own documentation of automatic injection has them. */
const injectors: readonly Injector[] = [
  {
    title: "Istio",
    asks: [
      on("pod", "labels", /^sidecar\.istio\.io\/inject$/, /^true$/),
      on("pod", "annotations", /^sidecar\.istio\.io\/inject$/, /^true$/),
      on("pod", "labels", /^istio\.io\/rev$/),
      on("namespace", "labels", /^istio-injection$/, /^enabled$/),
      on("namespace", "labels", /^istio\.io\/rev$/),
    ],
    declines: on("pod", "labels", /^sidecar\.istio\.io\/inject$/, /^false$/),
  },
  {
    title: "Linkerd",
    asks: [
      on("pod", "annotations", /^linkerd\.io\/inject$/, /^(enabled|ingress)$/),
      on("namespace", "annotations", /^linkerd\.io\/inject$/, /^(enabled|ingress)$/),
    ],
    declines: on("pod", "annotations", /^linkerd\.io\/inject$/, /^disabled$/),
  },
  {
    title: "Vault's agent injector",
    asks: [on("pod", "annotations", /^vault\.hashicorp\.com\/agent-inject$/, /^true$/)],
  },
  {
    title: "Consul",
    asks: [on("pod", "annotations", /^consul\.hashicorp\.com\/connect-inject$/, /^true$/)],
  },
  { title: "Dapr", asks: [on("pod", "annotations", /^dapr\.io\/enabled$/, /^true$/)] },
  {
    title: "Kuma",
    asks: [
      on("pod", "labels", /^kuma\.io\/sidecar-injection$/, /^enabled$/),
      on("namespace", "labels", /^kuma\.io\/sidecar-injection$/, /^enabled$/),
    ],
    declines: on("pod", "labels", /^kuma\.io\/sidecar-injection$/, /^disabled$/),
  },
  {
    title: "the OpenTelemetry operator",
    asks: [
      on("pod", "annotations", /^sidecar\.opentelemetry\.io\/inject$/),
      on("namespace", "annotations", /^sidecar\.opentelemetry\.io\/inject$/),
      on("pod", "annotations", /^instrumentation\.opentelemetry\.io\/inject-/),
      on("namespace", "annotations", /^instrumentation\.opentelemetry\.io\/inject-/),
    ],
  },
];

/** Something on a pod or its namespace that has containers added to the pod. */
export interface Injection {
  title: string;
  on: Ask["on"];
  in: Ask["in"];
  key: string;
  value: string;
}

/** All that would be injected into a pod with this metadata, as far as the metadata and its namespace's say. */
export function injections(pod: Metadata, namespace: Metadata): Injection[] {
  const found = ({ on, in: part, key, value }: Ask) =>
    Object.entries((on === "pod" ? pod : namespace)[part] ?? {}).filter(
      ([name, given]) => key.test(name) && (value ?? /^(?!false$)/).test(given),
    );
  return injectors.flatMap(({ title, asks, declines }) => {
    if (declines !== undefined && found(declines).length > 0) return [];
    return asks.flatMap((ask) => found(ask).map(([key, value]) => ({ title, on: ask.on, in: ask.in, key, value })));
  });
}
