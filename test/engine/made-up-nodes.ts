import type { Api } from "../../node-installer/kubernetes/api.ts";

/** Nodes that no kubelet is behind, and the pods that a DaemonSet's controller makes for them. */
export interface MadeUpNodes {
  addNode(node: string, ready: boolean): Promise<void>;
  /** Of a node or a pod, by its path. */
  setReady(path: string, ready: boolean): Promise<unknown>;
  podOn(node: string): Promise<Pod>;
}

export interface Pod {
  metadata: { name: string; annotations?: Record<string, string> };
  spec: {
    affinity?: {
      nodeAffinity: {
        requiredDuringSchedulingIgnoredDuringExecution: {
          nodeSelectorTerms: { matchFields: { values: string[] }[] }[];
        };
      };
    };
  };
}
/** @param labels what a group selects them by */
export function madeUpNodes(api: Api, namespace: string, labels: Record<string, string>): MadeUpNodes {
  async function addNode(node: string, ready: boolean): Promise<void> {
    await api.create("/api/v1/nodes", { metadata: { name: node, labels } });
    await setReady(`/api/v1/nodes/${node}`, ready);
    // New nodes are tainted as not ready; the controller that removes the taint does not run here.
    if (ready) await api.mergePatch(`/api/v1/nodes/${node}`, { spec: { taints: [] } });
  }

  const setReady = (path: string, ready: boolean) =>
    api.mergePatch(`${path}/status`, {
      status: {
        phase: path.includes("/pods/") ? "Running" : undefined,
        conditions: [{ type: "Ready", status: ready ? "True" : "False" }],
      },
    });

  async function podOn(node: string): Promise<Pod> {
    const { items } = await api.get<{ items: Pod[] }>(`/api/v1/namespaces/${namespace}/pods`);
    const pod = items.find(
      ({ spec }) =>
        spec.affinity?.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0]?.matchFields[0]
          ?.values[0] === node,
    );
    if (pod === undefined) throw new Error(`no pod on ${node}`);
    return pod;
  }

  return { addNode, setReady, podOn };
}
