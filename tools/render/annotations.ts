import type { KubernetesObject } from "./objects.ts";

/** The object as it is written: with what Argo CD and Flux read, and without what only Pulumi's provider does. */
export function annotated(object: KubernetesObject): KubernetesObject {
  const { annotations, ...metadata } = object.metadata;
  const kept = Object.entries(annotations ?? {}).filter(([key]) => !key.startsWith("pulumi.com/"));
  return { ...object, metadata: { ...metadata, annotations: { ...Object.fromEntries(kept), ...added(object) } } };
}

/** The object without what `annotated` adds; a value that it would not write stays. */
export function unannotated(object: KubernetesObject): KubernetesObject {
  const { annotations, ...metadata } = object.metadata;
  const own = added(object);
  const kept = Object.entries(annotations ?? {}).filter(([key, value]) => own[key] !== value);
  return {
    ...object,
    metadata: { ...metadata, ...(kept.length > 0 && { annotations: Object.fromEntries(kept) }) },
  };
}

const added = (object: KubernetesObject): Record<string, string> => ({
  [syncWave]: `${wave(object.kind)}`,
  ...(mayMove(object) && replacedWhole),
});

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
export const wave = (kind: string): number => waves[kind] ?? -1;
