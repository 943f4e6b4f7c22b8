import type { KubeConfig, KubernetesObject } from "@kubernetes/client-node";

const fieldManager = "contrast-runtime";

/** Applies a JSON merge patch to one object, identified by its kind and metadata. */
export async function mergePatch(
  kubeconfig: KubeConfig,
  object: KubernetesObject & Record<string, unknown>,
): Promise<void> {
  const { KubernetesObjectApi, PatchStrategy } = await import("@kubernetes/client-node");
  const api = KubernetesObjectApi.makeApiClient(kubeconfig);
  await api.patch(object, undefined, undefined, fieldManager, undefined, PatchStrategy.MergePatch);
}

/** null removes an annotation. */
export const patchNodeAnnotations = (
  kubeconfig: KubeConfig,
  name: string,
  annotations: Record<string, string | null>,
) =>
  mergePatch(kubeconfig, {
    apiVersion: "v1",
    kind: "Node",
    metadata: { name, annotations: annotations as Record<string, string> },
  });
