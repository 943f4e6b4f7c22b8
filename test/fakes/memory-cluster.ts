import { type Api, ApiError } from "../../node-installer/kubernetes/api.ts";
import { clusterConfinement } from "../../node-installer/kubernetes/confinement.ts";
import type { Cluster } from "../../node-installer/kubernetes/connect.ts";
import { newMetrics } from "../../node-installer/kubernetes/metrics.ts";
import { nodeReporter } from "../../node-installer/kubernetes/reporter.ts";
import { leaseTickets } from "../../node-installer/kubernetes/tickets.ts";
import { labelledHandlers, policyNames, retryAnnotation } from "../../runtime/names.ts";
import { type MemoryApi, memoryApi } from "./memory-api.ts";
import type { MemoryHost } from "./memory-host.ts";

const nodeName = "node-1";
const namespace = "contrast-runtime-system";
const nodeKey = `/api/v1/nodes/${nodeName}`;

/** A cluster with one node: what the API server holds, and what an installer's process makes of it. */
export class MemoryCluster {
  readonly api: MemoryApi;
  private readonly group: string;
  private retries = 0;

  constructor(group: string, now: () => Date) {
    this.group = group;
    this.api = memoryApi();
    for (const name of Object.values(policyNames(group))) this.api.policies.add(name);
    this.api.objects.set(nodeKey, { metadata: { name: nodeName, uid: "node-uid", labels: {} }, status: readyBy(now) });
  }

  /** What an installer's process on the host sees of it. Each of its requests is a point of the host. */
  connect(host: MemoryHost, onError: (error: ApiError) => void): Cluster {
    const metrics = newMetrics();
    const request = <T>(method: string, path: string, body: object = {}): Promise<T> =>
      host.point(`api ${method} ${path}`, () => {
        // As over the network: nobody keeps an object that somebody else changes.
        const given = JSON.parse(JSON.stringify(body));
        const { status, body: text } = this.api.answer(method, path, given);
        const answer = JSON.parse(text);
        if (status >= 300) throw new ApiError(status, answer.reason, `${method} ${path}: ${status} ${answer.message}`);
        return answer;
      });
    const api: Api = {
      get: (path) => request("GET", path),
      create: (path, object) => request("POST", path, object),
      mergePatch: (path, patch) => request("PATCH", path, patch),
      async delete(path, preconditions) {
        await request("DELETE", path, preconditions && { preconditions });
      },
    };
    const { group } = this;
    const now = () => host.now();
    // A process that was killed publishes nothing any more.
    const delay = (ms: number) =>
      host.alive ? host.delay(ms).catch(() => reporter.close()) : Promise.resolve(reporter.close());
    const uptime = () => host.uptime();
    const options = { api, group, namespace, nodeName, now, uptime, delay, atOnce: 1 };
    const reporter = nodeReporter({ ...options, metrics, onError });
    return {
      nodeName,
      reporter,
      tickets: leaseTickets(api, options),
      confinement: clusterConfinement(options),
      metrics,
      mayReadBundle: async () => false,
    };
  }

  /** Handlers in the node's labels. */
  get labels(): string[] {
    return labelledHandlers({ ...(this.api.objects.get(nodeKey)?.metadata.labels ?? {}) }).toSorted();
  }

  get tickets(): string[] {
    return [...this.api.objects.keys()].filter((key) => key.includes("/leases/"));
  }

  /** A person asks for another attempt. */
  askAgain(): void {
    this.retries += 1;
    const annotations = { [retryAnnotation(this.group)]: String(this.retries) };
    this.api.answer("PATCH", nodeKey, { metadata: { annotations } });
  }

  /** The same cluster again, as it is now, for a copy of its node. */
  copy(now: () => Date): MemoryCluster {
    const twin = new MemoryCluster(this.group, now);
    for (const [key, object] of this.api.objects)
      twin.api.objects.set(key, key === nodeKey ? { ...object, status: readyBy(now) } : object);
    twin.retries = this.retries;
    return twin;
  }
}

/** A kubelet that is always well, and says so whenever it is asked. */
const readyBy = (now: () => Date) => ({
  conditions: [
    {
      type: "Ready",
      status: "True",
      get lastHeartbeatTime() {
        return now().toISOString();
      },
    },
  ],
});
