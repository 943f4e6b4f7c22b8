import { isDeepStrictEqual } from "node:util";
import { retryAnnotation, statusAnnotation } from "../../runtime/names.ts";
import { type Api, ApiError } from "./api.ts";
import { type NodeEvent, recordEvent } from "./events.ts";
import { setServedLabels } from "./labels.ts";
import type { InstallerMetrics } from "./metrics.ts";
import { type NodeObject, type NodeReadiness, patchOwnNode, readinessOf, readOwnNode } from "./node.ts";
import { podsOfHandler } from "./pods.ts";
import { boundedStatus, type NodeStatus, publishedStatus } from "./status.ts";

/** How the installer tells the cluster about its node. */
export interface Reporter {
  /**
   * Makes the node's handler labels exactly these. Resolves once the API server has confirmed it, because a label
   * must be removed before anything that may stop serving its handler. Throws `ApiError`.
   */
  setServed(handlers: readonly string[]): Promise<void>;
  /** The handlers in the node's labels, as far as this process has set them. */
  served(): string[];
  /**
   * Reports the node's state: at once for /readyz and metrics, in the background for the node's annotation and, where a
   * person should know, as an Event. Never throws; retries until the API server accepts it; of several, the newest counts.
   */
  report(status: NodeStatus): void;
  /** Something that happened apart from the state, such as drift that was repaired. In the background, like `report`. */
  event(event: NodeEvent): void;
  /** A token that changes when somebody asks for another attempt after a failure; undefined if nobody ever did. */
  retryToken(): Promise<string | undefined>;
  /**
   * `namespace/name` of the pods that are bound to this node with the handler's class and have not ended. They may have no
   * sandbox yet: some wait for a volume. Throws `ApiError`.
   */
  podsUsing(handler: string): Promise<string[]>;
  /** Whether Kubernetes calls the node ready; undefined if that cannot be told now. Never throws. */
  nodeReady(): Promise<NodeReadiness | undefined>;
  /** What was reported last. */
  current(): NodeStatus | undefined;
  /** Resolves when everything reported so far is published. */
  flush(): Promise<void>;
  /** Drops what is not published yet. */
  close(): void;
}

export interface ReporterOptions {
  api: Api;
  group: string;
  nodeName: string;
  metrics: InstallerMetrics;
  now: () => Date;
  delay: (ms: number) => Promise<void>;
  /** Called for every failed attempt to publish, for the log. */
  onError: (error: ApiError) => void;
}

export function nodeReporter(options: ReporterOptions): Reporter {
  const { api, nodeName, group, now } = options;
  let status: NodeStatus | undefined;
  let served: readonly string[] = [];
  let unpublished: NodeStatus | undefined;
  const events: NodeEvent[] = [];
  let publishing: Promise<void> | undefined;
  let closed = false;

  const publishOnce = async (): Promise<void> => {
    let node: NodeObject | undefined;
    const publishedNow = unpublished;
    if (publishedNow !== undefined) {
      const annotations = { [statusAnnotation(group)]: JSON.stringify(publishedStatus(publishedNow, now())) };
      node = await patchOwnNode(api, nodeName, { annotations });
      if (unpublished === publishedNow) unpublished = undefined;
    }
    for (let event = events[0]; event !== undefined; event = events[0]) {
      node ??= await readOwnNode(api, nodeName);
      await recordEvent(api, node.metadata, event, now());
      events.shift();
    }
  };

  const publish = async (): Promise<void> => {
    for (let failures = 0; !closed && (unpublished !== undefined || events.length > 0); ) {
      try {
        await publishOnce();
        failures = 0;
      } catch (error) {
        options.onError(
          error instanceof ApiError ? error : new ApiError(0, "Internal", String(error), { cause: error }),
        );
        // An Event that the API refuses, rather than cannot take now, would hold up everything behind it forever.
        if (unpublished === undefined && error instanceof ApiError && error.status >= 400 && error.status < 500)
          events.shift();
        failures += 1;
        await options.delay(Math.min(1_000 * 2 ** failures, 60_000));
      }
    }
    publishing = undefined;
  };
  const wake = () => {
    publishing ??= publish();
  };

  return {
    async setServed(handlers) {
      await setServedLabels(api, nodeName, handlers);
      served = handlers;
    },
    served: () => [...served],
    report(given) {
      const next = boundedStatus(given);
      if (isDeepStrictEqual(next, status)) return;
      countOutcome(options.metrics, next, now());
      const event = eventOf(next);
      if (event !== undefined && !isDeepStrictEqual(event, status && eventOf(status))) queue(events, event);
      status = next;
      unpublished = next;
      wake();
    },
    event(event) {
      queue(events, event);
      wake();
    },
    async retryToken() {
      const node = await readOwnNode(api, nodeName);
      return node.metadata.annotations?.[retryAnnotation(group)];
    },
    podsUsing: (handler) => podsOfHandler(api, nodeName, handler),
    nodeReady: () => readOwnNode(api, nodeName).then(readinessOf, () => undefined),
    current: () => status,
    async flush() {
      while (publishing !== undefined) await publishing;
    },
    close() {
      closed = true;
    },
  };
}

/** Reports a state in which the node goes on serving the handlers in its labels. */
export function reportServing(reporter: Reporter, status: Omit<NodeStatus, "handlers" | "pods">): void {
  reporter.report({ ...status, handlers: reporter.served(), pods: [] });
}

/** Bounds memory while the API server is away for long: the oldest Events are the least interesting. */
function queue(events: NodeEvent[], event: NodeEvent): void {
  events.push(event);
  if (events.length > 50) events.shift();
}

function countOutcome(metrics: InstallerMetrics, status: NodeStatus, time: Date): void {
  if (status.state === "failed") metrics.failures[status.code] = (metrics.failures[status.code] ?? 0) + 1;
  if (status.state === "ready") metrics.lastSuccess = time;
}

/** Which states are worth an Event. Steps and turns are not: there would be too many, and the annotation has them. */
function eventOf({ state, code, reason }: NodeStatus): NodeEvent | undefined {
  if (state === "failed") return { type: "Warning", reason: pascalCase(code), message: reason };
  if (state === "blocked") return { type: "Warning", reason: "RuntimeInUse", message: reason };
  if (state === "ready") return { type: "Normal", reason: "RuntimeReady", message: reason };
  return undefined;
}

export const pascalCase = (code: string): string =>
  code.replace(/(?:^|-)([a-z0-9])/g, (_, letter: string) => letter.toUpperCase());

/** For runs outside a cluster: remembers the state and tells nobody. */
export function localReporter(metrics: InstallerMetrics, now: () => Date): Reporter {
  let status: NodeStatus | undefined;
  let served: readonly string[] = [];
  return {
    async setServed(handlers) {
      served = handlers;
    },
    served: () => [...served],
    report(given) {
      const next = boundedStatus(given);
      if (!isDeepStrictEqual(next, status)) countOutcome(metrics, next, now());
      status = next;
    },
    event: () => {},
    retryToken: async () => undefined,
    podsUsing: async () => [],
    nodeReady: async () => undefined,
    current: () => status,
    flush: async () => {},
    close: () => {},
  };
}
